"""WIDEN: columns weighted by how much they changed in length and direction."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.merging import make_operator, merge, settings_of
from mergesearch.operators.base import Layout

State = dict[str, torch.Tensor]
SHAPES = {"embed_tokens.weight": (9, 4), "a.weight": (5, 7), "a.bias": (7,), "conv.weight": (3, 2, 2), "scalar": ()}


def models(count: int, seed: int = 0) -> tuple[State, list[State]]:
    """A random base in float64 and experts beside it."""
    rng = torch.Generator().manual_seed(seed)
    base = {n: torch.randn(s, generator=rng, dtype=torch.float64) for n, s in SHAPES.items()}
    return base, [
        {n: t + 0.3 * torch.randn(t.shape, generator=rng, dtype=torch.float64) for n, t in base.items()}
        for _ in range(count)
    ]


def importance(scores: torch.Tensor, ratio: float, calibration: float) -> torch.Tensor:
    """The card's rule on (K, V) scores."""
    weights = torch.softmax(scores, dim=0)
    weights[scores > ratio * scores.mean(dim=1, keepdim=True)] = calibration
    return weights


def plain(base: State, experts: list[State], name: str, ratio: float, calibration: float) -> torch.Tensor:
    """The card in a few lines of torch, for one tensor."""
    tau = torch.stack([e[name] - base[name] for e in experts])
    if base[name].ndim < 2:
        flat = tau.reshape(len(experts), -1)
        return base[name] + (importance(flat.abs(), ratio, calibration) * flat).sum(0).reshape(base[name].shape)
    turn = "embed" in name
    forms = [(m[name].t() if turn else m[name].reshape(m[name].shape[0], -1)) for m in (base, *experts)]
    lengths = torch.stack([f.norm(dim=0) for f in forms])
    scores = []
    for of in (
        (lengths[1:] - lengths[0]).abs(),
        torch.stack([1 - torch.cosine_similarity(f, forms[0], dim=0) for f in forms[1:]]),
    ):
        ranks = of.argsort(dim=1, stable=True).argsort(dim=1)
        scores.append(importance(ranks.double() / of.shape[1], ratio, calibration))
    weights = (scores[0] + scores[1]) / 2
    merged = forms[0] + sum(w * (f - forms[0]) for w, f in zip(weights, forms[1:], strict=True))
    return (merged.t() if turn else merged).reshape(base[name].shape)


# At a ratio of 0.5 a rank of 9 columns equals the threshold, and rounding of the mean decides in the plain form.
@given(seed=st.integers(0, 50), ratio=st.sampled_from([0.55, 0.8, 1.1, 1.7]), calibration=st.floats(0.2, 1.2))
@settings(max_examples=25, deadline=None)
def test_it_is_the_formula(seed: int, ratio: float, calibration: float) -> None:
    """Matrices by column, token embeddings by row, convolutions flattened, vectors and scalars by entry."""
    base, experts = models(3, seed)
    got = merge("widen", base, experts, {"ratio": ratio, "calibration": calibration})
    for name in SHAPES:
        torch.testing.assert_close(got[name], plain(base, experts, name, ratio, calibration), rtol=1e-9, atol=1e-9)


@given(coefficient=st.lists(st.floats(0.0, 1.5), min_size=3, max_size=3))
@settings(max_examples=10, deadline=None)
def test_the_order_of_experts_does_not_matter(coefficient: list[float]) -> None:
    """Permuted with their coefficients, they give the same model; coefficients of 0 give the base."""
    base, experts = models(3)
    wanted = merge("widen", base, experts, coefficient)
    for order in permutations(range(3)):
        got = merge("widen", base, [experts[i] for i in order], [coefficient[i] for i in order])
        for name in SHAPES:
            torch.testing.assert_close(got[name], wanted[name], rtol=1e-12, atol=1e-12)
    nothing = merge("widen", base, experts, 0.0)
    assert all(torch.equal(nothing[name], base[name]) for name in SHAPES)


def test_one_expert_is_kept_whole() -> None:
    """Softmax over one expert is 1, and so is the default calibration."""
    base, experts = models(1)
    got = merge("widen", base, experts, 1.0)
    for name in SHAPES:
        torch.testing.assert_close(got[name], experts[0][name], rtol=1e-12, atol=1e-12)


def test_two_important_columns_are_both_kept_whole() -> None:
    """Weights can sum to more than 1: a column that stands out in both experts gets both changes."""
    base = {"w": torch.eye(4)}
    experts = [{"w": base["w"].clone()} for _ in range(2)]
    for expert in experts:
        expert["w"][:, 2] = torch.tensor([0.0, 1.0, 3.0, 0.0])
    got = merge("widen", base, experts, 1.0)["w"]
    torch.testing.assert_close(got[:, 2], 2 * experts[0]["w"][:, 2] - base["w"][:, 2])


def test_columns_of_zeros_have_no_direction_to_lose() -> None:
    """A column that is zero before, after, or both gives no NaN and is ranked."""
    base = {"w": torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])}
    experts = [{"w": torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])}, {"w": base["w"].clone()}]
    got = merge("widen", base, experts, 1.0)["w"]
    assert torch.isfinite(got).all()
    assert got[:, 2].tolist() == [0.0, 0.0]


def test_equal_scores_rank_in_the_order_of_columns() -> None:
    """A stable order: of columns that changed alike the later ones rank higher, on every machine."""
    base, expert = {"w": torch.eye(4)}, {"w": 2 * torch.eye(4)}
    got = merge("widen", base, [expert, base], {"ratio": 1.0, "calibration": 0.5})["w"]
    change = (got - base["w"]).diagonal()
    assert change.tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5])
    wide = merge("widen", base, [expert, base], {"ratio": 1.0, "calibration": 1.0})["w"] - base["w"]
    assert wide.diagonal().tolist() == pytest.approx([0.5, 0.5, 1.0, 1.0])


def test_ratio_and_calibration_reach_only_their_group() -> None:
    """Changed for one group and back, every tensor has the bits of a fresh model."""
    base, experts = models(2)
    operator = make_operator("widen", {})
    layout = Layout(("x", "y"), ("g0", "g1"), {n: int(n.startswith("a.")) for n in SHAPES})
    prepared = operator.prepare(base, experts, layout)

    def build(ratio: float) -> State:
        tables = settings_of(operator, layout, {"ratio": {"g1": ratio}, "calibration": {"g1": ratio / 2}})
        into = {n: torch.empty_like(t) for n, t in base.items()}
        prepared.apply(tables, list(SHAPES), into)
        return into

    first, other, again = build(1.0), build(0.6), build(1.0)
    assert all(torch.equal(first[name], again[name]) for name in SHAPES)
    changed = {name for name in SHAPES if not torch.equal(first[name], other[name])}
    assert {"a.weight", "a.bias"} >= changed
    assert changed


def test_tokens_can_be_named() -> None:
    """A matrix of tokens under another name is ranked by row where `tokens` matches it."""
    base, experts = models(2)
    named = [{"table": m["embed_tokens.weight"]} for m in (base, *experts)]
    got = merge("widen", named[0], named[1:], 1.0, tokens=("tab*",))["table"]
    wanted = merge("widen", base, experts, 1.0)["embed_tokens.weight"]
    assert np.array_equal(got.numpy(), wanted.numpy())
