"""Merging state dicts, and building candidates into a live model."""

import numpy as np
import pytest
import torch
from contracts.operator import GROUP, SHAPES, make_models, make_operator, make_settings, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

import mergesearch
from mergesearch.building import CandidateBuilder
from mergesearch.checkpoints.reader import Checkpoint, TensorInfo
from mergesearch.errors import CheckpointError, EvaluationError, MergesearchError, SpecError
from mergesearch.memory import memory_needed
from mergesearch.merging import merge
from mergesearch.operators import OPERATORS
from mergesearch.operators.base import Layout
from mergesearch.plugins import load
from mergesearch.space import Per


def vectors(**values: float) -> dict[str, torch.Tensor]:
    """A state dict of vectors of length 2."""
    return {name: torch.full((2,), value) for name, value in values.items()}


BASE = vectors(**{"m.layers.0.a.w": 1.0, "m.layers.1.a.w": 1.0, "m.norm.w": 1.0})
EXPERTS = {"x": {n: t + 1 for n, t in BASE.items()}, "y": {n: t + 10 for n, t in BASE.items()}}


def test_every_way_to_write_coefficients() -> None:
    """One number, one per expert, by expert, by group, by knob, and nested."""

    def got(coefficients: object, **more: object) -> list[float]:
        merged = mergesearch.merge("task_arithmetic", BASE, EXPERTS, coefficients, **more)
        return [round(float(t[0]) - 1, 4) for t in merged.values()]

    assert got(0.5) == [5.5] * 3
    assert got([1.0, 0.5]) == [6.0] * 3
    assert got({"y": 0.5, "x": 1.0}) == [6.0] * 3
    assert got({"x": 1.0}) == [4.0] * 3  # y stays at the knob's 0.3
    assert got({"coefficient": 0.5, "scale": 2.0}) == [11.0] * 3
    by_group = {"L0": 0.0, "L1": [1.0, 0.0], "norm": {"x": 0.0, "y": 1.0}}
    assert got(by_group, groups="block") == [0.0, 1.0, 10.0]
    assert got({"coefficient": by_group, "scale": {"norm": 0.5}}, groups="block") == [0.0, 1.0, 5.0]
    assert got({"m.norm.w": 0.0, "m.layers.0.a.w": 0.0, "m.layers.1.a.w": 1.0}, groups="tensor") == [0.0, 11.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("tie", BASE, EXPERTS, 0.3), "did you mean 'ties'"),
        (("ties", BASE, EXPERTS, {"z": 0.3}), "no expert or group 'z'"),
        (("ties", BASE, EXPERTS, [0.1, 0.2, 0.3]), "or 2"),
        (("ties", BASE, EXPERTS, float("nan")), "not finite"),
        (("ties", BASE, {}, 0.3), "at least one expert"),
        (("ties", BASE, [{"m.norm.w": torch.ones(2)}], 0.3), "lacks tensor 'm.layers.0.a.w'"),
        (("ties", BASE, [BASE | {"m.norm.w": torch.ones(3)}], 0.3), r"\(3,\) torch.float32, in the base \(2,\)"),
        (("ties", BASE, [BASE | {"m.norm.w": torch.full((2,), torch.nan)}], 0.3), "'m.norm.w' holds NaN"),
    ],
)
def test_mistakes_are_said_in_one_sentence(arguments: tuple[object, ...], sentence: str) -> None:
    """Each names what is wrong."""
    with pytest.raises(MergesearchError, match=sentence):
        merge(*arguments)
    with pytest.raises(SpecError, match="unknown key 'normalise'; did you mean 'normalize'"):
        merge("ties", BASE, EXPERTS, 0.3, normalise=True)


def test_buffers_heads_and_ties() -> None:
    """Equal integer buffers are copied, heads are the base's, tied tensors stay one; inputs keep their values."""
    shared = torch.ones(2, 2)
    base = {"emb": shared, "out": shared, "ids": torch.arange(3), "head.w": torch.zeros(2), "w": torch.zeros(2)}
    expert = {n: t + 1 if t.is_floating_point() else t.clone() for n, t in base.items()} | {"head.w": torch.ones(5)}
    merged = merge("linear", base, [expert], 1.0, heads=["head.*"])
    assert list(merged) == list(base)
    assert merged["emb"] is merged["out"]
    assert torch.equal(merged["out"], shared + 1)
    assert torch.equal(merged["head.w"], torch.zeros(2))
    assert torch.equal(merged["ids"], torch.arange(3))
    assert merged["ids"].data_ptr() != base["ids"].data_ptr()
    assert torch.equal(shared, torch.ones(2, 2))
    with pytest.raises(CheckpointError, match="'emb' and 'out' are one tensor in the base"):
        merge("linear", base, [expert | {"out": shared}], 1.0, heads=["head.*"])
    with pytest.raises(CheckpointError, match="buffer 'ids'"):
        merge("linear", base, [expert | {"ids": torch.ones(3, dtype=torch.int64)}], 1.0, heads=["head.*"])


@pytest.mark.parametrize("kind", [k for k in sorted(OPERATORS) if hasattr(load("operator", OPERATORS, k), "prepare")])
@given(seeds=st.lists(st.tuples(st.integers(-1, 3), st.booleans()), min_size=1, max_size=6), bfloat=st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_builder_gives_the_same_bits_after_any_sequence(
    kind: str, seeds: list[tuple[int, bool]], bfloat: bool
) -> None:
    """What stands in the live model depends on the last settings alone, though unchanged groups are not written."""
    operator = make_operator(kind)
    dtype = torch.bfloat16 if bfloat else torch.float32
    base, experts, layout = make_models(operator, dtype)
    live = {n: torch.zeros(s, dtype=dtype) for n, s in SHAPES.items()}
    builder = CandidateBuilder(operator, base, experts, layout, live)
    tables = make_settings(operator, layout, -1)
    whole = {knob.name for knob in operator.KNOBS if knob.per in (Per.STUDY, Per.EXPERT)}
    for seed, all_groups in seeds:
        new = make_settings(operator, layout, seed)
        rest = {k: new[k] if all_groups or k in whole else tables[k] for k in new}
        tables = {k: np.concatenate([new[k][:1], rest[k][1:]]) for k in new}
        builder.build(tables)
    fresh = {n: torch.ones(s, dtype=dtype) for n, s in SHAPES.items()}
    CandidateBuilder(operator, base, experts, layout, fresh).build(tables)
    assert same_bits(live, fresh)


def test_a_builder_writes_only_groups_that_changed() -> None:
    """The count of groups written; forget() and a failed build make it write again what it must."""
    operator = make_operator("linear")
    base, experts, layout = make_models(operator, torch.float32)
    live = {n: torch.zeros(s) for n, s in SHAPES.items()}
    builder = CandidateBuilder(operator, base, experts, layout, live)
    tables = make_settings(operator, layout, 1)
    assert [builder.build(tables), builder.build(tables)] == [3, 0]
    changed = {k: t.copy() for k, t in tables.items()}
    changed["coefficient"][1] *= 0.5
    live["emb"].fill_(7.0)  # group 0 is not written, so this stays
    assert builder.build(changed) == 1
    assert (live["emb"] == 7.0).all()
    broken = {k: np.zeros_like(t) if k == "coefficient" else t * 0 for k, t in tables.items()}
    with pytest.raises(EvaluationError, match="sum to 0"):
        builder.build(broken)
    assert builder.build(changed) == 3
    builder.forget()
    assert builder.build(changed) == 3


def test_a_builder_writes_a_tied_weight_once_and_guards_its_inputs() -> None:
    """Two names of one live tensor count as one; a live model that shares memory with an input is refused."""
    operator = make_operator("task_arithmetic")
    base, experts, layout = make_models(operator, torch.float32)
    tied = Layout(layout.experts, layout.groups, {**GROUP, "emb2": 2})
    live = {n: torch.zeros(s) for n, s in SHAPES.items()}
    live["emb2"] = live["emb"]
    builder = CandidateBuilder(operator, base, experts, tied, live)  # the base has no 'emb2', as in a file
    builder.build(make_settings(operator, layout, 1))
    with pytest.raises(CheckpointError, match="shares memory"):
        CandidateBuilder(operator, base, experts, layout, base)
    with pytest.raises(CheckpointError, match="no tensor 'emb'"):
        CandidateBuilder(operator, base, experts, layout, {})


def test_memory_is_planned_from_headers(tmp_path) -> None:
    """Live model, merged tensors of base and experts, and what the operator says that it remembers."""
    headers = {n: TensorInfo(s, torch.float32, tmp_path) for n, s in {"a": (10, 10), "head": (5,)}.items()}
    checkpoint, layout = Checkpoint(tmp_path, {}, headers), Layout(("x", "y"), ("g",), {"a": 0})
    plan = memory_needed(checkpoint, [checkpoint, checkpoint], layout)
    assert plan.needed == 420 + 3 * 400
    assert plan.fits
    remembered = make_operator("emr").extra_bytes({"a": (10, 10)}, 2)
    assert remembered == 100  # a byte per entry holds the masks of 8 experts
    assert memory_needed(checkpoint, [checkpoint] * 2, layout, make_operator("emr")).needed == plan.needed + remembered
