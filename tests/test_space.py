"""The space: axes, the unit cube, and the slots they fill."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergesearch.errors import SpecError
from mergesearch.space import Axis, Knob, KnobRange, Per, Scale, SearchSpace, build_space

EXPERTS, GROUPS = ("a", "b"), ("embed", "L0", "L1")
COEFFICIENT = Knob("coefficient", 0.0, 1.5, 0.3, searched=True)
DENSITY = Knob("density", 0.05, 0.9, 0.5, scale=Scale.LOGIT)


def span(knob: Knob, per: Per, init: float | None = None) -> KnobRange:
    return KnobRange(knob.low, knob.high, knob.init if init is None else init, per, knob.scale)


def space(per: Per = Per.EXPERT_GROUP, **more: object) -> SearchSpace:
    ranges = {"coefficient": span(COEFFICIENT, per), "density": span(DENSITY, Per.STUDY)}
    return build_space([COEFFICIENT, DENSITY], EXPERTS, GROUPS, ranges, {}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("per", "count", "first"),
    [
        (Per.STUDY, 1, "coefficient"),
        (Per.EXPERT, 2, "coefficient.a"),
        (Per.GROUP, 3, "coefficient.embed"),
        (Per.EXPERT_GROUP, 6, "coefficient.a.embed"),
    ],
)
def test_a_knob_varies_by_what_the_study_says(per: Per, count: int, first: str) -> None:
    """One axis for the study, each expert, each group, or each pair; the density's axis comes after."""
    made = space(per)
    assert made.dim == count + 1
    assert made.axes[0].name == first
    assert made.axes[-1].name == "density"


@given(st.lists(st.floats(0, 1), min_size=7, max_size=7))
def test_decode_and_encode_are_inverse(units: list[float]) -> None:
    """Encoding what a point decodes to gives the point back."""
    made = space()
    point = np.array(units)
    assert np.allclose(made.encode(made.decode(point)), point, atol=1e-9)
    assert np.allclose(made.point(made.values(point)), point, atol=1e-9)


@given(
    st.sampled_from(list(Scale)),
    st.floats(0.01, 0.5),
    st.floats(0.01, 0.4),
    st.floats(0, 1),
)
def test_an_axis_stays_in_its_range(scale: Scale, low: float, width: float, unit: float) -> None:
    """Every unit coordinate gives a value in the range, and the ends give the ends."""
    axis = Axis("x", low, low + width, low, scale)
    assert axis.low <= axis.value(unit) <= axis.high
    assert (axis.value(0.0), axis.value(1.0)) == (axis.low, axis.high)
    assert axis.unit(axis.value(unit)) == pytest.approx(unit, abs=1e-6)


def test_held_axes_leave_the_space_and_keep_their_value() -> None:
    """`fix` takes an axis, or a pattern, out of the search."""
    made = space(fix={"coefficient.a.*": 0.25})
    assert [a.name for a in made.axes] == ["coefficient.b.embed", "coefficient.b.L0", "coefficient.b.L1", "density"]
    assert made.decode(np.ones(4))["coefficient"][:, 0].tolist() == [0.25] * 3


def test_tied_axes_move_together() -> None:
    """`tie` makes one axis of several."""
    made = space(tie=[["coefficient.*.L0", "coefficient.*.L1"]])
    table = made.decode(np.linspace(0, 1, made.dim))["coefficient"]
    assert made.dim == 4
    assert len(set(table[1:].ravel())) == 1


def test_a_tied_axis_that_is_held_holds_all() -> None:
    """Holding one axis of a tie holds the others."""
    made = space(tie=[["coefficient.a.L0", "coefficient.b.L0"]], fix={"coefficient.b.L0": 0.0})
    assert made.decode(made.start)["coefficient"][1].tolist() == [0.0, 0.0]


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    """The sentence names the pattern and a near name."""
    with pytest.raises(SpecError, match=r"'coefficient.c.L0' matches no axis; did you mean"):
        space(fix={"coefficient.c.L0": 0.0})


def test_a_space_without_axes_is_refused() -> None:
    """Holding everything leaves nothing to search."""
    with pytest.raises(SpecError, match="no axis"):
        space(fix={"*": 0.5})


@pytest.mark.parametrize("bad", [(1.0, 1.0, 1.0), (0.0, 1.0, 2.0), (float("nan"), 1.0, 0.5)])
def test_an_impossible_range_is_refused(bad: tuple[float, float, float]) -> None:
    """low < high, and init between them."""
    with pytest.raises(SpecError, match="axis 'x'"):
        Axis("x", *bad)


def test_a_space_survives_json() -> None:
    """`from_dict` of a JSON copy decodes the same settings to the last bit."""
    made = space(fix={"coefficient.a.L0": 0.1})
    copy = SearchSpace.from_dict(json.loads(json.dumps(made.to_dict())))
    point = np.linspace(0.1, 0.9, made.dim)
    assert copy.axes == made.axes
    for knob, table in made.decode(point).items():
        assert np.array_equal(copy.decode(point)[knob], table)


def test_a_box_starts_in_its_middle() -> None:
    """A plain box has no slots; its start is the middle."""
    box = SearchSpace.box(3, -1.0, 1.0)
    assert box.values(box.start).tolist() == [0.0, 0.0, 0.0]
    assert box.decode(box.start) == {}
    with pytest.raises(SpecError, match="at least 1 axis"):
        SearchSpace.box(0, 0.0, 1.0)


def test_a_point_of_another_shape_is_refused() -> None:
    """The sentence gives both shapes."""
    with pytest.raises(SpecError, match=r"\(3,\), got \(2,\)"):
        SearchSpace.box(3, 0.0, 1.0).values(np.zeros(2))


def test_axes_may_start_elsewhere_than_their_knob() -> None:
    """`start` names axes by pattern; the last that matches counts, and a start lies within the range."""
    knob, span = Knob("c", 0.0, 1.0, 0.5), KnobRange(0.0, 1.0, 0.5, Per.EXPERT_GROUP, Scale.LINEAR)

    def starts(**start: float) -> list[float]:
        names = {key.replace("_", ".").replace("all", "*"): value for key, value in start.items()}
        space = build_space([knob], ["a", "b"], ["x", "y"], {"c": span}, {}, start=names)
        return [axis.init for axis in space.axes]

    assert starts() == [0.5, 0.5, 0.5, 0.5]
    assert starts(c_a_all=0.2, c_a_y=0.3) == [0.2, 0.5, 0.3, 0.5]
    with pytest.raises(SpecError, match=r"start: 'd\.a' matches no axis"):
        starts(d_a=0.2)
    with pytest.raises(SpecError, match="must lie in"):
        starts(c_a_x=1.2)
