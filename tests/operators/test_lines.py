"""LiNeS: any operator's change, scaled by depth."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.checkpoints.groups import layer_depths
from mergesearch.errors import EvaluationError, SpecError
from mergesearch.merging import make_operator, merge, settings_of
from mergesearch.operators import OPERATORS
from mergesearch.operators.base import Compressed, Layout, Prepared
from mergesearch.operators.lines import depth_share
from mergesearch.plugins import load
from mergesearch.space import Per
from mergesearch.study.source import Source, parse_study

NAMES = ["embed.weight", *(f"model.layers.{i}.{part}.weight" for i in (0, 1, 2) for part in ("up", "down")), "head.w"]
SHARE = {name: int(name.split(".")[2]) / 2 if "layers" in name else 0.0 for name in NAMES}
WRAPPED = [k for k in ("task_arithmetic", "linear", "ties", "multi_slerp", "model_stock", "widen", "emr", "bitdelta")
           if k in OPERATORS]  # fmt: skip


def models(count: int = 2, dtype: torch.dtype = torch.float32) -> tuple[dict, list[dict]]:
    """A random base of three layers and its experts."""
    rng = torch.Generator().manual_seed(0)
    base = {n: torch.randn(8, 6, generator=rng).to(dtype) for n in NAMES}
    return base, [
        {n: t + 0.1 * torch.randn(8, 6, generator=rng).to(dtype) for n, t in base.items()} for _ in range(count)
    ]


def build(prepared: Prepared, tables: dict, base: dict, expert: int | None = None) -> dict:
    """A candidate, or the model of one expert's code."""
    into = {n: torch.full_like(t, float("nan")) for n, t in base.items()}
    if expert is None:
        prepared.apply(tables, NAMES, into)
    else:
        assert isinstance(prepared, Compressed)
        prepared.rebuild(tables, expert, NAMES, into)
    return into


def test_depths_count_the_layers_of_each_container() -> None:
    """By number and not by text, gaps left out, an encoder apart from a decoder, experts of a mixture not counted."""
    names = [f"encoder.block.{i}.mlp.experts.{j}.w" for i in (2, 10, 7) for j in (0, 1)]
    names += [f"decoder.block.{i}.mlp.w" for i in (0, 1)] + ["encoder.norm.w", "shared.w"]
    depths = layer_depths(dict.fromkeys(names, (2, 2)))
    assert depths["encoder.block.10.mlp.experts.1.w"] == (2, 3)
    assert depths["encoder.block.7.mlp.experts.0.w"] == (1, 3)
    assert depths["decoder.block.1.mlp.w"] == (1, 2)
    assert not {"encoder.norm.w", "shared.w"} & depths.keys()
    assert layer_depths({}) == layer_depths({"w": (3,)}) == {}


@given(alpha=st.floats(0, 1), beta=st.floats(-0.3, 1.2))
@settings(max_examples=20, deadline=None)
def test_task_arithmetic_is_scaled_by_depth(alpha: float, beta: float) -> None:
    """α + β l / (L - 1) in layer l, α outside; α = 1 and β = 0 change no bit."""
    base, experts = models(dtype=torch.float64)
    got = merge("lines", base, experts, {"alpha": alpha, "beta": beta, "coefficient": [0.4, 0.9]})
    for name in NAMES:
        factor = alpha + (beta * SHARE[name] if "layers" in name else 0.0)
        change = 0.4 * (experts[0][name] - base[name]) + 0.9 * (experts[1][name] - base[name])
        torch.testing.assert_close(got[name], base[name] + factor * change, rtol=1e-12, atol=1e-12)
    plain = merge("lines", base, experts, {"alpha": 1.0, "beta": 0.0, "coefficient": [0.4, 0.9]})
    wanted = merge("task_arithmetic", base, experts, [0.4, 0.9])
    assert all(torch.equal(plain[name], wanted[name]) for name in NAMES)


@pytest.mark.parametrize("kind", WRAPPED)
def test_any_operator_is_built_in_one_rounding(kind: str) -> None:
    """In bfloat16, the same bits as the operator alone with `scale` multiplied by hand, for groups of any form."""
    base, experts = models(2, torch.bfloat16)
    group_of = {name: int("layers.1" in name or name == "head.w") for name in NAMES}
    wrapper = make_operator("lines", {"of": kind})
    layout = Layout(("x", "y"), ("g0", "g1"), group_of)
    tables = settings_of(wrapper, layout, {"alpha": 0.4, "beta": 0.5, "scale": {"g0": 0.9, "g1": 0.6}})
    prepared = wrapper.prepare(base, experts, layout)
    rows = {name: i for i, name in enumerate(NAMES)}
    inner = make_operator(kind, {})
    fine = Layout(("x", "y"), tuple(NAMES), rows)
    by_hand = settings_of(inner, fine, {})
    for name, row in rows.items():
        by_hand["scale"][row] = (0.6 if group_of[name] else 0.9) * (0.4 + 0.5 * SHARE[name])
    alone = inner.prepare(base, experts, fine)
    for expert in (None, 0, 1) if inner.COMPRESSES else (None,):
        got, wanted = build(prepared, tables, base, expert), build(alone, by_hand, base, expert)
        assert all(torch.equal(got[name], wanted[name]) for name in NAMES)
    assert wrapper.COMPRESSES == inner.COMPRESSES == isinstance(prepared, Compressed)


def test_a_global_threshold_still_sees_the_whole_model() -> None:
    """TIES over the whole model trims as it does alone, however its change is scaled afterwards."""
    base, experts = models(2, torch.float64)
    knobs = {"density": [0.3, 0.6], "coefficient": 1.0}
    alone = merge("ties", base, experts, knobs, scope="global")
    got = merge(
        "lines", base, experts, knobs | {"alpha": 0.5, "beta": 0.0}, of="ties", with_options={"scope": "global"}
    )
    for name in NAMES:
        torch.testing.assert_close(got[name], (base[name] + alone[name]) / 2, rtol=1e-12, atol=1e-12)


def test_a_single_layer_gets_both_factors() -> None:
    """A layer that is the last as well as the first; the reference divides by zero."""
    assert (depth_share(0, 1), depth_share(0, 3), depth_share(1, 3), depth_share(2, 3)) == (1.0, 0.0, 0.5, 1.0)


def test_it_has_the_traits_and_knobs_of_what_it_wraps() -> None:
    """Ranges, number of experts, cost and memory are the operator's own; `alpha` of another is renamed."""
    for kind in WRAPPED:
        inner, outer = make_operator(kind, {}), make_operator("lines", {"of": kind})
        assert [k.name for k in outer.KNOBS] == ["alpha", "beta", *(k.name for k in inner.KNOBS)]
        assert (outer.MIN_EXPERTS, outer.MAX_EXPERTS) == (inner.MIN_EXPERTS, inner.MAX_EXPERTS)
        assert (outer.WHOLE_MODEL, outer.CACHE) == (inner.WHOLE_MODEL, inner.CACHE)
        assert outer.extra_bytes({"w": (9, 8)}, 2) == inner.extra_bytes({"w": (9, 8)}, 2)
    regmean = {knob.name: knob for knob in make_operator("lines", {"of": "regmean"}).KNOBS}
    assert regmean["alpha"].per is Per.STUDY
    assert regmean["inner_alpha"].init == 0.9
    base, experts = models()
    half = merge("lines", base, experts, {"alpha": 0.5, "beta": 0.0, "inner_alpha": 0.2}, of="regmean")["head.w"]
    torch.testing.assert_close(half, (base["head.w"] + merge("regmean", base, experts, {})["head.w"]) / 2)


def test_what_cannot_be_wrapped_is_refused() -> None:
    """Itself, an unknown kind, unknown options, and an operator for adapters."""
    for options, sentence in (
        ({"of": "lines"}, "cannot wrap itself"),
        ({"of": "tie"}, "operator 'tie' is unknown; did you mean 'ties'"),
        ({"of": "ties", "with_options": {"scop": "global"}}, "unknown key 'scop'; did you mean 'scope'"),
    ):
        with pytest.raises(SpecError, match=sentence):
            make_operator("lines", options)
    for kind in OPERATORS:
        if not hasattr(load("operator", OPERATORS, kind), "prepare"):
            with pytest.raises(SpecError, match="merges LoRA adapters"):
                make_operator("lines", {"of": kind})
    with pytest.raises(EvaluationError, match="sum to 0"):
        merge("lines", *models(), {"coefficient": 0.0}, of="linear")


STUDY = """\
name: s
models: {base: base, experts: {a: a, b: b}}
merge:
  operator: lines
  of: ties
  with_options: {scope: global}
space: {density: 0.3, alpha: {low: 0.2, high: 0.9}}
objectives:
  - {name: a, scorer: image_classification, data: {path: a.npz}}
strategy: {kind: random, seed: 3}
budget: {evaluations: 10}
"""


def test_a_study_can_use_it() -> None:
    """`of` and `with_options` stand under `merge`, its knobs under `space`; faults say what was meant."""
    spec = parse_study(Source("s.yaml", STUDY, root := Path()))
    assert spec.merge.options == {"of": "ties", "with_options": {"scope": "global"}}
    for old, new, sentence in (
        ("of: ties", "of: tise", "s.yaml:3:1: operator 'tise' is unknown; did you mean 'ties'"),
        ("scope", "scoop", "unknown key 'scoop'; did you mean 'scope'"),
        ("of: ties", "oof: ties", "s.yaml:5:3: unknown key 'oof'; did you mean 'of'"),
        ("density", "densty", "operator 'lines' has no knob 'densty'; did you mean 'density'"),
        ("high: 0.9", "high: 0.9, per: group", "knob 'alpha' of 'lines' varies per study"),
    ):
        assert old in STUDY
        with pytest.raises(SpecError, match=sentence):
            parse_study(Source("s.yaml", STUDY.replace(old, new, 1), root))


def test_tables_of_settings_are_left_as_they_were() -> None:
    """The caller's settings are read, not changed."""
    base, experts = models()
    operator = make_operator("lines", {})
    layout = Layout(("x", "y"), ("g",), dict.fromkeys(NAMES, 0))
    tables = settings_of(operator, layout, {"alpha": 0.5})
    copies = {knob: table.copy() for knob, table in tables.items()}
    build(operator.prepare(base, experts, layout), tables, base)
    assert all(np.array_equal(tables[knob], table) for knob, table in copies.items())
