"""What the operators promise that keep entries by rank: exactly so many, and which of equal ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.errors import EvaluationError
from mergesearch.merging import make_operator, merge
from mergesearch.operators.base import Layout
from mergesearch.operators.passes import chunked as _chunked
from mergesearch.operators.passes import stream as _stream
from mergesearch.operators.passes import trim as _trim
from mergesearch.operators.passes.stream import Stream
from mergesearch.operators.passes.trim import SPREAD, Trim

ENTRIES = st.sampled_from([0.0, -0.5, 0.5, 1.0, -1.0, 3e-39, 1e30]) | st.floats(-1, 1, width=32)
PATHS = pytest.mark.parametrize("compiled", [False, True], ids=["torch", "compiled"])


@pytest.fixture(autouse=True)
def _short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of many parts for small tensors."""
    monkeypatch.setattr(_trim, "_SORTED", 600)
    monkeypatch.setattr(_trim, "_SAMPLES", 3)


def models(count: int, size: int, seed: int = 0) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """A base and experts of one vector each."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(size, generator=generator)
    return {"w": base}, [{"w": base + torch.randn(size, generator=generator)} for _ in range(count)]


def kept(trim: Trim, bits: torch.Tensor, rank: int) -> torch.Tensor:
    """The mask of what lies above an edge of the one tensor of a trim."""
    ((edge,), (last,)) = trim.edges(["w"], np.array([[rank]]))[0].tolist()
    return _chunked.above(bits, edge, last, slice(0, bits.numel()))


@PATHS
@given(values=st.lists(ENTRIES, min_size=1, max_size=60), ranks=st.lists(st.integers(-1, 62), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_edges_are_those_of_a_stable_sort(compiled: bool, values: list[float], ranks: list[int]) -> None:
    """Exactly `rank` entries are above an edge, of equal ones the first, whatever was asked before, on both paths."""
    base, expert = torch.zeros(len(values)), torch.tensor(values, dtype=torch.float32)
    trim = Trim(Stream([{"w": base}, {"w": expert}], ["w"], compiled), [0])
    order = torch.argsort(expert.abs(), descending=True, stable=True)
    for rank in ranks:
        wanted = torch.zeros(len(values), dtype=torch.bool)
        wanted[order[: max(rank, 0)]] = True
        assert torch.equal(kept(trim, _chunked.magnitude_bits(base, expert), rank), wanted)


@PATHS
@pytest.mark.parametrize("column", [0, SPREAD])
def test_edges_of_large_tensors_with_many_equal_entries(compiled: bool, column: int) -> None:
    """Tensors sorted in parts, bfloat16 with few distinct changes, long runs of one value: still exact."""
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(5000, generator=generator).to(torch.bfloat16)
    experts = [(base + 0.02 * torch.randn(5000, generator=generator)).to(torch.bfloat16) for _ in range(3)]
    for expert in experts:
        expert[1000:2500] = base[1000:2500]
        expert[3000:4000] = base[3000:4000] + 1
    bits = _chunked.magnitude_bits(base, experts[0])
    if column == SPREAD:
        bits = _chunked.spread_bits(base, experts)
    trim = Trim(Stream([{"w": base}, *({"w": x} for x in experts)], ["w"], compiled), [column])
    order = torch.argsort(bits, descending=True, stable=True)
    for rank in (1, 17, 600, 1500, 2500, 3400, 4999):
        wanted = torch.zeros(5000, dtype=torch.bool)
        wanted[order[:rank]] = True
        assert torch.equal(kept(trim, bits, rank), wanted)
    assert trim.positive(["w"], 0).tolist() == [int((bits > 0).sum())]


def plain_breadcrumbs(tau: torch.Tensor, density: float, gamma: float) -> torch.Tensor:
    """Which entries the card keeps, of equal ones the first being the larger."""
    size = tau.numel()
    target, top = int(density * size), int(gamma * size)
    smallest = max(0, size - target - top)
    ascending = torch.argsort(tau.abs(), descending=True, stable=True).flip(0)
    mask = torch.zeros(size, dtype=torch.bool)
    mask[ascending[smallest : smallest + target]] = True
    return mask


@PATHS
@given(
    values=st.lists(st.sampled_from([0.0, 0.5, -0.5, 0.25, 1.0, 2.0]), min_size=1, max_size=40),
    density=st.sampled_from([0.05, 0.3, 0.5, 0.9, 0.98]),
    gamma=st.sampled_from([0.0, 0.01, 0.1, 0.2]),
)
@settings(max_examples=60, deadline=None)
def test_breadcrumbs_keep_the_ranks_of_the_card(
    compiled: bool, values: list[float], density: float, gamma: float
) -> None:
    """gamma of 0 empties no tensor; gamma of 1 - density or more drops large entries only; equals are told apart."""
    tau = torch.tensor(values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_stream, "_COMPILED_FROM", 0 if compiled else 1 << 62)
        knobs = {"coefficient": 1.0, "density": density, "gamma": gamma}
        got = merge("breadcrumbs", {"w": torch.zeros(len(values))}, [{"w": tau}], knobs)["w"]
        elected = merge("breadcrumbs_ties", {"w": torch.zeros(len(values))}, [{"w": tau}], knobs)["w"]
    wanted = torch.where(plain_breadcrumbs(tau, density, gamma), tau, torch.zeros(()))
    assert torch.equal(got, wanted)
    assert torch.equal(elected, wanted)  # of one expert every sign wins


def test_breadcrumbs_drop_the_largest_only_where_gamma_leaves_no_small_ones() -> None:
    """Of ten entries at density 0.9 and gamma 0.2, the one largest goes and no small one does."""
    tau = torch.arange(1.0, 11.0)
    got = merge("breadcrumbs", {"w": torch.zeros(10)}, [{"w": tau}], {"coefficient": 1.0, "density": 0.9, "gamma": 0.2})
    assert got["w"].tolist() == [*range(1, 10), 0]


@pytest.mark.parametrize("kind", ["breadcrumbs", "breadcrumbs_ties"])
def test_breadcrumbs_add_what_is_kept(kind: str) -> None:
    """The sum (or the sum of the agreeing), and with `normalize` divided by the coefficients, as in plain torch."""
    base, experts = models(3, 300)
    weights = [0.5, 0.2, 0.8]
    deltas = []
    for expert, weight in zip(experts, weights, strict=True):
        tau = expert["w"] - base["w"]
        deltas.append(weight * tau * plain_breadcrumbs(tau, 0.6, 0.1))
    stacked, w = torch.stack(deltas), torch.tensor(weights)[:, None]
    agree = torch.ones_like(stacked, dtype=torch.bool)
    if kind == "breadcrumbs_ties":
        agree = stacked.sign() == torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
    total, divisor = (stacked * agree).sum(0), (w * agree).sum(0)
    knobs = {"coefficient": weights, "density": 0.6, "gamma": 0.1, "scale": 0.7}
    torch.testing.assert_close(merge(kind, base, experts, knobs)["w"], base["w"] + 0.7 * total)
    divided = total / torch.where(divisor == 0, 1.0, divisor)
    torch.testing.assert_close(merge(kind, base, experts, knobs, normalize=True)["w"], base["w"] + 0.7 * divided)


def plain_sce(taus: torch.Tensor, density: float, weights: torch.Tensor, power: float, weights_only: bool):
    """The card in float64, τ (K, N)."""
    taus = taus.double()
    variance = taus.var(dim=0, unbiased=False)
    mask = torch.ones_like(variance, dtype=torch.bool)
    if density < 1:
        mask = torch.zeros_like(mask)
        mask[torch.argsort(variance, descending=True, stable=True)[: int(density * int((variance > 0).sum()))]] = True
    energy = (taus * mask).pow(2).sum(dim=1)
    share = torch.full_like(energy, 1 / len(taus)) if energy.sum() == 0 else energy / energy.sum()
    c = (weights * share**power)[:, None]
    kept_changes = taus if weights_only else taus * mask
    agree = kept_changes.sign() == torch.where(kept_changes.sum(0) >= 0, 1.0, -1.0)
    divisor = (c * agree).sum(0)
    return (c * agree * kept_changes).sum(0) / torch.where(divisor == 0, 1.0, divisor)


@PATHS
@pytest.mark.parametrize("weights_only", [False, True])
@pytest.mark.parametrize(("density", "power"), [(0.05, 1.0), (0.4, 2.0), (1.0, 0.0), (0.7, 0.5)])
def test_sce_is_the_formula(
    compiled: bool, weights_only: bool, density: float, power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Select, calculate, erase as on the card, with coefficients and a power, at changes of any size."""
    monkeypatch.setattr(_stream, "_COMPILED_FROM", 0 if compiled else 1 << 62)
    base, experts = models(3, 1500)
    base["w"].zero_()
    weights = torch.tensor([0.5, 1.0, 1.5])
    applies = "weights_only" if weights_only else "deltas_and_weights"
    for size in (1.0, 1e-4):  # the latter is below the reference's absolute floors
        scaled = [{"w": expert["w"] * size * (k + 1)} for k, expert in enumerate(experts)]
        knobs = {"density": density, "power": power, "coefficient": weights.tolist()}
        got = merge("sce", base, scaled, knobs, mask_applies_to=applies)["w"]
        wanted = plain_sce(torch.stack([x["w"] for x in scaled]), density, weights.double(), power, weights_only)
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-6 * size)


def test_sce_takes_equal_coefficients_below_the_reference_floor_only_when_asked() -> None:
    """At changes of 1e-4 the reference averages plainly; ours weighs by energy as at any other size."""
    base = {"w": torch.zeros(4)}
    experts = [{"w": torch.tensor([1e-4, 1e-4, 2e-4, 1e-4])}, {"w": torch.tensor([3e-4, 3e-4, 3e-4, 2e-4])}]
    floors = merge("sce", base, experts, 1.0, reference_floors=True)["w"]
    torch.testing.assert_close(floors, torch.tensor([2e-4, 2e-4, 2.5e-4, 1.5e-4]))
    assert (merge("sce", base, experts, 1.0)["w"] > floors).all()


def test_sce_keeps_the_base_where_nothing_differs() -> None:
    """Experts that agree have no variance: below density 1 nothing is selected, and of one expert all of it at 1."""
    base, (expert,) = models(1, 50)
    assert torch.equal(merge("sce", base, [expert, expert], 0.5)["w"], base["w"])
    torch.testing.assert_close(merge("sce", base, [expert], 1.0)["w"], expert["w"])


@pytest.mark.parametrize("kind", ["ties", "breadcrumbs", "breadcrumbs_ties", "sce"])
@given(order=st.permutations(range(3)), seed=st.integers(0, 100))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_experts_does_not_matter(kind: str, order: list[int], seed: int) -> None:
    """Experts permuted with their coefficients give the same model up to rounding, where no sum is at 0."""
    base, experts = models(3, 200, seed)
    weights = [0.4, 0.9, 0.7]
    knobs = {"density": 0.5, "scale": 0.9}
    one = merge(kind, base, experts, knobs | {"coefficient": weights})["w"]
    other = merge(kind, base, [experts[k] for k in order], knobs | {"coefficient": [weights[k] for k in order]})["w"]
    differs = (one - other).abs() > 1e-5
    assert differs.sum() <= 1  # a near-tie of the variances may be decided otherwise


@pytest.mark.parametrize("kind", ["ties", "breadcrumbs", "breadcrumbs_ties", "sce"])
def test_zero_coefficients_give_the_base_and_densities_keep_to_their_group(kind: str) -> None:
    """No change without weight; another group's density leaves a tensor's bits alone, and its own does not."""
    operator = make_operator(kind, {})
    generator = torch.Generator().manual_seed(0)
    base = {n: torch.randn(90, generator=generator) for n in "ab"}
    experts = [{n: t + torch.randn(90, generator=generator) for n, t in base.items()} for _ in range(2)]
    prepared = operator.prepare(base, experts, Layout(("x", "y"), ("g", "h"), {"a": 0, "b": 1}))

    def build(coefficient: float, densities: list[float]) -> dict[str, torch.Tensor]:
        tables = {knob.name: np.full((2, 2), knob.start(2)) for knob in operator.KNOBS}
        tables |= {"coefficient": np.full((2, 2), coefficient), "density": np.array(densities)[:, None].repeat(2, 1)}
        into = {name: torch.empty(90) for name in "ab"}
        prepared.apply(tables, ["a", "b"], into)
        return into

    assert all(torch.equal(t, base[name]) for name, t in build(0.0, [0.5, 0.5]).items())
    first, second = build(0.5, [0.5, 0.5]), build(0.5, [0.5, 0.2])
    assert torch.equal(first["a"], second["a"])
    assert not torch.equal(first["b"], second["b"])


def test_negative_coefficients_are_refused_where_their_sum_divides() -> None:
    """One sentence says which operator and what is allowed."""
    base, experts = models(2, 5)
    with pytest.raises(EvaluationError, match="sce: coefficients must be at least 0"):
        merge("sce", base, experts, {"coefficient": -1.0})
    with pytest.raises(EvaluationError, match="breadcrumbs_ties: with normalize"):
        merge("breadcrumbs_ties", base, experts, {"coefficient": -1.0}, normalize=True)


@PATHS
def test_global_ties_count_the_majority_of_signs_for_balances_of_zero(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kept changes cancel, the side that most entries of the model elect is taken."""
    monkeypatch.setattr(_stream, "_COMPILED_FROM", 0 if compiled else 1 << 62)
    for sign in (1.0, -1.0):
        experts = [{"w": torch.tensor([1.0, sign, sign])}, {"w": torch.tensor([-1.0, sign, sign])}]
        got = merge("ties", {"w": torch.zeros(3)}, experts, {"density": 1.0}, scope="global")["w"]
        assert got.tolist() == [sign, sign, sign]


@pytest.mark.parametrize("count", [1, 2, 4, 5, 8, 9, 11])
@pytest.mark.parametrize("kind", ["ties", "sce", "breadcrumbs_ties", "dare_ties", "della", "ram", "task_arithmetic"])
def test_any_number_of_experts_gives_the_same_bits_on_both_paths(
    kind: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled loops read four or eight experts at a time; how many there are shows in no result."""
    base, experts = models(count, 1300, seed=count)
    settings_given = {"coefficient": np.linspace(0.1, 1.3, count).tolist()}
    if kind in ("ties", "dare_ties", "breadcrumbs_ties"):
        settings_given["density"] = np.linspace(0.3, 0.9, count).tolist()
    results = []
    for limit in (1 << 62, 0):
        monkeypatch.setattr(_stream, "_COMPILED_FROM", limit)
        results.append(merge(kind, base, experts, settings_given)["w"])
    assert torch.equal(results[0].view(torch.int32), results[1].view(torch.int32))
