"""The final table holds the right rows, means and errors, whatever is missing."""

import json

import numpy as np
import pytest
from report.synthetic import empty, finished, text_of, unfinished

from mergesearch.report.estimate import Estimate, Unit, duration, mean_unit, unit_of
from mergesearch.report.paired import Verdict
from mergesearch.report.table import compare, name_of, own_experts
from mergesearch.report.table_text import legend, render_table
from mergesearch.results import Results
from mergesearch.types import Asked, Candidate, Direction, Objective, Score, Scored, Split, Told


def results_of(objectives, rows):
    """Results with one search-split score per objective for each (origin, values)."""
    results, seq = Results(objectives), 0
    for number, (origin, values) in enumerate(rows):
        candidate = Candidate(number, None if origin.startswith("baseline") else np.zeros(2), origin)
        scores = {o.name: Score(v, 0.1, 10) for o, v in zip(objectives, values, strict=True)}
        for event in (Asked(seq + 1, candidate, Split.SEARCH), Told(seq + 2, candidate, Split.SEARCH, Scored(scores))):
            results.add(event)
        seq += 2
    return results


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_rows_stand_in_order_on_every_split(objectives):
    """Base, experts, uniform average, best single λ with its value, the searched merge; all on all three splits."""
    comparison = finished(objectives).comparison()
    kinds = [row.kind for row in comparison.rows]
    assert kinds == ["base", *["expert"] * objectives, "uniform", "lambda", "searched"]
    assert comparison.rows[-2].label.startswith("best λ = 0.")
    assert all(set(row.cells) == set(Split) for row in comparison.rows)
    assert [d.split for d in comparison.differences] == [Split.TEST] * 2 + [Split.CONFIRM] * 2


def test_the_mean_has_the_macro_error():
    """Error of the mean over T objectives: sqrt(sum se^2) / T."""
    cells = finished(3).comparison().rows[-1].cells[Split.TEST]
    errors = [s.stderr for s in cells.scores]
    assert cells.mean.value == pytest.approx(np.mean([s.value for s in cells.scores]))
    assert cells.mean.stderr == pytest.approx(np.sqrt(np.sum(np.square(errors))) / 3)


def test_an_expert_is_one_on_its_own_task():
    """Normalised mean: the mean of ratios to each objective's own expert on the same split."""
    comparison = finished(2).comparison()
    own = [row.cells[Split.TEST].scores[k].value for k, row in enumerate(comparison.rows[1:3])]
    for row in comparison.rows:
        cells = row.cells[Split.TEST]
        expected = np.mean([s.value / o for s, o in zip(cells.scores, own, strict=True)])
        assert cells.normalised.value == pytest.approx(expected)


def test_a_loss_is_normalised_the_other_way_round():
    """Where lower is better the ratio is expert / score: above 1 is better than the expert, for either direction."""
    objectives = (Objective("acc", Direction.MAX, low=0.0, high=1.0), Objective("nll", Direction.MIN))
    rows = [("baseline:base", (0.5, 4.0)), ("baseline:expert:acc", (0.8, 5.0)), ("baseline:expert:nll", (0.4, 2.0))]
    comparison = compare(results_of(objectives, [*rows, ("sample", (0.4, 1.0))]))
    searched = comparison.rows[-1].cells[Split.SEARCH]
    assert searched.normalised.value == pytest.approx((0.5 + 2.0) / 2)
    assert searched.mean.value == pytest.approx((0.4 - 1.0) / 2)
    assert "count negative" in legend(comparison)


def test_no_ratio_without_a_positive_divisor():
    """A score or an expert at zero or below has no normalised mean, and no error is raised."""
    objectives = (Objective("reward"),)
    comparison = compare(results_of(objectives, [("baseline:expert:reward", (-2.0,)), ("sample", (1.0,))]))
    assert comparison.rows[-1].cells[Split.SEARCH].normalised is None


def test_the_head_decides_whose_expert_an_objective_has():
    """heads first, then the expert of the same name, then the best on the search split."""
    objectives = (Objective("a"), Objective("b"), Objective("c"))
    rows = [("baseline:expert:a", (9.0, 1.0, 3.0)), ("baseline:expert:x", (1.0, 9.0, 5.0))]
    own = own_experts(results_of(objectives, rows), {"b": "x"})
    assert own == {"a": 0, "b": 1, "c": 1}


def test_the_gap_is_search_minus_test_in_the_direction_of_better():
    """Optimism is positive where the search split flattered, for scores and losses alike."""
    for bounded, sign in ((True, 1.0), (False, -1.0)):
        comparison = finished(2, bounded=bounded).comparison()
        cells = comparison.rows[-1].cells
        expected = sign * (cells[Split.SEARCH].mean.value - cells[Split.TEST].mean.value)
        assert comparison.gap.searched.value == pytest.approx(expected)


def test_unfinished_and_empty_studies_have_tables():
    """Missing baselines, missing splits and no candidate at all are no errors."""
    assert compare(empty().results).rows == ()
    assert "Nothing to compare yet" in text_of(render_table(empty().comparison()))
    alone = unfinished(4).comparison()
    assert [row.kind for row in alone.rows] == ["searched"]
    assert (alone.differences, alone.gap) == ((), None)
    text = text_of(render_table(unfinished(2, baselines=True).comparison()))
    assert "search: tuned on this" in text
    assert "test: read once" not in text


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_table_fits_eighty_columns(objectives):
    """Every row of the terminal table stands on one line of at most 80 columns, errors included."""
    text = text_of(render_table(finished(objectives).comparison()))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    rows = [line for line in text.splitlines() if line.startswith("searched #")]
    assert len(rows) == 3
    assert all(row.count("±") == objectives + 2 for row in rows)


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_terminal_keeps_the_means(width):
    """When it does not fit, errors move below, then objectives go; names and means stay."""
    text = text_of(render_table(finished(4).comparison()), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "norm." in text
    assert "uniform average" in text


def test_the_comparison_is_plain_json():
    """A program can read the whole table."""
    body = json.loads(json.dumps(finished(2).comparison().to_dict()))
    assert body["rows"][-1]["splits"]["test"]["scores"]["mnist"]["stderr"] > 0
    assert body["differences"][0]["verdict"] in list(Verdict)
    assert body["gap"]["searched"]["stderr"] > 0


def test_candidates_have_names():
    """Baselines are named by what they are, others by their number."""
    view = finished(2)
    names = [name_of(view.results, n, view.chosen) for n in view.results.candidates]
    assert names[:3] == ["base", "uniform average", "expert mnist"]
    assert "λ = 0.3" in names
    assert f"searched #{view.chosen}" in names


def test_numbers_are_written_to_their_error():
    """Shares in percent, others to two digits of the error; no error, four digits."""
    share, loss = Objective("acc", low=0.0, high=1.0), Objective("nll", Direction.MIN, low=0.0)
    assert unit_of(share).estimate(Estimate(0.7384, 0.0121)) == "73.8±1.2"
    assert unit_of(loss).estimate(Estimate(2.34567, 0.0123)) == "2.346±0.012"
    assert unit_of(loss).estimate(Estimate(2.34567)) == "2.346"
    assert Unit(False).estimate(None) == "–"
    assert not mean_unit((share, loss)).percent
    assert [duration(s) for s in (0.02, 12.34, 245, 11220)] == ["20 ms", "12.3 s", "4 min 05 s", "3 h 07 min"]
