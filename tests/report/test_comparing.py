"""Studies side by side: known indicators, one unit, one reference front, groups, bands, and clear refusals."""

import json

import numpy as np
import pytest

from mergesearch import indicators
from mergesearch.errors import SpecError
from mergesearch.report.compare import compare, units_for
from mergesearch.report.compare_charts import CHARTS, band, grown
from mergesearch.report.comparing import Front, Sketch, Steps, aligned, grouped, identity
from mergesearch.results import MARGIN, Normalisation
from mergesearch.types import Direction, Objective, Split

AIMS = (Objective("x"), Objective("y"))
UNIT = Normalisation(np.zeros(2), -np.ones(2))
"""Normalised units are the scores themselves."""


def made(name, scores, *, aims=AIMS, splits=(Split.SEARCH, Split.CONFIRM), alike="", units=UNIT, seed=0):
    """A study with those scores on its front, told one after the other."""
    losses = np.array([[o.loss(v) for o, v in zip(aims, row, strict=True)] for row in scores], dtype=float)
    front = Front(np.arange(len(losses)), losses, len(losses) + 3)
    count = np.arange(1.0, len(losses) + 1.0)
    steps = Steps(count, 0.5 * count, losses)
    return Sketch(
        name, "cma_es", "done", seed, alike or name, aims, units, dict.fromkeys(splits, front), steps, steps,
        (float(len(losses)), 0.5 * len(losses)),
    )  # fmt: skip


S = made("s", [(1, 3), (2, 2)])
Z = made("z", [(1, 4), (2, 3), (3, 2), (4, 1)])


def test_known_values():
    """Z dominates S, so the reference is Z; every value follows by hand."""
    found = compare([S, Z])
    assert found.reference == 4
    assert found.split is Split.CONFIRM
    s, z = (row.values for row in found.rows)
    assert s["gd"] == s["gd_plus"] == pytest.approx(1.0)
    assert s["igd"] == pytest.approx((3 + 5**0.5) / 4)
    assert s["igd_plus"] == pytest.approx((1 + 1 + 1 + 2) / 4)
    assert s["additive_epsilon"] == pytest.approx(2.0)
    assert s["multiplicative_epsilon"] == pytest.approx(2.0)
    bound = np.array([MARGIN, MARGIN])
    whole = Z.fronts[Split.SEARCH].losses
    assert s["relative_hypervolume"] == pytest.approx(
        indicators.relative_hypervolume(S.fronts[Split.SEARCH].losses, whole, bound)
    )
    assert z["relative_hypervolume"] == pytest.approx(1.0)
    assert [z[key] for key in ("gd", "igd", "gd_plus", "igd_plus", "additive_epsilon", "spread")] == [0.0] * 6
    assert z["multiplicative_epsilon"] == pytest.approx(1.0)
    assert found.coverage == ((1.0, 0.0), (1.0, 1.0))
    assert found.win_rate[0][1] + found.win_rate[1][0] <= 1.0


def test_one_unit_for_all():
    """The first study that scored base and experts gives it; without any the objectives' bounds do."""
    other = made("o", [(2, 2)], units=Normalisation(np.zeros(2), np.array([-2.0, -4.0])))
    assert units_for([other, S], np.zeros((1, 2)))[0] is other.normalisation
    bounded = tuple(Objective(n, low=0.0, high=1.0) for n in "xy")
    plain = made("p", [(0.5, 0.5)], units=None, aims=bounded)
    units, said = units_for([plain], np.zeros((1, 2)))
    assert units.zero.tolist() == [0.0, 0.0]
    assert units.one.tolist() == [-1.0, -1.0]
    assert "worst value of each objective" in said
    assert "another study changes it" in units_for([made("q", [(1, 2), (2, 1)], units=None)], np.ones((2, 2)))[1]


def test_the_confirm_split_is_used_where_all_have_it():
    """Else the search split, and the answer says whose scores are missing."""
    late = made("late", [(5, 5)], splits=(Split.SEARCH,))
    found = compare([S, late])
    assert found.split is Split.SEARCH
    assert "late" in found.why_split
    found = compare([S, late], split=Split.CONFIRM)
    assert found.missing == ("late",)
    assert [row.study for row in found.rows] == ["s"]


def test_objectives_are_matched_by_name():
    """Another order is no difference."""
    turned = made("t", [(4, 1), (3, 2), (2, 3), (1, 4)], aims=(AIMS[1], AIMS[0]))
    assert aligned([Z, turned])[1].fronts[Split.SEARCH].losses.tolist() == Z.fronts[Split.SEARCH].losses.tolist()[:4]
    row = compare([Z, turned]).rows[1]
    assert row.values["gd"] == 0.0


def test_different_objectives_are_refused_by_name():
    """One sentence says which differ, and how."""
    other = made("other", [(1, 1)], aims=(AIMS[0], Objective("y", Direction.MIN)))
    with pytest.raises(
        SpecError, match=r"'s' and 'other' cannot be compared.*differ in 'y': 's' has x ↑, y ↑, 'other' has"
    ):
        compare([S, other])


def test_one_objective_has_no_front():
    """The sentence says what to look at instead."""
    alone = made("one", [(1,)], aims=AIMS[:1], units=None)
    with pytest.raises(SpecError, match="two objectives"):
        compare([alone])
    assert CHARTS["convergence"]([alone], {}, ()).data


def test_studies_that_differ_in_seed_only_are_alike():
    """Seed, name and store are set aside; nothing else is."""
    text = "name: {}\nstore: sqlite:///{}.db\nstrategy: {{kind: {}, seed: {}}}\n"
    facts = {"objectives": [], "chosen": 3}
    a, b = (
        identity(text.format("a", "a", "cma_es", 1), facts),
        identity(text.format("b", "b", "cma_es", 2), {**facts, "chosen": 4}),
    )
    assert (a[0], b[0]) == (1, 2)
    assert a[1] == b[1]
    assert identity(text.format("b", "b", "random", 2), facts)[1] != a[1]
    assert identity("{", facts)[0] is None


def test_groups():
    """By seed, by strategy, by hand, or not at all."""
    many = [made(f"cma-{i}", [(1, 2)], alike="same", seed=i) for i in range(3)] + [Z]
    assert [(g.label, len(g.studies)) for g in grouped(many)] == [("cma (3 studies)", 3), ("z", 1)]
    assert len(grouped(many, ["none"])) == 4
    assert [g.label for g in grouped(many, ["strategy"])] == ["cma_es (4 studies)"]
    by_hand = grouped(many, ["mine: cma-0, z"])
    assert [(g.label, g.studies) for g in by_hand] == [
        ("mine", ("cma-0", "z")),
        ("cma-1", ("cma-1",)),
        ("cma-2", ("cma-2",)),
    ]
    for asked, said in ((["m:q"], "not compared"), (["m:z", "n:z"], "choose one"), (["what"], "group by")):
        with pytest.raises(SpecError, match=said):
            grouped(many, asked)
    rows = compare(many).groups
    assert [row.label for row in rows] == ["cma (3 studies)"]
    assert rows[0].values["gd"].low == rows[0].values["gd"].high


def test_a_band_is_median_and_quartiles_of_steps():
    """Curves stand still between their turns; a band runs from where all have begun to where the first ends."""
    curves = [(np.array([1.0, 3.0]), np.array([0.0, height])) for height in (1.0, 2.0, 3.0, 4.0, 5.0)]
    x, low, median, high = band(curves, [10.0, 8.0, 9.0, 9.0, 9.0])
    assert x.tolist() == [1.0, 3.0, 8.0]
    assert low.tolist() == [0.0, 2.0, 2.0]
    assert median.tolist() == [0.0, 3.0, 3.0]
    assert high.tolist() == [0.0, 4.0, 4.0]


def test_hypervolume_grows_to_that_of_the_front():
    """Exactly for few merges, nearly for many."""
    generator = np.random.default_rng(0)
    losses = -(generator.random((300, 4)) ** 0.3)
    wide = Normalisation(np.zeros(4), -np.ones(4))
    exact = grown(wide, losses[:50])
    assert exact[-1] == pytest.approx(wide.hypervolume(losses[:50]))
    assert np.all(np.diff(exact) >= 0)
    estimated = grown(wide, np.vstack([losses[:50], losses[:50]]))  # what comes twice adds nothing
    assert estimated[-1] == pytest.approx(exact[-1], rel=0.03)


@pytest.mark.parametrize("chart", sorted(CHARTS))
@pytest.mark.parametrize("against", ["evaluations", "cost"])
def test_charts_are_json_of_every_study(chart, against):
    """Lines for the groups, bands for those of several, nothing that JSON does not know."""
    twins = [made(f"cma-{i}", [(1 + i, 2), (2, 3 + i)], alike="same") for i in range(3)]
    drawn = CHARTS[chart]([*twins, Z], {"against": against}, ())
    json.dumps([drawn.data, drawn.layout], allow_nan=False)
    assert {t["name"] for t in drawn.data if t.get("showlegend")} == {"cma (3 studies)", "z"}
    if chart == "front":
        assert drawn.data[-1]["customdata"][0].startswith("z/candidates/")
    else:
        assert [t["fill"] for t in drawn.data if "fill" in t] == ["tonexty"]
        assert max(drawn.data[-1]["x"]) == (4.0 if against == "evaluations" else 2.0)


def test_long_fronts_and_many_objectives_take_little_time():
    """Two studies with 2,000 merges on fronts of 4 objectives: seconds, and the answer says that it took a part."""
    generator = np.random.default_rng(0)
    aims = tuple(Objective(n) for n in "wxyz")

    def sphere(seed):
        rows = np.abs(np.random.default_rng(seed).normal(size=(2000, 4)))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    units = Normalisation(np.zeros(4), -np.ones(4))
    found = compare([made(f"s{seed}", sphere(seed), aims=aims, units=units) for seed in generator.integers(0, 99, 2)])
    assert found.thinned
    assert all(0.9 < (row.values["relative_hypervolume"] or 0.0) <= 1.01 for row in found.rows)
