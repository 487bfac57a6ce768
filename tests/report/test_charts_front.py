"""The charts of fronts, parallel coordinates, time and fit say what the results say, as JSON that Plotly takes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from report.synthetic import empty, finished, unfinished

from mergesearch.errors import SpecError
from mergesearch.report.charts import CHARTS
from mergesearch.report.charts.fit import fit
from mergesearch.report.charts.front import front
from mergesearch.report.charts.parallel import MOST_AXES, parallel, spread
from mergesearch.report.charts.points import plain, points, thinned
from mergesearch.report.charts.timing import parts, timing
from mergesearch.report.view import knee
from mergesearch.types import Split

OURS = ("front", "convergence", "hypervolume", "parallel", "timing", "fit")


def trace(chart, name):
    """The trace whose name begins so."""
    return next(t for t in chart.data if t.get("name", "").startswith(name))


@pytest.fixture(scope="module")
def four():
    """A finished study of four objectives."""
    return finished(4, 40, fail_every=9)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("view", [finished(3, 12), unfinished(2, 5), unfinished(2, 5, baselines=True), empty(2)])
def test_every_chart_is_strict_json_at_every_stage(name, view):
    """Also with nothing scored and without baselines: a sentence, no NaN, no numpy values."""
    from mergesearch.plugins import load

    chart = load("chart", CHARTS, name)(view, {})
    assert json.loads(json.dumps([chart.data, chart.layout], allow_nan=False)) == [chart.data, chart.layout]
    assert chart.summary.endswith(".")


def test_the_front_shows_each_merge_once_at_its_scores(four):
    """In percent, with the candidate's number behind it; front and dominated are all that was scored."""
    chart = front(four, {"x": "letters", "y": "mnist"})
    best, rest = trace(chart, "front"), trace(chart, "dominated")
    assert sorted(best["customdata"]) == four.results.front
    assert sorted(best["customdata"] + rest["customdata"]) == sorted(four.results.scored)
    for number, x, y in zip(best["customdata"], best["x"], best["y"], strict=True):
        scores = four.results.outcome(number).scores
        assert (x, y) == pytest.approx((100 * scores["letters"].value, 100 * scores["mnist"].value), abs=1e-3)
    assert "letters" in chart.layout["xaxis"]["title"]["text"]


def test_the_front_marks_baselines_knee_and_chosen(four):
    """Each with its own shape, and the numbers that the results give."""
    chart = front(four, {})
    assert trace(chart, "knee")["customdata"] == [knee(four.results)]
    assert trace(chart, "chosen")["customdata"] == [four.chosen]
    assert trace(chart, "best single λ")["customdata"] == [four.results.best_lambda()]
    assert len(trace(chart, "experts")["x"]) == 4
    shapes = {trace(chart, n)["marker"]["symbol"] for n in ("base", "experts", "uniform", "best single", "knee", "cho")}
    assert len(shapes) == 6


def test_error_bars_third_axis_and_another_split_are_options(four):
    """Errors are one standard error; the confirm split has its own front."""
    chart = front(four, {"errors": "1", "z": "digits", "split": "confirm"})
    best = trace(chart, "front")
    assert best["type"] == "scatter3d"
    scores = four.results.outcome(best["customdata"][0], Split.CONFIRM).scores
    assert best["error_x"]["array"][0] == pytest.approx(100 * scores["mnist"].stderr, rel=1e-4)
    assert best["z"][0] == pytest.approx(100 * scores["digits"].value, rel=1e-4)


@pytest.mark.parametrize("options", [{"x": "mnisd"}, {"x": "mnist", "y": "mnist"}, {"split": "train"}, {"z": "<b>"}])
def test_an_option_that_cannot_be_is_refused(four, options):
    """With a sentence that names it."""
    with pytest.raises(SpecError, match=str(next(iter(options.values())))):
        front(four, options)


def test_one_objective_has_no_front_and_a_parallel_of_the_best():
    """The front says so."""
    view = finished(1, 12)
    with pytest.raises(SpecError, match="two objectives"):
        front(view, {})
    assert "best merges" in parallel(view, {}).summary


def test_texts_are_shown_letter_by_letter():
    """What comes from a study is no markup for Plotly, and is cut where it is long."""
    assert plain("<a href='x'>&") == "&lt;a href='x'&gt;&amp;"
    assert len(plain("x" * 500)) == 40


def test_thinning_keeps_ends_and_is_even():
    """The same rows each time."""
    rows = thinned(np.arange(100_000), 1000)
    assert (len(rows), rows[0], rows[-1]) == (1000, 0, 99_999)
    assert np.ptp(np.diff(rows)) <= 1
    assert thinned(np.arange(3), 10).tolist() == [0, 1, 2]


def test_parallel_shows_the_axes_that_differ_most(four):
    """At most twelve, a line of as many points for each merge of the front."""
    cube = np.zeros((5, 20))
    cube[:, 3], cube[:, 17] = np.linspace(0, 1, 5), np.linspace(0, 0.5, 5)
    assert {3, 17} <= set(spread(cube, 4).tolist())
    chart = parallel(four, {"colour": "digits"})
    lines = [t for t in chart.data if t["mode"] == "lines+markers"]
    assert sorted({n for t in lines for n in t["customdata"]}) == four.results.front
    assert len(chart.layout["xaxis"]["tickvals"]) == min(MOST_AXES, four.space.dim)
    number = lines[0]["customdata"][0]
    assert any(lines[0]["y"][0] == pytest.approx(u, rel=1e-5) for u in four.results.candidates[number].point)


def test_time_is_split_as_the_evaluations_say(four):
    """Shares sum to 100 %."""
    assert sum(t["x"][0] for t in timing(four, {}).data) == pytest.approx(100, abs=0.01)
    found = {p.name: p for p in parts(four)}
    count = sum(len(four.results.columns(s).numbers) for s in Split)
    assert found["score"].total == pytest.approx(1.0 * count)
    assert found["build"].median == pytest.approx(0.03)


def test_fit_shows_r2_of_objectives_alone(four):
    """Other figures of the strategy are no bars; without any there is none."""
    bar = fit(four, {}).data[0]
    assert dict(zip(bar["y"], bar["x"], strict=True))["mnist"] == 0.93
    assert "population" not in bar["y"]
    assert fit(replace(four, diagnostics={}), {}).data == []


def test_points_leave_baselines_out(four):
    """They are marked by name instead."""
    assert set(points(four).numbers.tolist()) == set(four.results.scored)
