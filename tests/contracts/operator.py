"""What every merge operator promises. A test module imports these tests and gives a fixture `kind`."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mergesearch.operators import OPERATORS
from mergesearch.operators.base import Differentiable, Layout, MergeOperator, Prepared
from mergesearch.operators.passes import chunked as _chunked
from mergesearch.operators.passes import stream as _stream
from mergesearch.plugins import PluginOptions, load, parse_options
from mergesearch.space import Per

SHAPES = {"emb": (37, 5), "a.w": (31, 33), "a.b": (33,), "b.w": (29, 31), "scalar": (), "none": (0, 4)}
GROUP = {"emb": 0, "a.w": 1, "a.b": 1, "b.w": 2, "scalar": 2, "none": 2}
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def make_operator(kind: str) -> MergeOperator:
    """The operator with default options."""
    cls = load("operator", OPERATORS, kind)
    operator: MergeOperator = cls(parse_options(kind, cls.Options, {}))
    return operator


def make_models(
    operator: MergeOperator, dtype: torch.dtype, seed: int = 0
) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]], Layout]:
    """A random base, its experts (as many as the operator takes, at most 3), and a layout of 3 groups."""
    generator = torch.Generator().manual_seed(seed)
    count = max(min(operator.MAX_EXPERTS or 3, 3), operator.MIN_EXPERTS)
    base = {n: torch.randn(s, generator=generator).mul_(0.1).to(dtype) for n, s in SHAPES.items()}
    experts = [
        {n: (t.double() + 0.02 * torch.randn(t.shape, generator=generator).double()).to(dtype) for n, t in base.items()}
        for _ in range(count)
    ]
    return base, experts, Layout(tuple("xyz"[:count]), ("g0", "g1", "g2"), GROUP)


def make_settings(operator: MergeOperator, layout: Layout, seed: int) -> dict[str, NDArray[np.float64]]:
    """Random values of every knob within its range, varying as finely as the knob may; seed -1: all at `init`."""
    rng = np.random.default_rng(max(seed, 0))
    shape = (len(layout.groups), len(layout.experts))
    tables = {}
    for knob in operator.KNOBS:
        init, high = knob.start(shape[1]), knob.top(shape[1])
        varies = {Per.STUDY: (1, 1), Per.EXPERT: (1, shape[1]), Per.GROUP: (shape[0], 1), Per.EXPERT_GROUP: shape}
        values = rng.uniform(knob.low, high, varies[knob.per]) if seed >= 0 else np.full((1, 1), init)
        values = values.round() if knob.whole else values
        tables[knob.name] = np.broadcast_to(values, shape).copy()
    return tables


def run(prepared: Prepared, tables: dict[str, NDArray[np.float64]], names: Sequence[str], dtype: torch.dtype):
    """A candidate in fresh memory full of NaN."""
    into = {n: torch.full(SHAPES[n], float("nan"), dtype=dtype) for n in names}
    prepared.apply(tables, names, into)
    return into


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of tensors agree in every bit."""
    return all(torch.equal(a[n].reshape(-1).view(torch.uint8), b[n].reshape(-1).view(torch.uint8)) for n in b)


def test_declares_what_a_study_needs(kind: str) -> None:
    """Options refuse unknown keys, knobs start within range, one is searched, the cache class is known."""
    cls = load("operator", OPERATORS, kind)
    assert issubclass(cls.Options, PluginOptions)
    assert any(knob.searched for knob in cls.KNOBS)
    assert len({knob.name for knob in cls.KNOBS}) == len(cls.KNOBS)
    for knob in cls.KNOBS:
        assert knob.low <= knob.start(3) <= knob.top(3)
        assert knob.doc
    assert "scale" in {knob.name for knob in cls.KNOBS}
    assert cls.SOURCE.title
    assert cls.SOURCE.where
    assert cls.CACHE in {"P0", "P1", "P2", "P3", "P4"}
    assert cls.__doc__


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
def test_writes_every_entry_in_place_and_changes_no_input(kind: str, dtype: torch.dtype) -> None:
    """Finite values of the base's dtype in the tensors named, the same memory, nothing else touched."""
    operator = make_operator(kind)
    base, experts, layout = make_models(operator, dtype)
    copies = [{n: t.clone() for n, t in model.items()} for model in (base, *experts)]
    into = {n: torch.full(s, float("nan"), dtype=dtype) for n, s in SHAPES.items()}
    memory = {n: t.data_ptr() for n, t in into.items()}
    operator.prepare(base, experts, layout).apply(make_settings(operator, layout, -1), ["a.w", "scalar", "none"], into)
    assert all(torch.isfinite(into[name]).all() for name in ("a.w", "scalar"))
    assert all(torch.isnan(into[name]).all() for name in ("emb", "a.b", "b.w"))
    assert {n: t.data_ptr() for n, t in into.items()} == memory
    for model, copy in zip((base, *experts), copies, strict=True):
        assert same_bits(model, copy)


@given(seeds=st.lists(st.integers(-1, 5), min_size=2, max_size=5), bfloat=st.booleans())
@settings(max_examples=15, deadline=None)
def test_same_settings_give_the_same_bits_whatever_came_before(kind: str, seeds: list[int], bfloat: bool) -> None:
    """A candidate after any others equals the same candidate built first, in every bit, in any order of names."""
    dtype = torch.bfloat16 if bfloat else torch.float32
    operator = make_operator(kind)
    base, experts, layout = make_models(operator, dtype)
    used = operator.prepare(base, experts, layout)
    for seed in seeds:
        got = run(used, make_settings(operator, layout, seed), list(reversed(SHAPES)), dtype)
    fresh = operator.prepare(base, experts, layout)
    assert same_bits(got, run(fresh, make_settings(operator, layout, seeds[-1]), list(SHAPES), dtype))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
def test_compiled_and_torch_paths_give_the_same_bits(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which path ran, in how many chunks and on how many threads, never shows in a result."""
    operator = make_operator(kind)
    base, experts, layout = make_models(operator, dtype)
    tables = [make_settings(operator, layout, seed) for seed in (-1, 1, 2)]
    tables.append(tables[1] | {"scale": np.zeros_like(tables[1]["scale"])})
    results = []
    threads = torch.get_num_threads()
    for limit, chunk, count in ((1 << 62, 1 << 16, 1), (1 << 62, 100, 2), (0, 1 << 16, 1), (0, 1 << 16, 3)):
        monkeypatch.setattr(_stream, "_COMPILED_FROM", limit)
        monkeypatch.setitem(_chunked.CHUNK, "cpu", chunk)
        torch.set_num_threads(count)
        prepared = operator.prepare(base, experts, layout)
        results.append([run(prepared, table, list(SHAPES), dtype) for table in tables])
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(other, results[0], strict=True))


def test_accepts_live_tensors_that_are_not_contiguous(kind: str) -> None:
    """A transposed live tensor gets the same values."""
    operator = make_operator(kind)
    base, experts, layout = make_models(operator, torch.float32)
    prepared, tables = operator.prepare(base, experts, layout), make_settings(operator, layout, 3)
    plain = run(prepared, tables, ["a.w"], torch.float32)
    turned = {"a.w": torch.empty(33, 31).t()}
    prepared.apply(tables, ["a.w"], turned)
    assert torch.equal(turned["a.w"], plain["a.w"])


def test_experts_equal_to_the_base_give_the_base(kind: str) -> None:
    """With nothing to merge in, the result at the operator's own starting point is the base."""
    operator = make_operator(kind)
    base, experts, layout = make_models(operator, torch.float32)
    clones = [{n: t.clone() for n, t in base.items()} for _ in experts]
    got = run(operator.prepare(base, clones, layout), make_settings(operator, layout, -1), list(SHAPES), torch.float32)
    for name, tensor in got.items():
        torch.testing.assert_close(tensor, base[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
def test_a_scale_of_zero_gives_the_base(kind: str, dtype: torch.dtype) -> None:
    """At `scale` 0 every tensor is the base's to the bit, whatever the other knobs say."""
    operator = make_operator(kind)
    base, experts, layout = make_models(operator, dtype)
    tables = make_settings(operator, layout, 4)
    got = run(operator.prepare(base, experts, layout), tables | {"scale": 0 * tables["scale"]}, list(SHAPES), dtype)
    assert all(torch.equal(got[name], base[name]) for name in SHAPES)


def test_scale_multiplies_the_change_from_the_base(kind: str) -> None:
    """base + scale · (merged - base), where merged is what a scale of 1 gives."""
    operator = make_operator(kind)
    base, experts, layout = make_models(operator, torch.float64)
    prepared, tables = operator.prepare(base, experts, layout), make_settings(operator, layout, 2)
    one = run(prepared, tables | {"scale": np.ones_like(tables["scale"])}, list(SHAPES), torch.float64)
    half = run(prepared, tables | {"scale": np.full_like(tables["scale"], 0.5)}, list(SHAPES), torch.float64)
    for name in SHAPES:
        wanted = base[name] + 0.5 * (one[name] - base[name])
        torch.testing.assert_close(half[name], wanted, rtol=1e-6, atol=1e-7)


def test_a_group_that_did_not_change_keeps_its_bits(kind: str) -> None:
    """Unless the operator says WHOLE_MODEL, other groups' settings do not reach a group's tensors."""
    operator = make_operator(kind)
    if operator.WHOLE_MODEL:
        return
    base, experts, layout = make_models(operator, torch.float32)
    prepared, tables = operator.prepare(base, experts, layout), make_settings(operator, layout, 1)
    before = run(prepared, tables, ["emb"], torch.float32)
    other = make_settings(operator, layout, 2)
    for knob, table in other.items():
        table[0] = tables[knob][0]
    assert same_bits(run(prepared, other, ["emb"], torch.float32), before)


def test_a_differentiable_operator_gives_the_gradient_of_what_it_builds(kind: str) -> None:
    """Float64 (G, K) of each knob that is searched by default, the same as differences of `apply`; none is unknown."""
    operator = make_operator(kind)
    if not operator.DIFFERENTIABLE:
        return
    base, experts, layout = make_models(operator, torch.float64)
    prepared, at = operator.prepare(base, experts, layout), make_settings(operator, layout, 3)
    assert isinstance(prepared, Differentiable)
    generator = torch.Generator().manual_seed(0)
    slopes = {n: torch.randn(t.shape, generator=generator, dtype=t.dtype) for n, t in base.items()}
    gradient = prepared.pull_back(at, slopes)
    knobs = {knob.name: knob for knob in operator.KNOBS}
    assert set(gradient) == set(operator.DIFFERENTIABLE) <= set(knobs)
    assert any(knob.searched and knob.name in gradient for knob in operator.KNOBS)
    for name, table in gradient.items():
        assert (table.dtype, table.shape) == (np.float64, at[name].shape)
        along = np.random.default_rng(0).normal(size=table.shape)
        varies = {Per.STUDY: along[:1, :1], Per.EXPERT: along[:1], Per.GROUP: along[:, :1], Per.EXPERT_GROUP: along}
        along = np.broadcast_to(varies[knobs[name].per], table.shape)
        ends = [run(prepared, at | {name: at[name] + h * along}, list(SHAPES), torch.float64) for h in (1e-5, -1e-5)]
        wanted = sum(float(((ends[0][n] - ends[1][n]) * slopes[n]).sum()) for n in SHAPES) / 2e-5
        # What does not vary by expert stands in column 0 alone, and by group in row 0 alone.
        found = float((table * along).sum())
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6)
