"""What `ties_apart` promises: task vectors trimmed and elected as TIES does, and then weighted one by one."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.errors import SpecError
from mergesearch.merging import make_operator, merge
from mergesearch.operators.base import Layout
from mergesearch.operators.ties_apart import Apart

SHAPES = {"a.weight": (7, 6), "b.bias": (9,), "head.weight": (5, 4), "none": (0, 3), "scalar": ()}
SEEDS = st.integers(0, 10_000)
SCOPES = pytest.mark.parametrize("scope", ["tensor", "global"])
Model = dict[str, torch.Tensor]


def models(seed: int, count: int, coarse: bool = False) -> tuple[Model, list[Model]]:
    """A random base and experts in float64; `coarse`: changes of a few values, so that many are equal or cancel."""
    rng = torch.Generator().manual_seed(seed)

    def change(shape: tuple[int, ...]) -> torch.Tensor:
        noise = torch.randn(shape, generator=rng)
        parts = 2 if coarse else 1 << 16  # of 1: float32, in which entries are ranked, holds base and expert exactly
        return ((parts * noise).round() / parts).double()

    base = {n: torch.randint(-4, 5, s, generator=rng).double() for n, s in SHAPES.items()}
    return base, [{n: t + change(SHAPES[n]) for n, t in base.items()} for _ in range(count)]


def trimmed(tau: torch.Tensor, kept: int) -> torch.Tensor:
    """A flat task vector with its `kept` largest entries, the first of equal ones."""
    order = torch.argsort(tau.abs(), descending=True, stable=True)
    return torch.zeros_like(tau).index_copy(0, order[:kept], tau[order[:kept]])


def elected(taus: torch.Tensor, zero_is_positive: bool) -> torch.Tensor:
    """(K, N) without the entries whose sign is not that of their column's sum."""
    total = taus.sum(dim=0)
    up = total >= 0 if zero_is_positive else total > 0
    return torch.where(torch.where(up, taus > 0, taus < 0), taus, 0)


def formula(base: Model, experts: list[Model], densities: list[float], scope: str) -> dict[str, torch.Tensor]:
    """The task vectors of AdaMerging++ in plain torch: (K, *shape) of each tensor."""
    taus = {n: torch.stack([(e[n] - base[n]).flatten() for e in experts]) for n in base}
    if scope == "tensor":
        for n, tau in taus.items():
            kept = [max(1, int(d * tau.shape[1])) if tau.shape[1] else 0 for d in densities]
            tau = torch.stack([trimmed(t, k) for t, k in zip(tau, kept, strict=True)])
            taus[n] = elected(tau, zero_is_positive=True)
    else:
        flat = torch.cat([taus[n] for n in base], dim=1)
        kept = [min(int(d * flat.shape[1]) + 1, flat.shape[1]) for d in densities]
        least = torch.stack([t.abs().sort(descending=True).values[k - 1] for t, k in zip(flat, kept, strict=True)])
        flat = torch.where(flat.abs() >= least[:, None], flat, 0)
        flat = elected(flat, zero_is_positive=bool(flat.sum(dim=0).sign().sum() > 0))
        taus = dict(zip(base, flat.split([base[n].numel() for n in base], dim=1), strict=True))
    return {n: taus[n].reshape(len(experts), *SHAPES[n]) for n in base}


def prepared_by_group(base: Model, experts: list[Model], **options: object) -> Apart:
    """The operator with each tensor a group of its own."""
    layout = Layout(tuple(map(str, range(len(experts)))), tuple(SHAPES), {n: i for i, n in enumerate(SHAPES)})
    found = make_operator("ties_apart", options).prepare(base, experts, layout)  # type: ignore[union-attr]
    assert isinstance(found, Apart)
    return found


def tables(experts: int, **values: object) -> dict[str, Any]:
    """Settings of every group: each knob at its start, except those given (anything that broadcasts)."""
    return {
        k.name: np.broadcast_to(values.get(k.name, k.start(experts)), (len(SHAPES), experts)).astype(float)
        for k in make_operator("ties_apart", {}).KNOBS
    }


def build(prepared: Apart, at: dict[str, Any], names: tuple[str, ...] = tuple(SHAPES)) -> Model:
    """A candidate in fresh memory."""
    into = {n: torch.full(s, float("nan"), dtype=torch.float64) for n, s in SHAPES.items()}
    prepared.apply(at, names, into)
    return into


@SCOPES
@given(seed=SEEDS, count=st.integers(1, 10), density=st.sampled_from([0.05, 0.2, 0.5, 0.93, 1.0]), coarse=st.booleans())
@settings(max_examples=40, deadline=None)
def test_is_the_formula(scope: str, seed: int, count: int, density: float, coarse: bool) -> None:
    """base + scale · Σ w_k τ'_k in float64, for any weights of groups and experts, with equal entries and cancelling
    ones, for more experts than a plane of bits holds."""
    base, experts = models(seed, count, coarse)
    rng = np.random.default_rng(seed)
    densities = rng.permutation([density, *rng.uniform(0.05, 1.0, count - 1)]).tolist()
    weights, scale = rng.uniform(0, 1.5, (len(SHAPES), count)), rng.uniform(0, 2, (len(SHAPES), 1))
    at = tables(count, coefficient=weights, scale=scale, density=densities)
    got = build(prepared_by_group(base, experts, scope=scope), at)
    for row, (name, tau) in enumerate(formula(base, experts, densities, scope).items()):
        wanted = base[name] + scale[row, 0] * torch.einsum("k,k...->...", torch.tensor(weights[row]), tau)
        torch.testing.assert_close(got[name], wanted, rtol=1e-12, atol=1e-12)


@SCOPES
@given(seed=SEEDS, count=st.integers(1, 5), density=st.floats(0.05, 1.0))
@settings(max_examples=20, deadline=None)
def test_equal_coefficients_give_the_sum_of_ties(scope: str, seed: int, count: int, density: float) -> None:
    """What `ties` without normalisation gives at one coefficient for all experts."""
    base, experts = models(seed, count)
    knobs = {"coefficient": 0.6, "density": density}
    apart = merge("ties_apart", base, experts, knobs, scope=scope)
    ties = merge("ties", base, experts, knobs, scope=scope, normalize=False)
    torch.testing.assert_close(apart, ties, rtol=1e-12, atol=1e-12)


@given(seed=SEEDS, density=st.floats(0.05, 1.0))
@settings(max_examples=20, deadline=None)
def test_one_expert_is_the_trimmed_expert(seed: int, density: float) -> None:
    """Nobody disagrees with it: its largest changes are there to the last digit, the others are not."""
    base, (expert,) = models(seed, 1)
    merged = merge("ties_apart", base, [expert], {"coefficient": 1.0, "density": density})
    for name, tensor in base.items():
        if tensor.numel():
            tau = (expert[name] - tensor).flatten()
            wanted = tensor + trimmed(tau, max(1, int(density * tau.numel()))).reshape(tensor.shape)
            torch.testing.assert_close(merged[name], wanted, rtol=1e-14, atol=1e-14)


@SCOPES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_zero_coefficients_give_the_base(scope: str, dtype: torch.dtype) -> None:
    """To the bit."""
    wide, others = models(0, 3)
    base, *experts = ({n: t.to(dtype) for n, t in model.items()} for model in (wide, *others))
    merged = merge("ties_apart", base, experts, {"coefficient": 0.0}, scope=scope)
    assert all(torch.equal(merged[name], tensor) for name, tensor in base.items())


def test_disagreeing_entries_vanish_whatever_the_coefficients() -> None:
    """The sign is that of the larger mass, not that of the larger weight; exact opposites elect plus."""
    base = {"w": torch.zeros(4)}
    experts = [{"w": torch.tensor([3.0, -1.0, 2.0, 0.0])}, {"w": torch.tensor([-2.0, -4.0, -2.0, 5.0])}]
    for weights, wanted in (
        ([1.0, 1.0], [3, -5, 2, 5]),
        ([0.0, 1.5], [0, -6, 0, 7.5]),
        ([0.5, 0.0], [1.5, -0.5, 1, 0]),
    ):
        merged = merge("ties_apart", base, experts, {"coefficient": weights, "density": 1.0})
        assert merged["w"].tolist() == wanted


def test_what_is_trimmed_has_no_vote() -> None:
    """At a density of 0.5 the small change of expert 1 is gone before the election, which expert 0 then wins."""
    base = {"w": torch.zeros(2)}
    experts = [{"w": torch.tensor([2.0, 0.0])}, {"w": torch.tensor([-3.0, 9.0])}]
    at = {"coefficient": 1.0}
    assert merge("ties_apart", base, experts, at | {"density": 0.5})["w"].tolist() == [2.0, 9.0]
    assert merge("ties_apart", base, experts, at | {"density": 1.0})["w"].tolist() == [-3.0, 9.0]


@SCOPES
def test_a_density_reaches_every_tensor_and_masks_are_remade_only_then(
    scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While coefficients, scale and gradients change nothing is marked anew; only the tensors asked for are marked."""
    base, experts = models(3, 3)
    prepared, marked = prepared_by_group(base, experts, scope=scope), []
    elect = Apart._elect

    def recorded(self: Apart, name: str, zero_is_positive: bool) -> None:
        marked.append(name)
        elect(self, name, zero_is_positive)

    monkeypatch.setattr(Apart, "_elect", recorded)
    build(prepared, tables(3), ("a.weight",))
    assert marked == ["a.weight"]
    sparse = build(prepared, tables(3))
    assert sorted(marked) == sorted(SHAPES)
    build(prepared, tables(3, coefficient=[0.1, 0.9, 0.0], scale=0.5))
    prepared.pull_back(tables(3, coefficient=0.7), base)
    assert sorted(marked) == sorted(SHAPES)
    dense = build(prepared, tables(3, density=0.9))
    assert sorted(marked) == sorted([*SHAPES, *SHAPES])
    for name in ("a.weight", "b.bias", "head.weight"):
        assert int((dense[name] != base[name]).sum()) > int((sparse[name] != base[name]).sum())
    again = build(prepared, tables(3))
    assert all(torch.equal(again[name], sparse[name]) for name in SHAPES)


def test_a_density_of_one_expert_leaves_the_trimming_of_the_others() -> None:
    """Where no other expert changes, an expert keeps what its own density says."""
    base = {"w": torch.zeros(20)}
    values = torch.arange(1.0, 11.0)
    experts = [{"w": torch.cat([values, torch.zeros(10)])}, {"w": torch.cat([torch.zeros(10), values])}]
    merged = merge("ties_apart", base, experts, {"coefficient": 1.0, "density": [0.1, 0.25]})
    assert merged["w"].nonzero().flatten().tolist() == [8, 9, 15, 16, 17, 18, 19]


@SCOPES
def test_a_density_over_tensors_of_nothing(scope: str) -> None:
    """Models without an entry merge, and say nothing."""
    base = {"w": torch.zeros(0, 3)}
    merged = merge("ties_apart", base, [base, base], {"coefficient": 1.0}, scope=scope)
    assert merged["w"].shape == (0, 3)


@SCOPES
@pytest.mark.parametrize("count", [3, 9])
def test_gradients_are_those_of_the_formula(scope: str, count: int) -> None:
    """∂L/∂w_k = scale · <∂L/∂W, τ'_k>, and ∂L/∂scale = Σ w_k <∂L/∂W, τ'_k>."""
    base, experts = models(5, count)
    at = tables(count, coefficient=np.linspace(0.1, 1.2, count), scale=0.7, density=0.4)
    slopes = {n: torch.sin(t + 1.0) for n, t in base.items() if n != "b.bias"}
    got = prepared_by_group(base, experts, scope=scope).pull_back(at, slopes)
    for row, (name, tau) in enumerate(formula(base, experts, [0.4] * count, scope).items()):
        slope = slopes.get(name, torch.zeros(SHAPES[name], dtype=torch.float64))
        products = (tau * slope).reshape(count, slope.numel()).sum(dim=1).numpy()
        np.testing.assert_allclose(got["coefficient"][row], 0.7 * products, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(got["scale"][row, 0], at["coefficient"][row] @ products, rtol=1e-10, atol=1e-12)


def test_an_unknown_scope_is_refused() -> None:
    """As are knobs of `ties` that it does not have."""
    base, experts = models(0, 2)
    with pytest.raises(SpecError, match="scope"):
        merge("ties_apart", base, experts, 1.0, scope="layer")
    with pytest.raises(SpecError, match="normalize"):
        merge("ties_apart", base, experts, 1.0, normalize=True)


def test_memory_is_a_bit_per_entry_and_expert() -> None:
    """What it says it remembers is what it remembers."""
    base, experts = models(0, 9)
    prepared = prepared_by_group(base, experts)
    build(prepared, tables(9))
    shapes = {n: tuple(t.shape) for n, t in base.items()}
    held = sum(mask.numel() for mask in prepared.masks.values())
    assert make_operator("ties_apart", {}).extra_bytes(shapes, 9) == held == 2 * sum(t.numel() for t in base.values())
