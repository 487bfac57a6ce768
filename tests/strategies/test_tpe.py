"""TPE leans towards what was good, spreads what is pending, and leaves Optuna's own state alone."""

import numpy as np
import optuna
import pytest

from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.tpe import Tpe
from mergesearch.types import Candidate, Direction, Objective

COST = (Objective("cost", Direction.MIN),)


def filled(seed=0, dim=3, results=40, **options):
    """A strategy that was told `results` evaluations of a bowl at 0.8."""
    subject = Tpe(Problem(dim, COST, np.full(dim, 0.5), 100), seed, Tpe.Options(**options))
    for number in range(results):
        candidate = Candidate(number, subject.ask(number).point)
        subject.asked(candidate)
        loss = float(np.sum(np.square(candidate.point - 0.8)))
        subject.tell(candidate, Observation(np.array([loss]), np.zeros(1), np.ones(1)))
    return subject


@pytest.mark.parametrize("multivariate", [True, False])
def test_moves_towards_the_optimum(multivariate):
    """After 60 results its points and its recommendation are nearer to the optimum than the start (median of seeds)."""
    subjects = [filled(seed, results=60, multivariate=multivariate) for seed in range(3)]
    start = np.linalg.norm(np.full(3, 0.5) - 0.8)
    assert np.median([np.linalg.norm(s.ask(60).point - 0.8) for s in subjects]) < 0.6 * start
    assert np.median([np.linalg.norm(s.recommend() - 0.8) for s in subjects]) < 0.6 * start


def test_pending_candidates_count_as_bad():
    """With the constant liar the next point avoids what is being evaluated, without it it does not care."""
    for liar in (True, False):
        subject = filled(constant_liar=liar)
        before = subject.ask(60).point
        for number in range(40, 60):
            subject.asked(Candidate(number, before))
        assert np.array_equal(before, subject.ask(60).point) == (not liar)


def test_optuna_is_left_as_it_was():
    """Its verbosity does not change."""
    before = optuna.logging.get_verbosity()
    filled(results=12).ask(12)
    assert optuna.logging.get_verbosity() == before


def test_several_objectives_are_weighed():
    """Weights decide which of two opposed objectives is followed."""
    found = []
    for weights in ((1.0, 0.0), (0.0, 1.0)):
        objectives = tuple(Objective(f"o{i}", Direction.MIN, weight=w) for i, w in enumerate(weights))
        subject = Tpe(Problem(2, objectives, np.full(2, 0.5), 60), 0, Tpe.Options())
        for number in range(60):
            candidate = Candidate(number, subject.ask(number).point)
            subject.asked(candidate)
            x = candidate.point[0]
            subject.tell(candidate, Observation(np.array([x, -x]), np.zeros(2), np.ones(2)))
        found.append(subject.recommend()[0])
    assert found[0] < 0.2
    assert found[1] > 0.8
