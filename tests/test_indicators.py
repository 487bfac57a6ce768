"""Indicators keep their definitions (golden values: methods/evaluation.md section 9, scores negated)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergesearch import indicators as ind
from mergesearch.errors import SpecError
from mergesearch.pareto import front

S = -np.array([(1, 3), (2, 2), (3.5, 1.5)])
Z = -np.array([(1, 4), (2, 3), (3, 2), (4, 1)])
A, B = -np.array([(3, 3), (1, 4)]), -np.array([(2, 2), (4, 1)])
EVEN = -np.array([(0, 4), (1, 3), (3, 1), (4, 0)])
DISTANCES = (
    ind.generational_distance,
    ind.inverted_generational_distance,
    ind.generational_distance_plus,
    ind.inverted_generational_distance_plus,
)
COMPLIANT = (ind.inverted_generational_distance_plus, ind.additive_epsilon)


def fronts(rows=5):
    """Two small tables of losses on a coarse grid with as many objectives."""
    return st.integers(1, 4).flatmap(
        lambda m: st.tuples(
            *[
                st.lists(st.lists(st.integers(1, 6), min_size=m, max_size=m), min_size=1, max_size=rows).map(
                    lambda table: np.array(table, dtype=float)
                )
            ]
            * 2
        )
    )


@pytest.mark.parametrize(
    ("indicator", "value"),
    [
        (ind.generational_distance, 0.902369),
        (ind.inverted_generational_distance, 0.853553),
        (ind.generational_distance_plus, 0.833333),
        (ind.inverted_generational_distance_plus, 0.75),
        (ind.additive_epsilon, 1.0),
        (ind.multiplicative_epsilon, 1.5),
        (lambda s, z: ind.r2(s, z.min(axis=0), ind.simplex_weights(2, 10)), 0.818182),
        (lambda s, z: ind.relative_hypervolume(s, z, (0, 0)), 0.725),
    ],
)
def test_golden_values(indicator, value):
    """The values of the card."""
    assert indicator(S, Z) == pytest.approx(value, abs=1e-6)


def test_golden_coverage_and_win_rate():
    """The values of the card."""
    assert ind.coverage(A, B) == pytest.approx(0.5)
    assert ind.win_rate(A, B) == pytest.approx(0.625)


def test_golden_spread_and_spacing():
    """The values of the card: an uneven front as its own reference."""
    assert ind.spread(EVEN, EVEN) == pytest.approx(1 / 3)
    assert ind.spacing(EVEN) == pytest.approx(0.0)


def test_multiplicative_epsilon_of_positive_losses():
    """Positive losses are divided, negated scores multiplied; a mixture has no factor."""
    assert ind.multiplicative_epsilon([(2.0, 4.0)], [(1.0, 4.0)]) == pytest.approx(2.0)
    with pytest.raises(SpecError, match="above zero"):
        ind.multiplicative_epsilon([(1.0, -1.0)], [(1.0, 1.0)])


@given(fronts())
def test_a_front_is_at_no_distance_from_itself(pair):
    """Distances and the additive epsilon of a front to itself are 0, the multiplicative epsilon 1, coverage 1."""
    rows = pair[0]
    assert all(distance(rows, rows) == 0.0 for distance in DISTANCES)
    assert ind.additive_epsilon(rows[front(rows)], rows[front(rows)]) <= 0.0
    assert ind.multiplicative_epsilon(rows[front(rows)], rows[front(rows)]) == pytest.approx(1.0)
    assert ind.coverage(rows, rows) == 1.0


@given(fronts())
def test_improving_every_row_never_hurts_compliant_indicators(pair):
    """IGD+, epsilon and R2 do not get worse when each row of a front gets better."""
    rows, reference = pair
    for indicator in COMPLIANT:
        assert indicator(rows - 1.0, reference) <= indicator(rows, reference) + 1e-12
    weights, ideal = ind.simplex_weights(rows.shape[1], 3), np.zeros(rows.shape[1])
    assert ind.r2(rows - 1.0, ideal, weights) <= ind.r2(rows, ideal, weights) + 1e-12


@given(fronts())
def test_plus_distances_are_at_most_the_plain_ones(pair):
    """Only what is worse counts in GD+ and IGD+."""
    assert ind.generational_distance_plus(*pair) <= ind.generational_distance(*pair) + 1e-12
    assert ind.inverted_generational_distance_plus(*pair) <= ind.inverted_generational_distance(*pair) + 1e-12


@given(fronts())
def test_shifting_by_epsilon_covers_the_reference(pair):
    """The additive epsilon is enough, and a little less is not."""
    rows, reference = pair
    epsilon = ind.additive_epsilon(rows, reference)
    assert ind.coverage(rows - epsilon, reference) == 1.0
    assert ind.coverage(rows - epsilon + 1e-6, reference) < 1.0


@given(fronts())
def test_win_rates_of_both_sides_sum_to_at_most_one(pair):
    """Ties count for neither side."""
    assert 0.0 <= ind.win_rate(*pair) + ind.win_rate(*pair[::-1]) <= 1.0 + 1e-12


@given(st.integers(1, 4), st.integers(1, 6))
def test_simplex_weights_sum_to_one(objectives, parts):
    """Every weight vector is on the simplex, none twice."""
    weights = ind.simplex_weights(objectives, parts)
    assert weights.sum(axis=1) == pytest.approx(np.ones(len(weights)))
    assert weights.min() >= 0.0
    assert len(np.unique(weights, axis=0)) == len(weights)


def test_spread_of_one_row_on_the_reference_is_zero():
    """No gap and no distance: 0, not a division by zero."""
    assert ind.spread([(1.0, 1.0)], [(1.0, 1.0)]) == 0.0
    assert ind.spacing([(1.0, 1.0)]) == 0.0


@pytest.mark.parametrize("bad", [np.zeros((0, 2)), np.full((1, 2), np.nan), np.full((1, 2), np.inf), np.zeros((1, 3))])
def test_bad_fronts_are_refused(bad):
    """Empty, NaN, infinite or of other objectives: a sentence, not a number."""
    with pytest.raises(SpecError):
        ind.inverted_generational_distance_plus(bad, Z)


def test_empty_fronts_cover_nothing():
    """Coverage and win rate of nothing are 0."""
    nothing = np.zeros((0, 2))
    assert ind.coverage(nothing, Z) == ind.coverage(Z, nothing) == ind.win_rate(nothing, Z) == 0.0


def test_summary_holds_the_golden_values():
    """`summary` is the single functions by name."""
    found = ind.summary(S, Z, (0, 0))
    assert found["igd_plus"] == pytest.approx(0.75)
    assert found["r2"] == pytest.approx(0.818182, abs=1e-6)


@pytest.mark.parametrize("call", [lambda: ind.spread(np.zeros((1, 3)), np.zeros((1, 3))), lambda: ind.r2(S, (0,), S)])
def test_wrong_shapes_are_refused(call):
    """A spread of three objectives, an ideal of another length."""
    with pytest.raises(SpecError):
        call()


def test_reference_without_volume_is_refused():
    """No ratio to nothing."""
    with pytest.raises(SpecError, match="no hypervolume"):
        ind.relative_hypervolume(S, Z, (-9, -9))
