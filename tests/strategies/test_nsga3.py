"""NSGA-III spreads a front along reference directions, for three to eight objectives."""

from math import comb

import numpy as np
import pytest

from mergesearch.pareto import front, hypervolume
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.nsga3 import Nsga3, default_size, directions, survive
from mergesearch.strategies.random import Random
from mergesearch.types import Candidate, Direction, Objective


def search(cls, objectives, evaluations, seed, scale=1.0, dim=10):
    """Losses (n, M) of as many bowls, each with its own bottom near the middle."""
    bottoms = 0.5 + 0.15 * np.sign(np.random.default_rng(3).standard_normal((objectives, dim)))
    names = tuple(Objective(f"o{j}", Direction.MIN) for j in range(objectives))
    subject = cls(Problem(dim, names, np.full(dim, 0.5), evaluations), seed, cls.Options())
    seen = []
    for number in range(evaluations):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin)
        subject.asked(candidate)
        seen.append(np.mean(np.square(candidate.point - bottoms), axis=1) / 0.09)
        zeros = np.zeros(objectives)
        subject.tell(candidate, Observation(seen[-1] * scale, zeros, zeros + 1.0))
    return np.array(seen)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5, 6, 7, 8])
def test_directions(objectives):
    """Directions lie on the simplex, hold every axis, fit the population where that is possible, and are distinct."""
    for most in (4, 12, 50, 150):
        rows = directions(objectives, most)
        assert rows.shape[1] == objectives
        assert np.all(rows >= 0.0)
        assert np.allclose(rows.sum(axis=1), 1.0)
        assert objectives <= len(rows) <= max(most, objectives)
        assert len(np.unique(rows.round(9), axis=0)) == len(rows)
        assert all(np.any(np.all(np.isclose(rows, axis), axis=1)) for axis in np.eye(objectives))


def test_two_layers_from_four_objectives():
    """The paper's directions for eight objectives: 3 and 2 partitions make 156; three objectives have one layer."""
    assert len(directions(8, 156)) == comb(10, 3) + comb(9, 2) == 156
    assert len(directions(3, 91)) == 91
    inner = directions(8, 156)[comb(10, 3) :]
    assert inner.min() == pytest.approx(1 / 16)


def test_beats_random():
    """More hypervolume than random points (median of seeds) for three objectives."""
    volumes = {
        cls: np.median([hypervolume(s[front(s)], np.ones(3)) for s in (search(cls, 3, 200, k) for k in range(3))])
        for cls in (Nsga3, Random)
    }
    assert volumes[Nsga3] > 1.2 * volumes[Random]


def test_eight_objectives_improve():
    """With eight objectives the later half has lower mean losses than random points."""
    ours, theirs = search(Nsga3, 8, 300, 0)[150:], search(Random, 8, 300, 0)[150:]
    assert ours.mean() < 0.8 * theirs.mean()


def test_units_do_not_matter():
    """Losses in other units give the same points."""
    a = search(Nsga3, 2, 60, 0)
    for scale in (np.array([1024.0, 1.0]), np.array([2.0**-20, 2.0**20])):
        assert np.allclose(a, search(Nsga3, 2, 60, 0, scale))


def test_survivors_are_spread():
    """Of a line of points the survivors reach both ends and the middle, though half of them crowd one end."""
    t = np.concatenate([np.linspace(0.0, 0.05, 30), np.linspace(0.05, 1.0, 30)])
    losses = np.column_stack([t, 1.0 - t])
    kept, _ = survive(directions(2, 8), losses, 8, np.random.default_rng(0))
    left = np.sort(t[kept])
    assert left[0] < 0.05
    assert left[-1] > 0.95
    assert np.diff(left).max() < 0.25


def test_population_grows_with_the_budget():
    """12 for small budgets, about 50 for 1,000, never above 150."""
    assert [default_size(n) for n in (0, 300, 1_000, 10**6)] == [12, 28, 51, 150]
