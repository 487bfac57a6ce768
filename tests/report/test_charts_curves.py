"""Curves of convergence and hypervolume agree with the results, exactly or within their stated error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from report.synthetic import finished, unfinished

from mergesearch import pareto
from mergesearch.errors import SpecError
from mergesearch.report.charts.curves import convergence, ends, hypervolume
from mergesearch.report.charts.volumes import Volumes, entries, volumes
from mergesearch.report.curves import best_so_far, hypervolumes
from mergesearch.report.reached import first_reached

TABLES = st.integers(1, 4).flatmap(
    lambda m: arrays(np.float64, st.tuples(st.integers(0, 40), st.just(m)), elements=st.integers(0, 6).map(float))
)


def test_convergence_turns_where_the_best_does():
    """Its heights are those of every evaluation's best, its last point is at the last evaluation."""
    view = finished(3, 40)
    chart = convergence(view, {})
    line = next(t for t in chart.data if t["name"] == "best so far")
    whole = 100 * best_so_far(view.results)
    assert line["x"][-1] == len(whole)
    assert line["y"] == pytest.approx([whole[int(x) - 1] for x in line["x"]], rel=1e-5)
    assert line["customdata"][-1] == view.results.best
    assert {t["name"] for t in chart.data} >= {"base", "uniform average", "best single λ"}


def test_curves_run_against_cost_too():
    """The axis is what each evaluation had cost by then."""
    view = finished(2, 20)
    dots = convergence(view, {"against": "cost"}).data[0]
    assert dots["x"] == pytest.approx(view.results.costs)
    with pytest.raises(SpecError, match="evaluations or cost"):
        hypervolume(view, {"against": "hours"})


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_hypervolume_is_that_of_each_evaluation(objectives):
    """Exact for a small study."""
    view = finished(objectives, 30)
    whole, found = hypervolumes(view.results), volumes(view.results)
    assert found.error == 0.0
    stepped = found.values[np.searchsorted(found.at, np.arange(len(whole)), "right") - 1]
    assert stepped == pytest.approx(whole)
    assert hypervolume(view, {}).data[0]["y"][-1] == pytest.approx(whole[-1], rel=1e-5)


def test_a_large_front_is_estimated_and_ends_at_its_volume(monkeypatch):
    """Within a few of its errors of the exact curve all along."""
    from mergesearch.report.charts import volumes as module

    view = finished(4, 60)
    whole = hypervolumes(view.results)
    monkeypatch.setattr(module, "EXACT_ENTRIES", {})
    found = volumes(view.results)
    stepped = found.values[np.searchsorted(found.at, np.arange(len(whole)), "right") - 1]
    assert found.values[-1] == pytest.approx(view.results.hypervolume())
    assert np.all(np.diff(found.values) >= 0)
    assert np.abs(stepped - whole).max() < 0.05 * whole[-1]


def test_without_baselines_or_a_second_objective_there_is_none():
    """A sentence instead."""
    assert "needs base and experts" in hypervolume(unfinished(2, 5), {}).summary
    with pytest.raises(SpecError, match="two objectives"):
        hypervolume(finished(1, 5), {})


def test_a_long_curve_is_thinned():
    """1,500 turns at most, and the last merge."""
    at, values = ends(Volumes(np.arange(50_000), np.linspace(0, 1, 50_000)), 60_000)
    assert len(at) <= 1501
    assert (at[-1], values[-1]) == (59_999, 1.0)


@settings(deadline=None, max_examples=60)
@given(TABLES)
def test_entries_are_those_that_nothing_before_reaches(losses):
    """Compared with looking at every pair."""
    expected = [i for i in range(len(losses)) if not np.all(losses[:i] <= losses[i], axis=1).any()]
    assert entries(losses).tolist() == expected
    if len(losses):
        assert set(map(tuple, losses[pareto.front(losses)])) <= set(map(tuple, losses[expected]))


@settings(deadline=None, max_examples=60)
@given(TABLES, st.integers(0, 2**32 - 1))
def test_first_reached_is_the_first_row_nowhere_worse(rows, seed):
    """Compared with looking at every pair."""
    drawn = np.random.default_rng(seed).integers(0, 7, (23, rows.shape[1])).astype(float)
    expected = [next((i for i, row in enumerate(rows) if np.all(row <= d)), len(rows)) for d in drawn]
    assert first_reached(rows, drawn).tolist() == expected
