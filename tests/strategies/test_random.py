"""The control strategy covers the box evenly and does not care about results."""

import numpy as np
from scipy.stats import qmc

from mergesearch.strategies.base import Problem, rng
from mergesearch.strategies.random import Random, SobolPoints
from mergesearch.types import Candidate, Objective


def test_points_do_not_depend_on_order():
    """The n-th point is the same whichever was asked first, and whatever was told."""
    of = Problem(5, (Objective("a"),), np.full(5, 0.5), 700)
    forward, backward = Random(of, 3, Random.Options()), Random(of, 3, Random.Options())
    later = backward.ask(600).point
    for number in range(600):
        forward.asked(Candidate(number, forward.ask(number).point))
    assert np.array_equal(forward.ask(600).point, later)


def test_points_are_balanced():
    """Each of the first 256 points has an interval of 1/256 of every axis for itself."""
    points = SobolPoints(7, seed=1)
    table = np.array([points[i] for i in range(256)])
    for axis in table.T:
        assert sorted((axis * 256).astype(int)) == list(range(256))


def test_points_are_the_same_in_any_order() -> None:
    """The n-th point of a sequence never changes, whatever was asked before it, and few are kept."""
    points, sequence = SobolPoints(5, 3), qmc.Sobol(5, scramble=True, rng=rng(3, 0, 0))
    wanted = np.vstack([sequence.random(256) for _ in range(6)])
    for index in (0, 255, 256, 700, 1500, 3, 800, 1400, 0):
        assert np.array_equal(points[index], wanted[index])
