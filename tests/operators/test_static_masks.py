"""What the operators promise whose masks no coefficient moves, and those that act entry by entry."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mergesearch.errors import EvaluationError, SpecError
from mergesearch.merging import make_operator, merge
from mergesearch.operators.base import Layout, Prepared
from mergesearch.operators.passes import chunked as _chunked
from mergesearch.operators.passes import stream as _stream
from mergesearch.operators.passes.ranks import Ranked

SEVERAL = ("magmax", "ram", "ram_plus", "localize_and_stitch", "pcb")
SHAPES = {"a.weight": (7, 6), "b.bias": (9,), "lm_head.weight": (5, 4)}
SEEDS = st.integers(0, 10_000)


def models(seed: int, count: int, change: float = 0.05) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A random base and experts that differ from it in about half of the entries, in float32."""
    rng = torch.Generator().manual_seed(seed)
    base = {n: 0.1 * torch.randn(s, generator=rng) for n, s in SHAPES.items()}
    experts = []
    for _ in range(count):
        moved = {n: torch.rand(s, generator=rng) < 0.5 for n, s in SHAPES.items()}
        experts.append({n: t + change * torch.randn(t.shape, generator=rng) * moved[n] for n, t in base.items()})
    return base, experts


def flat(model: dict[str, torch.Tensor]) -> torch.Tensor:
    """All entries in the order of names, float64."""
    return torch.cat([model[name].double().flatten() for name in SHAPES])


def taus(base: dict[str, torch.Tensor], experts: Sequence[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Task vectors (K, d), float64 of the float32 differences."""
    return torch.stack([torch.cat([(e[n] - base[n]).flatten() for n in SHAPES]) for e in experts]).double()


def prepared_by_group(kind: str, base: Any, experts: Any, **options: object) -> Prepared:
    """The operator with each tensor a group of its own."""
    layout = Layout(tuple(map(str, range(len(experts)))), tuple(SHAPES), {n: i for i, n in enumerate(SHAPES)})
    return make_operator(kind, options).prepare(base, experts, layout)


def tables(kind: str, experts: int, **values: object) -> dict[str, Any]:
    """Settings of three groups: every knob at its start, except those given (anything that broadcasts)."""
    found = {}
    for knob in make_operator(kind, {}).KNOBS:
        found[knob.name] = np.broadcast_to(values.get(knob.name, knob.start(experts)), (3, experts)).astype(float)
    return found


def build(prepared: Prepared, settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A candidate in fresh memory."""
    into = {n: torch.full(s, float("nan")) for n, s in SHAPES.items()}
    prepared.apply(settings, list(SHAPES), into)
    return into


@pytest.mark.parametrize("kind", SEVERAL)
@given(seed=SEEDS, count=st.integers(1, 10))
@settings(max_examples=10, deadline=None)
def test_zero_coefficients_give_the_base(kind: str, seed: int, count: int) -> None:
    """To the bit, for one expert or more than a plane of bits holds."""
    base, experts = models(seed, count)
    merged = merge(kind, base, experts, {"coefficient": 0.0, "scale": 1.0})
    assert all(torch.equal(merged[name], base[name]) for name in base)


@pytest.mark.parametrize("kind", SEVERAL)
@given(seed=SEEDS, order=st.permutations(range(4)))
@settings(max_examples=15, deadline=None)
def test_the_order_of_experts_does_not_matter(kind: str, seed: int, order: list[int]) -> None:
    """With their settings they may stand in any order, up to the rounding of sums."""
    base, experts = models(seed, 4)
    weights = [0.8, 0.9, 1.1, 1.3]
    there = merge(kind, base, experts, {"coefficient": weights})
    back = merge(kind, base, [experts[i] for i in order], {"coefficient": [weights[i] for i in order]})
    torch.testing.assert_close(back, there, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["magmax", "ram", "ram_plus", "near_swap"])
@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_one_expert_alone_is_given_back(kind: str, seed: int) -> None:
    """At coefficient and scale 1, with nothing left out, the merge of one expert is that expert."""
    base, experts = models(seed, 1)
    values = {"t": 10.0} if kind == "near_swap" else {"coefficient": 1.0}
    merged = merge(kind, base, experts, {"scale": 1.0, **values})
    torch.testing.assert_close(merged, experts[0], rtol=0, atol=1e-4 if kind.startswith("ram") else 1e-7)


@given(seed=SEEDS, count=st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_magmax_takes_the_largest_weighted_change(seed: int, count: int) -> None:
    """θ0 + scale · w τ of the largest |w τ|, as evaluated directly."""
    base, experts = models(seed, count)
    weights = np.linspace(0.3, 1.5, count)
    weighted = taus(base, experts) * torch.tensor(weights)[:, None]
    wanted = flat(base) + 0.7 * weighted.gather(0, weighted.abs().argmax(dim=0)[None])[0]
    got = merge("magmax", base, experts, {"coefficient": list(weights), "scale": 0.7})
    torch.testing.assert_close(flat(got), wanted, rtol=1e-5, atol=1e-6)


def test_magmax_lets_the_later_of_equal_changes_win() -> None:
    """Opposite changes of one size: that of the last expert is taken; one of weight 0 never is."""
    base, up, down = {"w": torch.zeros(2)}, {"w": torch.tensor([0.5, 0.0])}, {"w": torch.tensor([-0.5, 0.25])}
    assert merge("magmax", base, [up, down], 1.0)["w"].tolist() == [-0.5, 0.25]
    assert merge("magmax", base, [down, up], 1.0)["w"].tolist() == [0.5, 0.25]
    only_up = merge("magmax", base, [up, down], {"coefficient": [1.0, 0.0], "scale": 1.0})
    assert only_up["w"].tolist() == [0.5, 0.0]


@given(seed=SEEDS, t=st.floats(1e-5, 0.1))
@settings(max_examples=20, deadline=None)
def test_near_swap_is_the_published_interpolation(seed: int, t: float) -> None:
    """q b + (1 - q) a with q = clamp(t / max(|a - b|, 1e-6), 0, 1)."""
    base, experts = models(seed, 1)
    a, tau = flat(base), taus(base, experts)[0]
    q = (t / tau.abs().clamp(min=1e-6)).clamp(0, 1)
    got = flat(merge("near_swap", base, experts, t))
    torch.testing.assert_close(got, q * (a + tau) + (1 - q) * a, rtol=0, atol=1e-7)


def test_near_swap_and_arcee_fusion_refuse_what_they_cannot_build() -> None:
    """A distance below 0, and a second expert."""
    base, experts = models(0, 2)
    with pytest.raises(EvaluationError, match="at least 0, got -1"):
        merge("near_swap", base, experts[:1], -1.0)
    for kind in ("near_swap", "arcee_fusion"):
        with pytest.raises(SpecError, match="exactly 1 expert"):
            merge(kind, base, experts, 0.5)
        with pytest.raises(SpecError, match="takes 1 expert"):
            prepared_by_group(kind, base, experts)


def ram_by_hand(
    base: Any, experts: Any, weights: Any, epsilon: float, shared: float, r: float, alpha: float
) -> torch.Tensor:
    """RAM+ with ρ over the whole model, float64 (d,)."""
    tau, w = taus(base, experts), torch.tensor(weights)[:, None]
    active = tau.abs() > epsilon
    count = active.sum(dim=0)
    overlap, unique = (active & (count > 1)).sum(dim=1), (active & (count == 1)).sum(dim=1)
    ratio = [s / u if u else (alpha if s else 0.0) for s, u in zip(overlap.tolist(), unique.tolist(), strict=True)]
    enlarge = 1 + r * torch.tensor(ratio).double().clamp(0, alpha)[:, None]
    alone = (w * enlarge * tau * active).sum(dim=0)
    mean = shared * (w * tau * active).sum(dim=0) / count.clamp(min=1)
    return flat(base) + torch.where(count == 1, alone, mean)


@given(seed=SEEDS, count=st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_ram_keeps_lone_changes_and_averages_shared_ones(seed: int, count: int) -> None:
    """As evaluated directly, with and without the enlargement."""
    base, experts = models(seed, count)
    weights = np.linspace(0.3, 1.5, count).tolist()
    knobs = {"coefficient": weights, "epsilon": 1e-3, "shared": 0.8}
    wanted = ram_by_hand(base, experts, weights, 1e-3, 0.8, 0.0, 0.0)
    torch.testing.assert_close(flat(merge("ram", base, experts, knobs)), wanted, rtol=1e-5, atol=1e-6)
    wanted = ram_by_hand(base, experts, weights, 1e-3, 0.8, 0.4, 0.7)
    got = merge("ram_plus", base, experts, {**knobs, "r": 0.4, "alpha": 0.7}, ratio_scope="global")
    torch.testing.assert_close(flat(got), wanted, rtol=1e-5, atol=1e-6)


def test_ram_plus_counts_within_a_tensor_unless_told_otherwise() -> None:
    """ρ of a tensor where everything is shared is infinite (no division by zero), of one where nothing is, 0."""
    base = {"a": torch.zeros(2), "b": torch.zeros(3)}
    one = {"a": torch.ones(2), "b": torch.tensor([1.0, 0.0, 0.0])}
    two = {"a": torch.ones(2), "b": torch.tensor([0.0, 1.0, 0.0])}
    knobs = {"coefficient": 1.0, "r": 0.5, "alpha": 1.0}
    assert merge("ram_plus", base, [one, two], knobs)["b"].tolist() == [1.0, 1.0, 0.0]
    everywhere = merge("ram_plus", base, [one, two], knobs, ratio_scope="global")  # ρ = 2 / 1, clipped to 1
    assert everywhere["b"].tolist() == [1.5, 1.5, 0.0]
    assert everywhere["a"].tolist() == [1.0, 1.0]
    dense = merge("ram_plus", base, [{n: t + 1 for n, t in base.items()}] * 2, knobs)
    assert all((t == 1).all() for t in dense.values())


def test_ram_takes_a_change_that_rounding_swallowed_as_none() -> None:
    """In bfloat16 a stored weight either differs by more than ε or not at all: the smallest ε finds what changed."""
    base = {"w": torch.full((4,), 0.1, dtype=torch.bfloat16)}
    moved = (base["w"].float() + torch.tensor([0.0, 1e-5, -1e-5, 1e-3])).to(torch.bfloat16)
    other = base["w"] + torch.tensor([0.0, 0.0, 0.0, 0.5], dtype=torch.bfloat16)
    for epsilon in (1e-7, 1e-4):
        merged = merge("ram", base, [{"w": moved}, {"w": other}], {"epsilon": epsilon})["w"]
        assert torch.equal(merged[:3], base["w"][:3])
        assert merged[3] == ((moved[3].float() + other[3].float()) / 2).to(torch.bfloat16)


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_ram_plus_over_the_model_follows_every_group(seed: int) -> None:
    """With one count over the model, an ε of one group moves the enlargement in all; the operator says so."""
    base, experts = models(seed, 3)
    assert make_operator("ram_plus", {"ratio_scope": "global"}).WHOLE_MODEL
    assert not make_operator("ram_plus", {}).WHOLE_MODEL
    used = prepared_by_group("ram_plus", base, experts, ratio_scope="global")
    build(used, tables("ram_plus", 3))
    epsilon = np.array([[1e-5], [0.03], [1e-5]])
    wanted = prepared_by_group("ram_plus", base, experts, ratio_scope="global")
    values = tables("ram_plus", 3, epsilon=epsilon, alpha=1.0)
    some = {n: torch.empty(s) for n, s in SHAPES.items()}
    used.apply(values, ["a.weight"], some)
    assert torch.equal(some["a.weight"], build(wanted, values)["a.weight"])


@given(seed=SEEDS, densities=st.lists(st.sampled_from([0.005, 0.05, 0.2, 0.3]), min_size=1, max_size=9))
@settings(max_examples=25, deadline=None)
def test_localize_and_stitch_averages_the_largest_over_all_blocks(seed: int, densities: list[float]) -> None:
    """One strict threshold per expert over what is not excluded; overlaps averaged; excluded tensors keep the base."""
    base, experts = models(seed, len(densities))
    blocks = 42 + 9
    tau = taus(base, experts)[:, :blocks]
    masks = []
    for row, density in zip(tau.abs(), densities, strict=True):
        masks.append(row > row.sort(descending=True).values[max(1, int(density * blocks)) - 1])
        assert int(masks[-1].sum()) <= max(1, int(density * blocks)) - 1
    mask = torch.stack(masks)
    wanted = flat(base)
    wanted[:blocks] += 1.2 * (tau * mask / mask.sum(dim=0).clamp(min=1)).sum(dim=0)
    got = merge("localize_and_stitch", base, experts, {"coefficient": 1.0, "density": densities, "scale": 1.2})
    torch.testing.assert_close(flat(got), wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(got["lm_head.weight"], base["lm_head.weight"])


def test_localize_and_stitch_with_all_excluded_is_the_base() -> None:
    """No threshold is looked for where nothing is merged."""
    base, experts = models(0, 2)
    merged = merge("localize_and_stitch", base, experts, 1.0, exclude=("*",))
    assert all(torch.equal(merged[name], base[name]) for name in base)


def pcb_by_hand(tau: torch.Tensor, densities: Sequence[float], weights: Sequence[float]) -> torch.Tensor:
    """The card's formulas with full sorts, float64 (d,)."""
    n, d = tau.shape
    size = tau.abs().sort(dim=1).values
    low, high = size[:, int(d * 0.0001)], size[:, int(d * (1 - 0.0001) - 1)]
    clamped = tau.abs().clamp(low[:, None], high[:, None])
    intra = torch.exp(n * ((clamped - low[:, None]) / (high - low)[:, None]) ** 2)
    b = (intra * torch.tanh(tau * tau.sum(dim=0))).float().double()
    scores = []
    for row, density in zip(b, densities, strict=True):
        ranked = row.sort().values
        least, most = ranked[int(d * (1 - density))], ranked[-1]
        scores.append((row.clamp(least, most) - least) / (most - least))
    s = torch.stack(scores)
    return (torch.tensor(weights)[:, None] * tau.sign() * clamped * s).sum(dim=0) / s.sum(dim=0).clamp(min=1e-12)


@pytest.mark.parametrize("scope", ["global", "tensor"])
@given(seed=SEEDS, count=st.integers(1, 5), change=st.sampled_from([0.05, 1e-4]))
@settings(max_examples=15, deadline=None)
def test_pcb_is_the_published_formula(scope: str, seed: int, count: int, change: float) -> None:
    """Also for changes as small as those of an LLM, whose tanh is about 1e-8."""
    base, experts = models(seed, count, change)
    base = {n: t.double() for n, t in base.items()}
    experts = [{n: t.double() for n, t in e.items()} for e in experts]
    densities, weights = np.linspace(0.2, 0.4, count).tolist(), np.linspace(0.8, 1.3, count).tolist()
    tau = taus(base, experts)
    parts = [tau] if scope == "global" else list(tau.split([42, 9, 20], dim=1))
    wanted = torch.cat([pcb_by_hand(part, densities, weights) for part in parts])
    assume(bool(torch.isfinite(wanted).all()))  # 0 / 0 where all entries of a row are equal
    got = merge("pcb", base, experts, {"coefficient": weights, "density": densities}, scope=scope)
    torch.testing.assert_close(flat(got) - flat(base), wanted, rtol=1e-4, atol=1e-6 * change)


def test_pcb_scores_where_all_are_equal_are_defined() -> None:
    """0 / 0 in the reference: a tensor of one entry, and an expert that changed nothing."""
    base = {"one": torch.zeros(()), "many": torch.zeros(8)}
    expert = {"one": torch.tensor(0.5), "many": torch.arange(8.0)}
    merged = merge("pcb", base, [expert, base], {"coefficient": 1.0, "density": 0.4}, scope="tensor")
    assert merged["one"] == 0.5
    assert torch.isfinite(merged["many"]).all()
    assert merged["many"][7] > 0
    assert all((t == 0).all() for t in merge("pcb", base, [base, base], 1.0).values())


def arcee_by_hand(a: torch.Tensor, b: torch.Tensor, threshold: float) -> torch.Tensor:
    """The card's formulas for one tensor, the quartiles from a full sort."""
    p, q = (torch.softmax(x.double(), dim=-1) + 1e-8 for x in (b, a))
    divergence = (p * torch.log(p / q)).sum(dim=-1, keepdim=True).clamp(min=0).float()
    importance = (b - a).abs() * divergence
    ranked, last = importance.flatten().sort().values.double(), importance.numel() - 1
    first, median, third = (ranked[int(f * last)] for f in (0.25, 0.5, 0.75))
    return torch.where(importance >= (median + threshold * (third - first)).float(), b, a)


@given(seed=SEEDS, shape=st.sampled_from([(), (1,), (50,), (40, 30), (3, 4, 5), (2, 300)]), c=st.floats(0, 4))
@settings(max_examples=40, deadline=None)
def test_arcee_fusion_keeps_what_matters_for_a_row(seed: int, shape: tuple[int, ...], c: float) -> None:
    """As evaluated directly, in chunks shorter than a row or longer."""
    rng = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=rng)
    expert = base + 0.1 * torch.randn(shape, generator=rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_chunked.CHUNK, "cpu", 100)
        got = merge("arcee_fusion", {"w": base}, [{"w": expert}], c)["w"]
    torch.testing.assert_close(got, arcee_by_hand(base, expert, c), rtol=0, atol=1e-6)


def test_arcee_fusion_takes_exact_quartiles_of_a_large_tensor() -> None:
    """mergekit samples above a million entries; here the same entries are kept every time, and those of the formula."""
    rng = torch.Generator().manual_seed(1)
    base = torch.randn(3, 400_000, generator=rng)
    expert = base + 0.01 * torch.randn(base.shape, generator=rng)
    kept = [merge("arcee_fusion", {"w": base}, [{"w": expert}], 1.5)["w"] != base for _ in range(2)]
    assert torch.equal(*kept)
    assert torch.equal(kept[0], arcee_by_hand(base, expert, 1.5) != base)


@given(data=st.data(), chunk=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_ranked_values_are_those_of_a_sort(data: st.DataObject, chunk: int) -> None:
    """Of any sign and size, in any chunks, for several rows and ranks at once."""
    number = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-40, -3e38]) | st.floats(-2, 2, width=32)
    length = data.draw(st.integers(1, 40))
    rows = [torch.tensor(data.draw(st.lists(number, min_size=length, max_size=length))) for _ in range(2)]
    ranks = [data.draw(st.lists(st.integers(0, length - 1), max_size=3)) for _ in rows]
    ranked = Ranked(lambda: zip(*(torch.split(row, chunk) for row in rows), strict=True), 2)
    wanted = [[row.sort().values[rank].item() for rank in some] for row, some in zip(rows, ranks, strict=True)]
    assert ranked.values(ranks) == wanted


STRUCTURAL = {"ram": "epsilon", "ram_plus": "epsilon", "arcee_fusion": "threshold", "near_swap": "t"}


@pytest.mark.parametrize("kind", STRUCTURAL)
@given(seed=SEEDS)
@settings(max_examples=8, deadline=None)
def test_a_structural_knob_reaches_only_its_group(kind: str, seed: int) -> None:
    """Another value in one group moves its tensors alone, and going back gives the same bits."""
    count = 1 if kind in ("arcee_fusion", "near_swap") else 3
    base, experts = models(seed, count)
    prepared = prepared_by_group(kind, base, experts)
    value = {"epsilon": 0.03, "threshold": 0.0, "t": 0.1}[STRUCTURAL[kind]]
    start = tables(kind, count)
    there = tables(kind, count, **{STRUCTURAL[kind]: start[STRUCTURAL[kind]]})
    there[STRUCTURAL[kind]] = start[STRUCTURAL[kind]].copy()
    there[STRUCTURAL[kind]][0] = value
    first, moved, again = build(prepared, start), build(prepared, there), build(prepared, start)
    assert not torch.equal(moved["a.weight"], first["a.weight"])
    assert torch.equal(moved["b.bias"], first["b.bias"])
    assert all(torch.equal(first[name], again[name]) for name in SHAPES)


@pytest.mark.parametrize("kind", [*SEVERAL, "near_swap"])
@given(seed=SEEDS, count=st.integers(1, 9))
@settings(max_examples=6, deadline=None)
def test_both_paths_give_the_same_bits_for_any_number_of_experts(kind: str, seed: int, count: int) -> None:
    """Compiled or torch, whatever the chunks: also where the changes of a chunk are none."""
    base, experts = models(seed, 1 if kind == "near_swap" else count)
    found = []
    for limit, chunk in ((0, 1 << 16), (1 << 62, 1 << 16), (1 << 62, 5)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_stream, "_COMPILED_FROM", limit)
            patch.setitem(_chunked.CHUNK, "cpu", chunk)
            found.append(merge(kind, base, experts, {"scale": 0.7}))
    assert all(torch.equal(found[0][name], other[name]) for other in found[1:] for name in base)
