"""Paired differences keep what evaluation asks of them: pairing, honest intervals, honest words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report.synthetic import Study, finished

from mergesearch.controller.finalists import paired_error
from mergesearch.report.estimate import PERCENT, Estimate
from mergesearch.report.paired import Difference, Verdict, bootstrap, difference, example_gains
from mergesearch.results import UNIFORM
from mergesearch.types import Direction, Objective, Score, Scored, Split, Told


def generator(seed=0):
    """A fresh generator."""
    return np.random.Generator(np.random.Philox(seed))


def test_the_error_is_the_one_that_chooses_finalists():
    """The report and the choice among finalists use one paired standard error."""
    view = finished(3)
    uniform = view.results.by_origin(UNIFORM)
    found = difference(view.results, view.chosen, uniform, "u", Split.CONFIRM, view.examples)
    expected = paired_error(view.results, view.chosen, uniform, view.examples)
    assert found.gain.stderr == pytest.approx(expected, rel=1e-12)
    assert found.paired


def test_the_error_of_a_known_table_of_right_and_wrong():
    """500 items, 32 won and 18 lost: +2.8 points with standard error 1.41, as in the literature's formula."""
    mine, theirs = np.zeros(500, np.float32), np.zeros(500, np.float32)
    mine[:32], theirs[32:50] = 1.0, 1.0
    study = Study(1)
    for number, values in ((0, mine), (1, theirs)):
        candidate, _ = study.add(np.full((8, 2), 0.3), point=study.space.start)
        scored = Scored({"mnist": Score(float(values.mean()), 0.01, 500)}, {}, {"mnist": values})
        study.store.ask(study.lease, candidate, Split.TEST, 1.0)
        assert isinstance(study.store.tell(study.lease, number, Split.TEST, scored, 1.0), Told)
    view = study.view()
    found = difference(view.results, 0, 1, "other", Split.TEST, view.examples, generator())
    assert found.gain.value == pytest.approx(0.028, abs=1e-7)
    assert found.gain.stderr == pytest.approx(np.sqrt((50 - 14**2 / 500) / 500**2), rel=1e-6)
    assert found.low == pytest.approx(0.028 - 1.96 * 0.0141, abs=0.003)
    assert found.high == pytest.approx(0.028 + 1.96 * 0.0141, abs=0.003)
    assert found.verdict is Verdict.BETTER


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-1, 1), min_size=2, max_size=60), st.floats(0.1, 2.0))
def test_few_values_are_resampled_like_indices(values, weight):
    """Multinomial counts and resampled indices give the same mean and spread."""
    gains = np.array(values, dtype=np.float64)
    drawn = bootstrap([(weight, gains)], generator(), 20_000)
    assert drawn.mean() == pytest.approx(weight * gains.mean(), abs=0.03 * weight)
    assert drawn.std() == pytest.approx(weight * gains.std() / np.sqrt(len(gains)), rel=0.05, abs=1e-9)


def test_many_values_are_resampled_in_bounded_parts():
    """Continuous examples: the right spread, the same numbers for the same seed, independent objectives add up."""
    gains = np.random.default_rng(3).normal(0.1, 1.0, 5000)
    drawn = bootstrap([(0.5, gains), (0.5, gains)], generator(), 2000)
    assert drawn.std() == pytest.approx(np.sqrt(0.5) * gains.std() / np.sqrt(5000), rel=0.08)
    np.testing.assert_array_equal(drawn, bootstrap([(0.5, gains), (0.5, gains)], generator(), 2000))


def test_a_lower_loss_is_a_gain():
    """For objectives to be minimised the sign follows what is better, not what is larger."""
    view = finished(2, bounded=False)
    base = next(iter(view.results.baselines().values()))
    found = difference(view.results, view.chosen, base, "base", Split.TEST, view.examples, generator())
    mine, theirs = (
        np.mean([s.value for s in view.results.outcome(n, Split.TEST).scores.values()]) for n in (view.chosen, base)
    )
    assert found.gain.value == pytest.approx(theirs - mine)
    assert found.low < found.gain.value < found.high


def test_without_examples_the_errors_are_independent_and_there_is_no_interval():
    """Nothing is claimed that the record cannot carry."""
    view = finished(2, keep=False)
    uniform = view.results.by_origin(UNIFORM)
    found = difference(view.results, view.chosen, uniform, "uniform", Split.TEST, view.examples, generator())
    errors = [s.stderr for n in (view.chosen, uniform) for s in view.results.outcome(n, Split.TEST).scores.values()]
    assert found.gain.stderr == pytest.approx(np.sqrt(np.sum(np.square(errors))) / 2)
    assert (found.low, found.high, found.paired) == (None, None, False)
    assert "not paired" in found.sentence(PERCENT)


def test_examples_whose_mean_is_not_the_score_are_not_paired():
    """A metric that is no mean of examples (F1, a correlation) gets no bootstrap of means."""
    objective = Objective("f1", Direction.MAX, low=0.0, high=1.0)
    values = np.array([0.0, 1.0], np.float32)
    assert example_gains(objective, (Score(0.9), Score(0.5)), values, values) is None
    assert example_gains(objective, (Score(0.5), Score(0.5)), values, values).tolist() == [0.0, 0.0]


def test_an_unscored_candidate_has_no_difference():
    """A split that was not scored is left out, not guessed."""
    view = finished(2)
    other = next(n for n in view.results.scored if view.results.outcome(n, Split.TEST) is None)
    assert difference(view.results, other, view.chosen, "x", Split.TEST, view.examples) is None


@pytest.mark.parametrize(
    ("gain", "paired", "verdict"),
    [
        (Estimate(0.02, 0.01), True, Verdict.BETTER),
        (Estimate(0.01, 0.01), True, Verdict.NOISE),
        (Estimate(-0.005, 0.01), True, Verdict.NOISE),
        (Estimate(-0.02, 0.01), True, Verdict.WORSE),
        (Estimate(0.0, 0.0), True, Verdict.NOISE),
        (Estimate(0.5, 0.0), False, Verdict.UNKNOWN),
    ],
)
def test_words_follow_the_error(gain, paired, verdict):
    """Better or worse needs more than one standard error; an unknown error is said to be unknown."""
    assert Difference("u", Split.TEST, gain, paired=paired).verdict is verdict


def test_a_gain_whose_interval_includes_zero_says_so():
    """One error is not significance: the sentence carries the interval and what it includes."""
    found = Difference("uniform average", Split.TEST, Estimate(0.012, 0.01), -0.008, 0.031)
    assert found.sentence(PERCENT) == (
        "test, searched against uniform average: +1.2±1.0 points, better by more than its error; "
        "95 % interval -0.8 to +3.1, which includes no difference"
    )
