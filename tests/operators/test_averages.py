"""NuSLERP, Multi-SLERP, Karcher mean and Model Stock: what their formulas promise, and the passes they stand on."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.errors import EvaluationError, SpecError
from mergesearch.merging import make_operator, merge
from mergesearch.operators.algebra import gram as _gram
from mergesearch.operators.algebra.gram import cosines, gram, vector_gram
from mergesearch.operators.base import Layout
from mergesearch.operators.passes.stream import Stream
from mergesearch.operators.passes.vectors import Vectors, entries_of, vector_sum, vectors_of

State = dict[str, torch.Tensor]
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float64])
COEFFICIENTS = st.lists(st.floats(0.05, 1.0), min_size=3, max_size=3)
SHAPES = {"a.w": (9, 14), "a.conv": (3, 2, 5), "a.b": (14,), "scalar": (), "none": (0, 4)}


def models(count: int, seed: int = 0, size: float = 0.02) -> tuple[State, list[State]]:
    """A random base in float64 and experts beside it."""
    rng = torch.Generator().manual_seed(seed)
    base = {n: torch.randn(s, generator=rng, dtype=torch.float64) for n, s in SHAPES.items()}
    return base, [
        {n: t + size * torch.randn(t.shape, generator=rng, dtype=torch.float64) for n, t in base.items()}
        for _ in range(count)
    ]


def close(a: State, b: State, tolerance: float = 1e-9) -> None:
    """All tensors agree."""
    for name in b:
        torch.testing.assert_close(a[name], b[name], rtol=tolerance, atol=tolerance)


def vector(*values: float) -> State:
    """A state dict of one float64 vector."""
    return {"w": torch.tensor(values, dtype=torch.float64)}


# What the operators stand on


@given(data=st.data(), dtype=DTYPES)
@settings(max_examples=30, deadline=None)
def test_gram_tables_are_those_of_a_plain_product(data: st.DataObject, dtype: torch.dtype) -> None:
    """Whole tensors and single vectors, with and without a centre, in several blocks."""
    rows, cols = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 40))
    axis = data.draw(st.sampled_from(["last", "first"]))
    rng = torch.Generator().manual_seed(rows * 41 + cols)
    full = [torch.randn(rows, cols, generator=rng).to(dtype) for _ in range(4)]
    centre, *experts = full
    wide = torch.stack([x.double() - centre.double() for x in experts])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_gram, "_SUMMED", data.draw(st.sampled_from([7, 64, 1 << 14])))
        table = gram([x.reshape(-1) for x in experts], centre.reshape(-1))
        each = vector_gram([x.reshape(-1) for x in experts], vectors_of((rows, cols), axis), centre.reshape(-1))
    np.testing.assert_allclose(table, torch.einsum("irc,jrc->ij", wide, wide), atol=1e-12, rtol=1e-12)
    wanted = torch.einsum("irc,jrc->ijr" if axis == "last" else "irc,jrc->ijc", wide, wide)
    if 0 not in (rows, cols):
        torch.testing.assert_close(each, wanted, atol=1e-12, rtol=1e-12)
    assert (np.abs(cosines(table)) <= 1).all()


def test_gram_does_not_depend_on_the_number_of_threads() -> None:
    """The same bits on one thread and on three."""
    rng, before = torch.Generator().manual_seed(0), torch.get_num_threads()
    x = [torch.randn(300, 400, generator=rng) for _ in range(2)]
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        flat = [t.reshape(-1) for t in x]
        found.append([gram(flat), *(vector_gram(flat, vectors_of((300, 400), a)).numpy() for a in ("last", "first"))])
    torch.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.bfloat16]), centred=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_sum_by_vectors_is_the_same_on_both_paths(data: st.DataObject, dtype: torch.dtype, centred: bool) -> None:
    """Rows, columns, single entries, unused models: what the formula says, with equal bits."""
    rows, cols = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 700))
    vectors = data.draw(
        st.sampled_from([Vectors(rows, cols, True), Vectors(rows, cols, False), entries_of(rows * cols)])
    )
    rng = torch.Generator().manual_seed(rows)
    tensors = [{"w": torch.randn(rows, cols, generator=rng).to(dtype)} for _ in range(3)]
    weights = torch.randn(3, vectors.count, generator=rng, dtype=torch.float64)
    weights[[i for i in range(3) if data.draw(st.booleans())]] = 0
    outs = []
    for compiled in (False, True):
        into = {"w": torch.full((rows, cols), float("nan"), dtype=dtype)}
        stream = Stream(tensors, ["w"], compiled)
        vector_sum(stream, ["w"], {"w": vectors}, [weights], into, centred=centred)
        outs.append(into["w"])
    assert torch.equal(outs[0], outs[1])
    form = (vectors.rows, vectors.cols)
    flat = torch.stack([t["w"].double().reshape(form) for t in tensors])
    by = weights.float().double()[:, :, None] if vectors.by_row else weights.float().double()[:, None, :]
    wanted = flat[0] + (by[1:] * (flat[1:] - flat[0])).sum(0) if centred else (by * flat).sum(0)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(outs[0].double().reshape(form), wanted, rtol=tolerance, atol=tolerance)


# NuSLERP


@given(t=st.floats(0, 1), flatten=st.booleans(), axis=st.sampled_from(["last", "first"]), task=st.booleans())
@settings(max_examples=30, deadline=None)
def test_nuslerp_ends_at_its_experts_and_can_be_walked_backwards(
    t: float, flatten: bool, axis: str, task: bool
) -> None:
    """t = 0 is the first expert, 1 the second; swapping the experts and t changes nothing."""
    base, (a, b) = models(2)
    options = {"flatten": flatten, "axis": axis, "task_vectors": task}
    close(merge("nuslerp", base, [a, b], 0.0, **options), a)
    close(merge("nuslerp", base, [a, b], 1.0, **options), b)
    close(merge("nuslerp", base, [a, b], t, **options), merge("nuslerp", base, [b, a], 1 - t, **options))


@pytest.mark.parametrize("axis", ["last", "first"])
def test_nuslerp_by_vectors_is_nuslerp_of_each_vector(axis: str) -> None:
    """Each row, or each column, gets what it would get as a tensor of its own."""
    base, (a, b) = models(2, size=1.0)
    got = merge("nuslerp", base, [a, b], 0.3, flatten=False, axis=axis)["a.w"]
    turned = [m["a.w"] if axis == "last" else m["a.w"].t() for m in (base, a, b)]
    alone = [merge("nuslerp", {"w": x}, [{"w": y}, {"w": z}], 0.3)["w"] for x, y, z in zip(*turned, strict=True)]
    wanted = torch.stack(alone)
    torch.testing.assert_close(got, wanted if axis == "last" else wanted.t(), rtol=1e-12, atol=1e-12)


def test_nuslerp_keeps_to_the_arc_between_changes_at_a_right_angle() -> None:
    """Half-way between two unit changes at a right angle is a unit change, however small the unit is."""
    for unit in (1.0, 1e-9):
        got = merge("nuslerp", vector(0, 0), [vector(unit, 0), vector(0, unit)], 0.5)["w"]
        torch.testing.assert_close(got / unit, torch.tensor([0.5**0.5] * 2, dtype=torch.float64))


def test_nuslerp_of_collinear_changes_is_linear() -> None:
    """Parallel, nearly opposite, and absent changes give no NaN and nothing out of bounds."""
    base, x = vector(0, 0), vector(1, 2)
    assert merge("nuslerp", base, [x, x], 0.3)["w"].tolist() == pytest.approx([1, 2])
    close(merge("nuslerp", base, [x, vector(-1, -2 - 1e-9)], 0.25), vector(0.5, 1.0), 1e-8)
    close(merge("nuslerp", base, [x, vector(0, 0)], 0.5), vector(math.sin(math.pi / 4), 2 * math.sin(math.pi / 4)))


def test_nuslerp_takes_two_experts() -> None:
    """One or three are refused."""
    for count in (1, 3):
        with pytest.raises(SpecError, match=f"exactly 2 expert.* got {count}"):
            merge("nuslerp", vector(1), [vector(1)] * count, 0.5)


# Multi-SLERP and Karcher mean

MEANS = [(kind, task) for kind in ("multi_slerp", "karcher") for task in (True, False)]


@pytest.mark.parametrize(("kind", "task"), MEANS)
def test_a_mean_of_one_expert_is_that_expert(kind: str, task: bool) -> None:
    """To the bit in bfloat16, alone or beside experts of weight 0."""
    base, experts = models(3)
    base = {n: t.bfloat16() for n, t in base.items()}
    experts = [{n: t.bfloat16() for n, t in e.items()} for e in experts]
    for got in (
        merge(kind, base, experts[:1], 1.0, task_vectors=task),
        merge(kind, base, experts, [1.0, 0.0, 0.0], task_vectors=task),
    ):
        assert all(torch.equal(got[name], experts[0][name]) for name in base)


@pytest.mark.parametrize(("kind", "task"), MEANS)
@given(coefficient=COEFFICIENTS)
@settings(max_examples=10, deadline=None)
def test_a_mean_does_not_depend_on_the_order_or_the_sum(kind: str, task: bool, coefficient: list[float]) -> None:
    """Permuted experts with their coefficients, or all coefficients doubled, change nothing."""
    base, experts = models(3)
    wanted = merge(kind, base, experts, coefficient, task_vectors=task)
    close(merge(kind, base, experts, [2 * c for c in coefficient], task_vectors=task), wanted)
    for order in permutations(range(3)):
        got = merge(kind, base, [experts[i] for i in order], [coefficient[i] for i in order], task_vectors=task)
        close(got, wanted)


@pytest.mark.parametrize("kind", ["multi_slerp", "karcher"])
@given(coefficient=COEFFICIENTS)
@settings(max_examples=10, deadline=None)
def test_a_mean_has_the_mean_length(kind: str, coefficient: list[float]) -> None:
    """‖merged‖ is the weighted mean of the norms, tensor by tensor."""
    base, experts = models(3, size=1.0)
    got = merge(kind, base, experts, coefficient, task_vectors=True)
    for name in ("a.w", "a.conv", "a.b"):
        lengths = torch.stack([(e[name] - base[name]).norm() for e in experts])
        wanted = (torch.tensor(coefficient, dtype=torch.float64) / sum(coefficient)) @ lengths
        torch.testing.assert_close((got[name] - base[name]).norm(), wanted, rtol=1e-9, atol=0)


def test_the_karcher_mean_of_three_directions_has_no_pull_left() -> None:
    """At the result Σ α log_u(u_i) is 0: the condition that defines the mean. One step is not there yet."""
    base, experts = {"w": torch.zeros(20).double()}, [e["a.w"] for e in models(3, size=1.0)[1]]
    units = torch.stack([e.reshape(-1)[:20] / e.reshape(-1)[:20].norm() for e in experts])
    weights = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)

    def pull(iterations: int) -> float:
        knobs = {"coefficient": weights.tolist(), "iterations": iterations}
        got = merge("karcher", base, [{"w": u} for u in units], knobs, task_vectors=True, tolerance=1e-12)["w"]
        got = got / got.norm()
        inner = units @ got
        angle = torch.acos(inner)
        tangents = units - inner[:, None] * got
        return float(((weights * angle / angle.sin())[:, None] * tangents).sum(0).norm())

    assert pull(20) < 1e-8 < pull(1)


def test_experts_without_a_common_direction_are_averaged() -> None:
    """Opposite changes of any number, and changes of zero, give the linear mean and no NaN."""
    base = vector(0, 0)
    for kind in ("multi_slerp", "karcher"):
        got = merge(kind, base, [vector(1, 1), vector(-1, -1)], [0.5, 0.5], task_vectors=True)["w"]
        assert got.tolist() == pytest.approx([0, 0])
        three = [vector(1, 0), vector(-0.5, 3**0.5 / 2), vector(-0.5, -(3**0.5) / 2)]
        assert merge(kind, base, three, [1, 1, 1], task_vectors=True)["w"].tolist() == pytest.approx([0, 0], abs=1e-7)
        half = merge(kind, base, [vector(2, 0), vector(0, 0)], [0.5, 0.5], task_vectors=True)["w"]
        assert half.tolist() == pytest.approx([1, 0])
        assert merge(kind, base, [base, base], [0.5, 0.5], task_vectors=True)["w"].tolist() == [0, 0]


def test_unnormalized_coefficients_rescale_and_none_is_refused() -> None:
    """Off, the length follows the sum; coefficients that sum to 0 have no average."""
    base, experts = models(2)
    for kind in ("multi_slerp", "karcher"):
        one = merge(kind, base, experts, [0.5, 0.5], task_vectors=True)
        two = merge(kind, base, experts, [1.0, 1.0], task_vectors=True, normalize=False)
        close({n: (two[n] - base[n]) / 2 for n in base}, {n: one[n] - base[n] for n in base})
        with pytest.raises(EvaluationError, match=f"{kind}: coefficients of a group sum to 0"):
            merge(kind, base, experts, [0.0, 0.0])
        close(merge(kind, base, experts, [0.0, 0.0], task_vectors=True, normalize=False), base)


def test_directions_of_nearly_parallel_models_keep_their_digits() -> None:
    """Changes a millionth of the weights: the mean is the average to far better than the changes."""
    base, experts = models(3, size=1e-6)
    for kind in ("multi_slerp", "karcher"):
        got = merge(kind, base, experts, [0.2, 0.3, 0.5], task_vectors=False)
        wanted = {n: sum(w * e[n] for w, e in zip((0.2, 0.3, 0.5), experts, strict=True)) for n in base}
        close(got, wanted, 1e-9)


# Model Stock


def test_model_stock_of_equal_and_of_unrelated_experts() -> None:
    """Equal changes are kept whole (t = 1), those at a right angle dropped (t = 0), at any size of the changes."""
    base = vector(0, 0)
    for unit in (1.0, 1e-12):
        got = merge("model_stock", base, [vector(unit, unit)] * 3, 1.0)["w"]
        torch.testing.assert_close(got / unit, torch.ones(2, dtype=torch.float64))
        assert merge("model_stock", base, [vector(unit, 0), vector(0, unit)], 1.0)["w"].abs().max() < 1e-15
    assert merge("model_stock", base, [vector(1, 0), vector(-1, 0)], 1.0)["w"].tolist() == [0, 0]
    assert merge("model_stock", base, [vector(0, 0), vector(1, 0)], 1.0)["w"].tolist() == [0, 0]


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("angle", ["cosine", "degrees"])
def test_model_stock_is_its_formula(rows: bool, angle: str) -> None:
    """t = K cos θ / (1 + (K - 1) cos θ) for each tensor or row, whatever the order of the experts."""
    base, experts = models(3, size=0.3)
    got = merge("model_stock", base, experts, 0.7, rows=rows, angle=angle)
    back = merge("model_stock", base, experts[::-1], 0.7, rows=rows, angle=angle)
    close(back, got)
    for name in ("a.w", "a.b"):
        flat = (-1, SHAPES[name][-1]) if rows else (1, -1)
        tau = torch.stack([(e[name] - base[name]).reshape(flat) for e in experts])
        unit = tau / tau.norm(dim=2, keepdim=True)
        pairs = [(unit[i] * unit[j]).sum(1) for i, j in ((0, 1), (0, 2), (1, 2))]
        stacked = torch.stack(pairs)
        cosine = stacked.mean(0) if angle == "cosine" else stacked.acos().mean(0).cos()
        t = 3 * cosine / (1 + 2 * cosine)
        wanted = base[name] + 0.7 * (t[:, None] * tau.mean(0)).reshape(SHAPES[name])
        torch.testing.assert_close(got[name], wanted, rtol=1e-10, atol=1e-10)


def test_model_stock_needs_two_experts() -> None:
    """An angle takes two."""
    with pytest.raises(SpecError, match="at least 2 expert"):
        merge("model_stock", vector(1), [vector(2)], 1.0)


@pytest.mark.parametrize("kind", ["nuslerp", "multi_slerp", "karcher", "model_stock"])
def test_tensors_of_one_group_do_not_depend_on_which_are_asked_for(kind: str) -> None:
    """One tensor alone has the bits it has among all: nothing is summed over tensors."""
    base, experts = models(2)
    operator = make_operator(kind, {})
    prepared = operator.prepare(base, experts, Layout(("x", "y"), ("g",), dict.fromkeys(SHAPES, 0)))
    tables = {knob.name: np.full((1, 2), knob.start(2)) for knob in operator.KNOBS}
    into = {n: torch.empty_like(t) for n, t in base.items()}
    prepared.apply(tables, list(SHAPES), into)
    for name in SHAPES:
        alone = {name: torch.empty_like(base[name])}
        prepared.apply(tables, [name], alone)
        assert torch.equal(alone[name], into[name])
