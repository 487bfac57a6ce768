"""Nevergrad's optimizers can be asked ahead, resumed from the log, and leave the global random states alone."""

import random

import numpy as np
import pytest

from mergesearch.errors import SpecError
from mergesearch.plugins import parse_options
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.nevergrad import Nevergrad
from mergesearch.strategies.random import Random
from mergesearch.types import Candidate, Direction, Objective

COST = (Objective("cost", Direction.MIN),)


def bowl(point):
    """A bowl with its bottom at 0.65."""
    return float(np.mean(np.square(point - 0.65)))


def run(subject, evaluations, first=0, log=None):
    """Losses of a search, and its log."""
    log, losses = [] if log is None else log, []
    for number in range(first, first + evaluations):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin)
        losses.append(bowl(candidate.point))
        log.append(candidate)
        subject.asked(candidate)
        subject.tell(candidate, Observation(np.array([losses[-1]]), np.zeros(1), np.ones(1)))
    return losses, log


def new(dim=6, evaluations=60, seed=0, **options):
    """A strategy in the middle of a cube."""
    return Nevergrad(Problem(dim, COST, np.full(dim, 0.4), evaluations), seed, Nevergrad.Options(**options))


@pytest.mark.parametrize("name", ["CMA", "TwoPointsDE", "NGOpt", "OnePlusOne", "LognormalDiscreteOnePlusOne", "TBPSA"])
def test_optimizers_are_resumed_from_the_log(name):
    """Whatever an optimizer draws from, the global generators included, a replay proposes the same."""
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 (the point of the test)
    ours, theirs = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    subject = new(optimizer=name, evaluations=40)
    _, log = run(subject, 30)
    again = new(optimizer=name, evaluations=40)
    for candidate in log:
        again.asked(candidate)
        again.tell(candidate, Observation(np.array([bowl(candidate.point)]), np.zeros(1), np.ones(1)))
    assert np.array_equal(again.ask(30).point, subject.ask(30).point)
    assert np.array_equal(again.recommend(), subject.recommend())
    assert np.array_equal(np.random.get_state()[1], ours)  # noqa: NPY002
    assert random.getstate() == theirs


def test_beats_random():
    """The default finds a lower bottom than random points do (median of seeds)."""
    ours = [min(run(new(8, 80, seed), 80)[0]) for seed in range(3)]
    theirs = [
        min(run(Random(Problem(8, COST, np.full(8, 0.4), 80), seed, Random.Options()), 80)[0]) for seed in range(3)
    ]
    assert np.median(ours) < 0.5 * np.median(theirs)


def test_recommends_what_it_found():
    """The recommendation is better than the start."""
    subject = new()
    assert subject.recommend() is None
    run(subject, 60)
    assert bowl(subject.recommend()) < bowl(np.full(6, 0.4))


def test_failures_are_the_worst():
    """A half of the box in which everything fails is left."""
    subject = new(4, 100)
    for number in range(100):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin)
        subject.asked(candidate)
        told = Observation(np.array([bowl(candidate.point)]), np.zeros(1), np.ones(1))
        subject.tell(candidate, None if candidate.point[0] < 0.38 else told)
    assert subject.recommend()[0] > 0.38
    assert subject.diagnostics()["failed"] > 0


def test_unknown_optimizers_are_refused():
    """A wrong name gets the nearest one; optimizers that wait for results, or lack a package, are refused with why."""
    for name, says in (("TwoPointDE", "did you mean 'TwoPointsDE'"), ("Cobyla", "waits for each result")):
        with pytest.raises(SpecError, match=says):
            parse_options("strategy nevergrad", Nevergrad.Options, {"optimizer": name})
