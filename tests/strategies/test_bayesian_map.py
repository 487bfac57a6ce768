"""Adaptive MAP: unvisited places are the least sure, awaited ones count as visited, and it beats the control."""

import numpy as np
import pytest
from strategies.test_quadratic import COSTS, bowl, search

from mergesearch.pareto import front, hypervolume
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.bayesian_map import BayesianMap
from mergesearch.types import Candidate, Direction, Objective


def test_unvisited_regions_score_highest():
    """The card's pitfall: where no point ever was, uncertainty is greatest and not zero; a visit lowers it."""
    of = Problem(2, COSTS, np.full(2, 0.5), 60)
    subject = BayesianMap(of, 0, BayesianMap.Options(half_width=0.5))
    assert np.allclose(subject.uncertainty(np.random.default_rng(0).random((5, 2))), 1.0)
    for number in range(12):  # all in the lower left corner
        candidate = Candidate(number, np.full(2, 0.02 * number))
        subject.asked(candidate)
        subject.tell(candidate, Observation(np.ones(2), np.zeros(2), np.ones(2)))
    corner, far = subject.uncertainty(np.array([(0.1, 0.1), (0.95, 0.95)]))
    assert far > 0.8 > 0.4 > corner
    subject.asked(Candidate(12, np.full(2, 0.95)))
    assert subject.uncertainty(np.full((1, 2), 0.95))[0] < 0.4


def test_samples_go_where_nothing_was():
    """Points chosen by uncertainty lie further from all earlier ones than random points of the box do."""
    of = Problem(4, COSTS, np.full(4, 0.5), 50)
    _, points, _, origins = search("bayesian_map", lambda x, i: np.array([x.sum(), -x.sum()]), of)
    chosen = [i for i, origin in enumerate(origins) if origin == "sample"]
    gaps = [np.min(np.linalg.norm(points[:i] - points[i], axis=1)) for i in chosen]
    drawn = 0.25 + 0.5 * np.random.default_rng(0).random((len(chosen), 4))
    random = [np.min(np.linalg.norm(points[:i] - x, axis=1)) for i, x in zip(chosen, drawn, strict=True)]
    assert np.mean(gaps) > np.mean(random)
    assert 15 <= len(chosen) <= 25


def test_front_beats_random():
    """Two objectives in six axes: a larger hypervolume than Sobol points have, in every one of three seeds."""
    for seed in range(3):
        true = [bowl(6, 10 * seed + j) for j in range(2)]
        of = Problem(6, COSTS, np.full(6, 0.5), 50)
        volumes = []
        for kind in ("bayesian_map", "random"):
            losses = search(kind, lambda x, i, true=true: np.array([f(x) for f in true]), of, seed)[2]
            volumes.append(hypervolume(losses[front(losses)], (1.0, 1.0)))
        assert volumes[0] > volumes[1]


def test_more_axes_than_the_published_limit():
    """Nine axes, where the published code supports six: its R² is shown and the optimum within the box is found."""
    of = Problem(9, (Objective("cost", Direction.MIN),), np.full(9, 0.5), 80)
    subject, _, _, _ = search("bayesian_map", lambda x, i: np.array([np.sum(np.square(x - 0.6))]), of)
    assert subject.diagnostics()["r2.cost"] > 0.95
    assert subject.recommend() == pytest.approx(np.full(9, 0.6), abs=0.03)
