"""Fronts and hypervolumes keep their definitions (golden values: methods/evaluation.md section 9, losses negated)."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.errors import SpecError
from mergesearch.pareto import (
    HypervolumeTracker,
    dominates,
    front,
    hypervolume,
    hypervolume_estimate,
    knee,
    prefer,
)

S = -np.array([(1, 3), (2, 2), (3.5, 1.5)])
Z = -np.array([(1, 4), (2, 3), (3, 2), (4, 1)])
CUBE = -np.array([(1, 2, 3), (3, 1, 2), (2, 3, 1)])


def inclusion_exclusion(points, reference):
    """Volume of the union of boxes [p, reference] by its definition, 2^n terms."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            corner = np.max(chosen, axis=0)
            total += (-1) ** (size + 1) * np.prod(np.maximum(reference - corner, 0.0))
    return total


def tables(max_rows=6, max_objectives=6):
    """Small tables with many ties: losses on a coarse grid."""
    return st.integers(1, max_objectives).flatmap(
        lambda m: st.lists(st.lists(st.integers(0, 5), min_size=m, max_size=m), min_size=1, max_size=max_rows).map(
            lambda rows: np.array(rows, dtype=float)
        )
    )


def test_golden_hypervolumes():
    """Two and three objectives give the golden values of the cards."""
    assert hypervolume(S, (0, 0)) == pytest.approx(7.25)
    assert hypervolume(Z, (0, 0)) == pytest.approx(10)
    assert hypervolume(S, (-1, -1)) == pytest.approx(1.75)
    assert hypervolume(CUBE, (0, 0, 0)) == pytest.approx(13)
    assert hypervolume(np.vstack([CUBE, [(-2, -2, -2)]]), (0, 0, 0)) == pytest.approx(14)


def test_dominates_needs_one_strict_improvement():
    """Equal losses do not dominate each other."""
    assert dominates((1, 2), (1, 3))
    assert not dominates((1, 2), (1, 2))
    assert not dominates((0, 3), (1, 2))


def test_front_keeps_equal_rows():
    """All copies of a non-dominated row stay, in order; dominated rows go."""
    assert front([(1, 2), (3, 3), (2, 1), (1, 2), (2, 2)]).tolist() == [0, 2, 3]
    assert front(np.zeros((0, 2))).tolist() == []
    assert front([(1.0,), (0.5,), (0.5,)]).tolist() == [1, 2]
    assert front([(np.inf, 0), (0, np.inf), (np.inf, np.inf)]).tolist() == [0, 1]


@given(tables(max_rows=12))
def test_front_is_its_definition(table):
    """A row is on the front exactly where no other row dominates it."""
    expected = [i for i, a in enumerate(table) if not any(dominates(b, a) for b in table)]
    assert front(table).tolist() == expected


@settings(max_examples=200)
@given(tables())
def test_hypervolume_is_the_volume_of_the_union(table):
    """Every number of objectives agrees with inclusion-exclusion, rows at the reference included."""
    reference = np.full(table.shape[1], 4.5)
    assert hypervolume(table, reference) == pytest.approx(inclusion_exclusion(table, reference))


@given(tables(max_rows=10), st.randoms(use_true_random=False), st.data())
def test_hypervolume_laws(table, random, data):
    """Order does not matter, a dominated or repeated point adds nothing, one more point never takes away."""
    reference = np.full(table.shape[1], 6.0)
    value = hypervolume(table, reference)
    order = list(range(len(table)))
    random.shuffle(order)
    assert hypervolume(table[order], reference) == pytest.approx(value)
    row = table[data.draw(st.integers(0, len(table) - 1))]
    step = data.draw(st.floats(0, 3))
    assert hypervolume(np.vstack([table, row + step]), reference) == pytest.approx(value)
    new = data.draw(st.lists(st.floats(0, 5), min_size=table.shape[1], max_size=table.shape[1]))
    assert hypervolume(np.vstack([table, new]), reference) >= value - 1e-9 * max(1.0, value)


@given(tables(max_rows=15))
def test_tracker_equals_the_whole(table):
    """After every row the tracker holds the hypervolume and the front of what it has seen."""
    reference = np.full(table.shape[1], 4.5)
    tracker = HypervolumeTracker(reference)
    for i, row in enumerate(table):
        tracker = tracker.add(row)
        seen = table[: i + 1]
        assert tracker.value == pytest.approx(hypervolume(seen, reference))
    inside = table[np.all(table < reference, axis=1)]
    expected = np.unique(inside[front(inside)], axis=0) if len(inside) else np.zeros((0, table.shape[1]))
    assert np.array_equal(np.unique(tracker.rows, axis=0), expected)


def test_tracker_is_cheap_enough_to_run_after_every_evaluation():
    """300 evaluations of 4 objectives, most of them on the front, take well under a few seconds."""
    generator = np.random.default_rng(0)
    rows = np.abs(generator.standard_normal((300, 4)))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) * generator.uniform(0.95, 1.05, (300, 1))
    tracker = HypervolumeTracker(np.full(4, 1.2))
    start = time.process_time()
    for row in rows:
        tracker = tracker.add(row)
    assert time.process_time() - start < 6.0
    value, stderr = hypervolume_estimate(rows, np.full(4, 1.2))
    assert abs(tracker.value - value) < 5 * stderr


def test_estimate_states_its_error():
    """Monte Carlo agrees with the exact value within its standard error, and works above six objectives."""
    value, stderr = hypervolume_estimate(CUBE, (0, 0, 0))
    assert abs(value - 13) < 4 * stderr
    assert stderr < 0.1
    assert hypervolume_estimate(CUBE, (0, 0, 0)) == (value, stderr)
    seven, _ = hypervolume_estimate(np.zeros((1, 7)), np.ones(7))
    assert seven == pytest.approx(1.0)
    assert hypervolume_estimate([(2.0, 2.0)], (1.0, 1.0)) == (0.0, 0.0)


def test_knee_is_the_bulge():
    """The knee is the front point furthest below the line through the extremes, whatever the units."""
    table = np.array([(0, 10), (1, 9), (2, 3), (9, 1), (10, 0), (5, 5)], dtype=float)
    assert knee(table) == 2
    assert knee(table * np.array([1e-3, 1e4])) == 2
    assert knee([(1.0, 5.0), (1.0, 4.0)]) == 1
    assert knee([(3.0,), (2.0,)]) == 1


def test_prefer_picks_by_weights():
    """The golden preference of the MAP card takes the third row; only ratios of weights matter; units can be scaled."""
    rows = -np.array([(0.9, 0.5), (0.8, 0.7), (0.6, 0.85)])
    assert prefer(rows, np.array([1, 2]) / np.sqrt(5)) == 2
    assert prefer(rows, (10, 1)) == 0
    assert prefer(rows * np.array([1.0, 1e6]), (10, 1), scale=(1.0, 1e6)) == 0
    assert prefer([(np.inf, 0.0), (1.0, 1.0)], (0, 1)) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: front([(np.nan, 1.0)]),
        lambda: front([1.0, 2.0]),
        lambda: hypervolume([(1.0, 1.0)], (2.0,)),
        lambda: hypervolume([(-np.inf, 1.0)], (2.0, 2.0)),
        lambda: hypervolume(np.zeros((1, 7)), np.ones(7)),
        lambda: knee(np.zeros((0, 2))),
        lambda: prefer([(1.0, 1.0)], (0.0, 0.0)),
        lambda: prefer([(1.0, 1.0)], (1.0, 1.0), scale=(0.0, 1.0)),
        lambda: HypervolumeTracker(np.ones(7)),
    ],
)
def test_wrong_input_gets_a_sentence(call):
    """NaN, wrong shapes and empty fronts are refused with an error of ours."""
    with pytest.raises(SpecError):
        call()
