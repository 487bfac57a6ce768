"""What every operator on adapters promises, as `operator.py` says of whole models. A test module imports these tests
and gives a fixture `kind`."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from contracts.operator import DTYPES, make_settings, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mergesearch.building import CandidateBuilder
from mergesearch.checkpoints.adapter import LowRank
from mergesearch.operators import OPERATORS
from mergesearch.operators.base import AdapterOperator, Compressed, Layout, Prepared
from mergesearch.operators.passes import chunked as _chunked
from mergesearch.plugins import PluginOptions, load, parse_options

SHAPES = {"a.w": (31, 33), "a.v": (16, 40), "b.w": (29, 31), "b.v": (5, 3)}
GROUP = {"a.w": 0, "a.v": 1, "b.w": 2, "b.v": 2}
RANKS = {"a.w": (4, 4, 4), "a.v": (3, 2, 4), "b.w": (4, 0, 2), "b.v": (2, 6, 0)}
"""Of the adapters' factors; 0: that adapter does not change the tensor."""


def make_operator(kind: str, **options: object) -> AdapterOperator:
    """The operator, with default options unless given."""
    cls = load("operator", OPERATORS, kind)
    operator: AdapterOperator = cls(parse_options(kind, cls.Options, options))
    return operator


def make_adapters(
    dtype: torch.dtype, seed: int = 0, count: int = 3
) -> tuple[dict[str, torch.Tensor], list[dict[str, LowRank]], Layout]:
    """A random base, adapters of unlike ranks that do not all change every tensor, and a layout of 3 groups."""
    generator = torch.Generator().manual_seed(seed)
    base = {n: torch.randn(s, generator=generator).mul_(0.1).to(dtype) for n, s in SHAPES.items()}
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    adapters = []
    for k in range(count):
        adapter = {}
        for name, (out, width) in SHAPES.items():
            if rank := RANKS[name][k]:
                up, down = (torch.randn(s, generator=generator) * 0.1 for s in ((out, rank), (rank, width)))
                adapter[name] = LowRank(up.to(wide), down.to(wide), 0.5 + k)
        adapters.append(adapter)
    return base, adapters, Layout(tuple("xyz"[:count]), ("g0", "g1", "g2"), GROUP)


def run(
    prepared: Prepared, tables: Mapping[str, NDArray[np.float64]], names: Sequence[str], dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """A candidate in fresh memory full of NaN."""
    into = {n: torch.full(SHAPES[n], float("nan"), dtype=dtype) for n in names}
    prepared.apply(tables, names, into)
    return into


def test_declares_what_a_study_needs(kind: str) -> None:
    """Options refuse unknown keys, knobs start within range, one is searched, one is the scale."""
    cls = load("operator", OPERATORS, kind)
    assert issubclass(cls.Options, PluginOptions)
    assert any(knob.searched for knob in cls.KNOBS)
    assert {"coefficient", "scale"} <= {knob.name for knob in cls.KNOBS}
    for knob in cls.KNOBS:
        assert knob.low <= knob.start(3) <= knob.top(3)
        assert knob.doc
    assert cls.SOURCE.where.startswith("arXiv:")
    assert cls.CACHE in {"P0", "P1", "P2", "P3", "P4"}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
def test_writes_every_entry_in_place_and_changes_no_input(kind: str, dtype: torch.dtype) -> None:
    """Finite values of the base's dtype in the tensors named, the same memory, nothing else touched."""
    operator = make_operator(kind)
    base, adapters, layout = make_adapters(dtype)
    tensors = [*base.values(), *(t for a in adapters for c in a.values() for t in (c.up, c.down))]
    copies = [t.clone() for t in tensors]
    into = {n: torch.full(s, float("nan"), dtype=dtype) for n, s in SHAPES.items()}
    memory = {n: t.data_ptr() for n, t in into.items()}
    prepared = operator.prepare_adapters(base, adapters, layout)
    prepared.apply(make_settings(operator, layout, -1), ["a.w", "b.v"], into)
    assert all(torch.isfinite(into[name]).all() for name in ("a.w", "b.v"))
    assert all(torch.isnan(into[name]).all() for name in ("a.v", "b.w"))
    assert {n: t.data_ptr() for n, t in into.items()} == memory
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, copies, strict=True))


@given(seeds=st.lists(st.integers(-1, 5), min_size=2, max_size=5), bfloat=st.booleans())
@settings(max_examples=15, deadline=None)
def test_same_settings_give_the_same_bits_whatever_came_before(kind: str, seeds: list[int], bfloat: bool) -> None:
    """A candidate after any others equals the same candidate built first, in every bit, in any order of names."""
    dtype = torch.bfloat16 if bfloat else torch.float32
    operator = make_operator(kind)
    base, adapters, layout = make_adapters(dtype)
    used = operator.prepare_adapters(base, adapters, layout)
    for seed in seeds:
        got = run(used, make_settings(operator, layout, seed), list(reversed(SHAPES)), dtype)
    fresh = operator.prepare_adapters(base, adapters, layout)
    assert same_bits(got, run(fresh, make_settings(operator, layout, seeds[-1]), list(SHAPES), dtype))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
def test_chunks_and_threads_never_show(kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """In how many chunks and on how many threads a candidate was built changes no bit."""
    operator = make_operator(kind)
    base, adapters, layout = make_adapters(dtype)
    tables = [make_settings(operator, layout, seed) for seed in (-1, 1, 2)]
    results = []
    threads = torch.get_num_threads()
    for chunk, count in ((1 << 16, 1), (200, 2), (1 << 16, 3)):
        monkeypatch.setitem(_chunked.CHUNK, "cpu", chunk)
        torch.set_num_threads(count)
        prepared = operator.prepare_adapters(base, adapters, layout)
        results.append([run(prepared, table, list(SHAPES), dtype) for table in tables])
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(other, results[0], strict=True))


def test_accepts_live_tensors_that_are_not_contiguous(kind: str) -> None:
    """A transposed live tensor gets the same values."""
    operator = make_operator(kind)
    base, adapters, layout = make_adapters(torch.float32)
    prepared, tables = operator.prepare_adapters(base, adapters, layout), make_settings(operator, layout, 3)
    plain = run(prepared, tables, ["a.w"], torch.float32)
    turned = {"a.w": torch.empty(33, 31).t()}
    prepared.apply(tables, ["a.w"], turned)
    assert torch.equal(turned["a.w"], plain["a.w"])


def test_adapters_of_zeros_give_the_base(kind: str) -> None:
    """Factors of zeros, as adapters begin, change nothing."""
    operator = make_operator(kind)
    base, adapters, layout = make_adapters(torch.float32)
    zeros = [{n: LowRank(torch.zeros_like(c.up), c.down, c.scale) for n, c in a.items()} for a in adapters]
    got = run(
        operator.prepare_adapters(base, zeros, layout), make_settings(operator, layout, 1), [*SHAPES], base["a.w"].dtype
    )
    assert all(torch.equal(got[name], base[name]) for name in SHAPES)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
def test_a_scale_of_zero_gives_the_base(kind: str, dtype: torch.dtype) -> None:
    """At `scale` 0 every tensor is the base's to the bit, whatever the other knobs say."""
    operator = make_operator(kind)
    base, adapters, layout = make_adapters(dtype)
    tables = make_settings(operator, layout, 4)
    prepared = operator.prepare_adapters(base, adapters, layout)
    got = run(prepared, tables | {"scale": 0 * tables["scale"]}, list(SHAPES), dtype)
    assert same_bits(got, base)


def test_scale_multiplies_the_change_from_the_base(kind: str) -> None:
    """base + scale · (merged - base), where merged is what a scale of 1 gives."""
    operator = make_operator(kind)
    base, adapters, layout = make_adapters(torch.float64)
    prepared, tables = operator.prepare_adapters(base, adapters, layout), make_settings(operator, layout, 2)
    one = run(prepared, tables | {"scale": np.ones_like(tables["scale"])}, list(SHAPES), torch.float64)
    half = run(prepared, tables | {"scale": np.full_like(tables["scale"], 0.5)}, list(SHAPES), torch.float64)
    for name in SHAPES:
        torch.testing.assert_close(half[name], base[name] + 0.5 * (one[name] - base[name]), rtol=1e-9, atol=1e-11)


def test_a_group_that_did_not_change_keeps_its_bits(kind: str) -> None:
    """Unless the operator says WHOLE_MODEL, other groups' settings do not reach a group's tensors."""
    operator = make_operator(kind)
    if operator.WHOLE_MODEL:
        return
    base, adapters, layout = make_adapters(torch.float32)
    prepared, tables = operator.prepare_adapters(base, adapters, layout), make_settings(operator, layout, 1)
    before = run(prepared, tables, ["a.w"], torch.float32)
    other = make_settings(operator, layout, 2)
    for knob, table in other.items():
        table[0] = tables[knob][0]
    assert same_bits(run(prepared, other, ["a.w"], torch.float32), before)


def test_the_order_of_the_adapters_does_not_matter(kind: str) -> None:
    """Adapters in another order, each with its settings, give the same merge up to rounding."""
    operator = make_operator(kind)
    base, adapters, layout = make_adapters(torch.float64)
    tables = make_settings(operator, layout, -1)
    tables["coefficient"] = np.tile([0.4, 0.9, 0.7], (3, 1))
    for knob in ("clusters",):
        if knob in tables:  # as many as there are units: with fewer, k-means starts from other ones
            tables[knob] = np.full((3, 3), 128.0)
    turned = {knob: table[:, [2, 0, 1]] for knob, table in tables.items()}
    one = run(operator.prepare_adapters(base, adapters, layout), tables, list(SHAPES), torch.float64)
    moved = [adapters[2], adapters[0], adapters[1]]
    two = run(operator.prepare_adapters(base, moved, layout), turned, list(SHAPES), torch.float64)
    for name in SHAPES:
        torch.testing.assert_close(two[name], one[name], rtol=1e-7, atol=1e-9)


def test_codes_give_every_adapter_back_as_they_promise(kind: str) -> None:
    """An operator that COMPRESSES can rebuild each expert and says how many bytes that needs; no other does."""
    operator = make_operator(kind)
    base, adapters, layout = make_adapters(torch.float32)
    prepared = operator.prepare_adapters(base, adapters, layout)
    assert isinstance(prepared, Compressed) == operator.COMPRESSES
    if isinstance(prepared, Compressed):
        tables = make_settings(operator, layout, -1)
        into = {n: torch.full(s, float("nan")) for n, s in SHAPES.items()}
        for expert in range(3):
            prepared.rebuild(tables, expert, list(SHAPES), into)
            assert all(torch.isfinite(tensor).all() for tensor in into.values())
        assert prepared.stored_bytes(tables) > 0


@given(seeds=st.lists(st.tuples(st.integers(-1, 3), st.booleans()), min_size=1, max_size=5))
@settings(max_examples=15, deadline=None)
def test_a_builder_gives_the_same_bits_after_any_sequence(kind: str, seeds: list[tuple[int, bool]]) -> None:
    """What stands in the live model depends on the last settings alone, though unchanged groups are not written."""
    operator = make_operator(kind)
    base, adapters, layout = make_adapters(torch.bfloat16)
    live = {n: torch.zeros(s, dtype=torch.bfloat16) for n, s in SHAPES.items()}
    builder = CandidateBuilder(operator, base, adapters, layout, live)
    tables = make_settings(operator, layout, -1)
    for seed, all_groups in seeds:
        new = make_settings(operator, layout, seed)
        tables = {k: np.concatenate([new[k][:1], (new if all_groups else tables)[k][1:]]) for k in new}
        builder.build(tables)
    fresh = {n: torch.ones(s, dtype=torch.bfloat16) for n, s in SHAPES.items()}
    CandidateBuilder(operator, base, adapters, layout, fresh).build(tables)
    assert same_bits(live, fresh)
