"""What the operators on LoRA adapters promise beyond their contract."""

import numpy as np
import pytest
import torch
from contracts.adapter_operator import RANKS, SHAPES, make_adapters, make_operator, run
from contracts.operator import make_settings, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.checkpoints.adapter import LowRank
from mergesearch.errors import EvaluationError, MergesearchError, SpecError
from mergesearch.merging import merge
from mergesearch.operators.algebra.lora import product
from mergesearch.operators.base import Compressed
from mergesearch.operators.do_merge import separate

KINDS = ("do_merge", "knots", "lora_lego", "lora_soups", "rmm")
FULL = {"knots": {"density": 1.0}}
"""Knobs at which one adapter alone comes back."""
NAME, SHAPE = "m.layers.0.w", (12, 9)


def adapter(seed: int, rank: int = 3, scale: float = 2.0) -> dict[str, LowRank]:
    """A random adapter of one matrix."""
    generator = torch.Generator().manual_seed(seed)
    up, down = torch.randn(SHAPE[0], rank, generator=generator), torch.randn(rank, SHAPE[1], generator=generator)
    return {NAME: LowRank(up, down, scale)}


def change(kind: str, adapters: list[dict[str, LowRank]], coefficients: object, **options: object) -> torch.Tensor:
    """What a merge adds to a base of zeros in float64."""
    base = {NAME: torch.zeros(SHAPE, dtype=torch.float64)}
    return merge(kind, base, adapters, coefficients, **options)[NAME]


def dense(adapters: list[dict[str, LowRank]]) -> list[torch.Tensor]:
    """The adapters' task vectors in float64."""
    return [a[NAME].up.double() @ a[NAME].down.double() * a[NAME].scale for a in adapters]


@given(
    rows=st.integers(1, 40), rank=st.integers(1, 200), columns=st.integers(1, 40), power=st.integers(-60, 60),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_product_does_not_depend_on_how_it_is_cut(rows: int, rank: int, columns: int, power: int, seed: int) -> None:
    """Row by row, backwards along the inner dimension, or whole: the same bits, near the float64 product."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, rank, generator=generator, dtype=torch.float64) * 2.0**power
    right = (
        torch.randn(rank, columns, generator=generator, dtype=torch.float64) * torch.logspace(-3, 3, columns).double()
    )
    for exact, digits in ((False, 1e-5), (True, 1e-11)):
        whole = product(left, right, exact)
        parts = torch.cat([product(left[i : i + 1], right, exact) for i in range(rows)])
        assert torch.equal(parts, whole)
        assert torch.equal(product(left.flip(1), right.flip(0), exact), whole)
        bound = left.abs().amax(1, keepdim=True) * right.abs().amax(0, keepdim=True) * rank
        assert ((whole - left @ right).abs() <= digits * bound).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_one_adapter_with_coefficient_1_is_that_adapter(kind: str, dtype: torch.dtype) -> None:
    """Base plus its product, rounded once; None of the operators does anything to an adapter by itself."""
    base, adapters, _ = make_adapters(dtype)
    knobs = {"coefficient": 1.0, "scale": 1.0} | FULL.get(kind, {})
    merged = merge(kind, base, [adapters[0]], knobs, groups="tensor")
    for name, tensor in merged.items():
        wanted = (base[name].double() + adapters[0][name].dense().double()).to(dtype)
        if dtype == torch.bfloat16:
            assert (tensor == wanted).float().mean() > 0.99
        torch.testing.assert_close(tensor, wanted, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["do_merge", "knots", "lora_lego", "lora_soups"])
def test_coefficients_of_zero_give_the_base(kind: str) -> None:
    """To the bit; an adapter whose coefficient is 0 is as one that is not there."""
    base, adapters, _ = make_adapters(torch.bfloat16)
    assert same_bits(merge(kind, base, adapters, 0.0), base)
    if kind in ("lora_lego", "lora_soups"):  # the others have it in their K, or in the common basis
        one = merge(kind, base, adapters, [0.7, 0.0, 0.9])
        two = merge(kind, base, [adapters[0], adapters[2]], [0.7, 0.9])
        assert same_bits(one, two)


@given(weights=st.lists(st.floats(0.0, 1.5), min_size=3, max_size=3), scale=st.floats(0.0, 2.0))
@settings(max_examples=25, deadline=None)
def test_soups_are_task_arithmetic_without_the_models(weights: list[float], scale: float) -> None:
    """cat equals task arithmetic on the merged models; what no adapter names is the base's own."""
    base, adapters, _ = make_adapters(torch.float64)
    experts = [
        {n: t + (a[n].dense() if n in a else 0) for n, t in base.items()} for a in adapters
    ]  # fmt: skip
    knobs = {"coefficient": weights, "scale": scale}
    got = merge("lora_soups", base | {"norm": torch.ones(3)}, adapters, knobs)
    wanted = merge("task_arithmetic", base, experts, knobs)
    for name in SHAPES:
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-9, atol=1e-10)
    assert torch.equal(got["norm"], torch.ones(3))


def test_the_other_combinations() -> None:
    """linear multiplies summed factors, with the sign of a weight on one of them; svd at full rank is cat."""
    adapters = [adapter(0), adapter(1, scale=0.5)]
    a, b = (x[NAME] for x in adapters)
    for weights in ([0.4, 0.9], [0.4, -0.9]):
        up = a.up * (0.4 * 2.0) ** 0.5 + b.up * (0.9 * 0.5) ** 0.5
        down = a.down * (0.4 * 2.0) ** 0.5 + np.sign(weights[1]) * b.down * (0.9 * 0.5) ** 0.5
        got = change("lora_soups", adapters, weights, combination="linear")
        torch.testing.assert_close(got, (up @ down).double(), rtol=1e-5, atol=1e-5)
    cat = change("lora_soups", adapters, [0.4, 0.9])
    full = change("lora_soups", adapters, [0.4, 0.9], combination="svd", svd_rank=6)
    torch.testing.assert_close(full, cat, rtol=1e-9, atol=1e-9)
    cut = change("lora_soups", adapters, [0.4, 0.9], combination="svd")
    u, s, v = torch.linalg.svd(cat)
    torch.testing.assert_close(cut, (u[:, :3] * s[:3]) @ v[:3], rtol=1e-9, atol=1e-9)
    with pytest.raises(SpecError, match=r"'m.layers.0.w' has ranks \[2, 3\]; use 'cat' or 'svd'"):
        change("lora_soups", [adapter(0), adapter(1, rank=2)], 0.5, combination="linear")


@pytest.mark.parametrize("options", [{}, {"merge_func": "sum"}, {"merge_func": "max"}, {"combine": "mean"}])
def test_knots_makes_the_same_of_adapters_and_of_their_models(options: dict[str, str]) -> None:
    """The two ways to prepare agree; entries at a threshold may fall on either side of it."""
    base, adapters, _ = make_adapters(torch.float64)
    adapters = [{n: LowRank(c.up.double(), c.down.double(), c.scale) for n, c in a.items()} for a in adapters]
    experts = [{n: t + (a[n].dense() if n in a else 0) for n, t in base.items()} for a in adapters]
    knobs = {"coefficient": [0.5, 1.0, 0.8], "density": [0.3, 0.6, 1.0], "scale": 0.9}
    got, wanted = merge("knots", base, adapters, knobs, **options), merge("knots", base, experts, knobs, **options)
    for name in SHAPES:
        assert ((got[name] - wanted[name]).abs() > 1e-6).double().mean() < 0.05


def test_knots_with_plain_averaging_is_task_arithmetic() -> None:
    """combine mean at density 1 is the weighted sum divided by K, also for weights below 0."""
    adapters = [adapter(0), adapter(1)]
    got = change("knots", adapters, {"coefficient": [0.4, -0.9], "density": 1.0}, combine="mean")
    one, two = dense(adapters)
    torch.testing.assert_close(got, (0.4 * one - 0.9 * two) / 2, rtol=1e-4, atol=1e-5)
    with pytest.raises(EvaluationError, match="coefficients must be at least 0 with 'combine: ties'"):
        change("knots", adapters, [0.4, -0.9])


def test_knots_leaves_what_is_no_matrix_and_has_one_threshold_for_all() -> None:
    """Vectors and excluded tensors keep the base; an expert's small matrix is trimmed away beside a large one."""
    generator = torch.Generator().manual_seed(0)
    base = {
        "big": torch.zeros(8, 8),
        "small": torch.zeros(8, 8),
        "norm": torch.zeros(8),
        "lm_head.w": torch.zeros(8, 8),
    }
    expert = {n: torch.randn(t.shape, generator=generator) * (0.01 if n == "small" else 1.0) for n, t in base.items()}
    merged = merge("knots", base, [expert], {"coefficient": 1.0, "density": 0.3})
    assert all((merged[name] == 0).all() for name in ("small", "norm", "lm_head.w"))
    assert (merged["big"] != 0).any()


def test_knots_elects_a_sign_in_the_common_basis() -> None:
    """Two opposite adapters cancel to nothing; two equal ones are one of them, at any weights."""
    one = adapter(0)
    minus = {NAME: LowRank(-one[NAME].up, one[NAME].down, one[NAME].scale)}
    assert (change("knots", [one, minus], {"coefficient": 1.0, "density": 1.0}) == 0).all()
    both = change("knots", [one, one], {"coefficient": [0.3, 1.2], "density": 1.0})
    torch.testing.assert_close(both, dense([one])[0], rtol=1e-5, atol=1e-5)


def test_do_merge_is_its_formula() -> None:
    """λ / K² · (Σ μ m) ⊙ (Σ w D) with columns of zeros left at 0."""
    adapters = [adapter(0), adapter(1, rank=2)]
    adapters[0][NAME].down[:, 2] = 0
    adapters[1][NAME].down[:, 2:4] = 0
    parts = [(d.norm(dim=0), d / d.norm(dim=0).clamp(min=1e-30)) for d in dense(adapters)]
    (m1, d1), (m2, d2) = parts
    knobs = {"coefficient": [0.4, 1.1], "magnitude_coefficient": [1.2, 0.3], "scale": 1.5}
    got = change("do_merge", adapters, knobs)
    torch.testing.assert_close(got, 1.5 / 4 * (1.2 * m1 + 0.3 * m2) * (0.4 * d1 + 1.1 * d2), rtol=1e-9, atol=1e-9)
    assert (got[:, 2] == 0).all()


@given(seed=st.integers(0, 30), gamma=st.sampled_from([0.0, 0.1, 1.0, 10.0]))
@settings(max_examples=20, deadline=None)
def test_orthogonal_steps_lower_the_overlap(seed: int, gamma: float) -> None:
    """Every further step lowers Σ ‖F_i F_jᵀ‖²; a heavier penalty moves less; one adapter stays where it is."""
    generator = torch.Generator().manual_seed(seed)
    factors = [torch.randn(r, 9, generator=generator, dtype=torch.float64) for r in (2, 3, 2)]

    def overlap(parts: list[torch.Tensor]) -> float:
        return sum(float((parts[i] @ parts[j].t()).square().sum()) for i in range(3) for j in range(i))

    sums = [overlap(separate(factors, steps, gamma)) for steps in (0, 1, 5, 20)]
    assert sums == sorted(sums, reverse=True)
    assert sums[-1] < sums[0]
    moved = [
        sum(float((a - b).square().sum()) for a, b in zip(separate(factors, 20, g), factors, strict=True))
        for g in (gamma, gamma + 1)
    ]
    assert moved[0] > moved[1]
    assert torch.equal(separate(factors[:1], 5, gamma)[0], factors[0]) or gamma == 0


def test_do_merge_takes_the_orthogonal_steps() -> None:
    """The option reaches the merge; a single adapter is not moved."""
    adapters = [adapter(0), adapter(1)]
    plain, moved = (change("do_merge", adapters, 1.0, steps=steps) for steps in (0, 10))
    assert (plain - moved).abs().max() > 1e-3
    torch.testing.assert_close(change("do_merge", [adapters[0]], 1.0, steps=10), dense(adapters)[0])


def test_lego_of_equal_adapters_is_that_adapter() -> None:
    """Units that coincide are one cluster; how an adapter shares its norm between A and B does not matter."""
    one = adapter(0)
    factors = one[NAME]
    again = {NAME: LowRank(factors.up * 8, factors.down / 4, 1.0)}
    for clusters in (0.0, 3.0, 100.0):
        got = change("lora_lego", [one, again, one], {"coefficient": [0.2, 1.0, 0.7], "clusters": clusters})
        torch.testing.assert_close(got, dense([one])[0], rtol=1e-6, atol=1e-6)


def test_lego_with_a_cluster_for_each_unit_is_the_sum() -> None:
    """At k = Σ r nothing is averaged: √(r / k) times the sum. Fewer clusters give a merge of at most that rank."""
    adapters = [adapter(0), adapter(1)]
    got = change("lora_lego", adapters, {"coefficient": 1.0, "clusters": 6.0})
    torch.testing.assert_close(got, sum(dense(adapters)) * 0.5**0.5, rtol=1e-6, atol=1e-6)
    for clusters in (1.0, 2.0, 4.0):
        got = change("lora_lego", adapters, {"coefficient": 1.0, "clusters": clusters})
        assert torch.linalg.matrix_rank(got, rtol=1e-6) <= clusters


def test_lego_stretches_centres_to_the_norm_of_their_members() -> None:
    """The centre of two units at a right angle is as long as they are, so averaging loses no norm."""
    up = torch.tensor([[1.0], [0.0]])
    one = {"w": LowRank(up, torch.tensor([[1.0, 0.0]]), 1.0)}
    two = {"w": LowRank(up.flip(0), torch.tensor([[0.0, 1.0]]), 1.0)}
    got = merge("lora_lego", {"w": torch.zeros(2, 2)}, [one, two], {"coefficient": 1.0, "clusters": 1.0})["w"]
    torch.testing.assert_close(got, torch.full((2, 2), 0.5))  # a unit [1/√2, 1/√2, 1/√2, 1/√2] of norm √2
    minus = {"w": LowRank(-up, torch.tensor([[-1.0, 0.0]]), 1.0)}
    assert (merge("lora_lego", {"w": torch.zeros(2, 2)}, [one, minus], {"clusters": 1.0})["w"] == 0).all()


def test_lego_draws_from_its_seed_alone() -> None:
    """The same seed gives the same bits whatever the global random state; coefficients below 0 are refused."""
    adapters = [adapter(k, rank=8) for k in range(3)]
    knobs = {"coefficient": [0.5, 1.0, 0.8], "clusters": 5.0}
    found = []
    for seed in (0, 1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global state must not matter
        found.append(change("lora_lego", adapters, knobs, seed=3, restarts=1))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    others = [change("lora_lego", adapters, knobs, seed=seed, restarts=1) for seed in range(8)]
    assert any(not torch.equal(found[0], other) for other in others)
    with pytest.raises(EvaluationError, match="coefficients must be at least 0"):
        change("lora_lego", adapters, -0.5)


def test_rmm_gives_every_adapter_back() -> None:
    """Exactly with p = K (and K - 1) components, ever better with more; a one-hot candidate is the rebuilt expert."""
    operator = make_operator("rmm")
    base, adapters, layout = make_adapters(torch.float64)
    prepared = operator.prepare_adapters(base, adapters, layout)
    assert isinstance(prepared, Compressed)
    tables = make_settings(operator, layout, -1)
    errors = []
    for p in (1.0, 2.0, 3.0):
        tables["basis"] = np.full((3, 3), p)
        error = 0.0
        for k in range(3):
            into = {n: torch.empty(s, dtype=torch.float64) for n, s in SHAPES.items()}
            prepared.rebuild(tables, k, list(SHAPES), into)
            tables["coefficient"] = np.tile(np.eye(3)[k], (3, 1))
            assert same_bits(run(prepared, tables, list(SHAPES), torch.float64), into)
            for name in SHAPES:
                wanted = base[name] + (adapters[k][name].dense() if name in adapters[k] else 0)
                error += float((into[name] - wanted).square().sum())
        errors.append(error)
    assert errors[0] > 1e-3
    assert errors[1] < 1e-15
    assert errors[2] < 1e-15


def test_rmm_stores_what_the_card_counts() -> None:
    """p(r + K) + r numbers for each column of A and row of B, against r K for all adapters."""
    operator = make_operator("rmm")
    base, adapters, layout = make_adapters(torch.float32)
    prepared = operator.prepare_adapters(base, adapters, layout)
    assert isinstance(prepared, Compressed)
    tables = make_settings(operator, layout, -1)
    tables["basis"] = np.tile([[1.0], [2.0], [3.0]], (1, 3))
    p = {"a.w": 1, "a.v": 2, "b.w": 3, "b.v": 3}
    wanted = 0
    for name, shape in SHAPES.items():
        r = max(RANKS[name])
        wanted += sum(shape) * (p[name] * (r + 3) + r) * 4
    assert prepared.stored_bytes(tables) == wanted


def test_rmm_at_equal_weights_is_the_mean_of_the_factors() -> None:
    """Where a search starts: μ_B μ_A, whatever the basis."""
    adapters = [adapter(0), adapter(1)]
    up = sum(a[NAME].up * a[NAME].scale for a in adapters) / 2
    down = sum(a[NAME].down for a in adapters) / 2
    for basis in (1.0, 2.0):
        got = change("rmm", adapters, {"coefficient": 0.5, "basis": basis})
        torch.testing.assert_close(got, (up @ down).double(), rtol=1e-5, atol=1e-5)


def test_experts_of_another_kind_are_refused() -> None:
    """Each sentence names the operator and the expert, and says what to do."""
    base = {NAME: torch.zeros(SHAPE)}
    models = {"m": {NAME: torch.ones(SHAPE)}}
    for kind, experts, sentence in (
        ("ties", {"a": adapter(0)}, "'ties' merges whole models, but expert 'a' is a LoRA adapter: use .*'lora_soups'"),
        ("lora_soups", models, "'lora_soups' merges LoRA adapters, but expert 'm' is a whole model: use .*'task_arith"),
        (
            "knots",
            models | {"a": adapter(0)},
            "'knots' merges either .* expert 'a' is an adapter and 'm' a whole model",
        ),
        ("lora_soups", {"a": {"x": adapter(0)[NAME]}}, "'x' as a matrix"),
        (
            "lora_soups",
            {"a": {NAME: LowRank(torch.ones(3, 1), torch.ones(1, 9), 1.0)}},
            r"\(3, 9\), the base has it as",
        ),
    ):
        with pytest.raises(MergesearchError, match=sentence):
            merge(kind, base, experts, 0.5)


def test_groups_and_heads_among_adapted_tensors() -> None:
    """Only adapted tensors are in groups, called as in the whole model; a head stays the base's."""
    base = {f"m.layers.{i}.{part}": torch.zeros(SHAPE) for i in range(3) for part in ("w", "v")}
    base |= {"m.emb": torch.zeros(4, 4), "head.w": torch.zeros(SHAPE)}
    change_of = adapter(0)[NAME]
    one = {"m.layers.2.w": change_of, "head.w": change_of}
    got = merge("lora_soups", base, {"a": one}, {"L2": 0.5}, groups="block", heads=["head.*"])
    torch.testing.assert_close(got["m.layers.2.w"], 0.5 * change_of.dense())
    assert all((tensor == 0).all() for name, tensor in got.items() if name != "m.layers.2.w")
    with pytest.raises(SpecError, match="no expert or group 'L0'"):
        merge("lora_soups", base, {"a": one}, {"L0": 0.5}, groups="block", heads=["head.*"])
