"""NSGA-II starts around the start, needs no barrier, and finds fronts that random points do not."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.pareto import front, hypervolume
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.nsga2 import Nsga2, default_size, survive
from mergesearch.strategies.random import Random
from mergesearch.types import Candidate, Direction, Objective

TWO = (Objective("a", Direction.MIN), Objective("b", Direction.MIN))


def bowls(point):
    """Two bowls with bottoms at 0.35 and 0.65."""
    return np.array([np.mean(np.square(point - 0.35)), np.mean(np.square(point - 0.65))]) / 0.09


def search(cls, evaluations, seed, dim=12, workers=1, losses=bowls, **options):
    """(strategy, losses (n, 2)) of a search with `workers` evaluations at a time, ending in a shuffled order."""
    subject = cls(Problem(dim, TWO, np.full(dim, 0.5), evaluations), seed, cls.Options(**options))
    shuffle, busy, seen = np.random.default_rng(seed), [], []
    for number in range(evaluations):
        proposal = subject.ask(number)
        busy.append(Candidate(number, proposal.point, proposal.origin))
        subject.asked(busy[-1])
        if len(busy) >= workers:
            done = busy.pop(int(shuffle.integers(len(busy))))
            seen.append(losses(done.point))
            subject.tell(done, Observation(seen[-1], np.zeros(2), np.ones(2)))
    return subject, np.array(seen)


def volume(seen):
    """Hypervolume below 1, where the start's own losses lie near 0.25."""
    return hypervolume(seen[front(seen)], np.ones(2))


def test_beats_random():
    """More hypervolume than random points (median of seeds), with one worker and with more than a population."""
    random = np.median([volume(search(Random, 200, s)[1]) for s in range(3)])
    for workers in (1, 40):
        assert np.median([volume(search(Nsga2, 200, s, workers=workers)[1]) for s in range(3)]) > random + 0.1


def test_starts_around_the_start():
    """The first population lies around the start, as wide as asked."""
    subject = Nsga2(Problem(50, TWO, np.full(50, 0.5), 400), 0, Nsga2.Options(population_size=20, spread=0.1))
    points = np.array([subject.ask(n).point for n in range(1, 20)])
    assert abs(points.std() - 0.1) < 0.01


def test_seeds_are_in_the_first_population():
    """Up to a quarter of the first population are the problem's seeds."""
    seeds = tuple(np.full(3, v) for v in (0.1, 0.2, 0.9))
    subject = Nsga2(Problem(3, TWO, np.full(3, 0.5), 100, seeds), 0, Nsga2.Options(population_size=8))
    origins = [subject.ask(n).origin for n in range(8)]
    assert origins == ["start", "seed", "seed", *["design"] * 5]
    assert np.array_equal(subject.ask(2).point, seeds[1])


def test_no_barrier():
    """While the first population is awaited more points are drawn; afterwards children, without waiting."""
    subject = Nsga2(Problem(3, TWO, np.full(3, 0.5), 100), 0, Nsga2.Options(population_size=4))
    asked = [Candidate(n, subject.ask(n).point) for n in range(10)]
    for candidate in asked:
        subject.asked(candidate)
    for candidate in asked[3:6]:
        subject.tell(candidate, Observation(bowls(candidate.point), np.zeros(2), np.ones(2)))
    assert subject.ask(10).origin == "design"
    subject.tell(asked[0], Observation(bowls(asked[0].point), np.zeros(2), np.ones(2)))
    assert subject.ask(10).origin == "child"


def test_failures_do_not_enter():
    """Failed candidates fill no place in the population."""
    subject = Nsga2(Problem(2, TWO, np.full(2, 0.5), 100), 0, Nsga2.Options(population_size=4))
    for number in range(12):
        candidate = Candidate(number, subject.ask(number).point)
        subject.asked(candidate)
        subject.tell(candidate, None)
    assert subject.ask(12).origin == "design"
    assert subject.diagnostics()["failed"] == 12.0


def test_population_grows_with_the_budget():
    """10 for small budgets, about 50 for 1,000, never above 100."""
    assert [default_size(n) for n in (0, 100, 300, 1_000, 10**6)] == [10, 16, 28, 51, 100]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 12))
def test_survivors_are_the_best_ranks(seed, count, size):
    """Nobody survives whom a lost one dominates; as many survive as there is room for."""
    losses = np.random.default_rng(seed).integers(0, 6, (count, 2)).astype(float)
    kept, merits = survive(losses, size, np.random.default_rng(0))
    assert len(kept) == len(set(kept.tolist())) == len(merits) == min(size, count)
    lost = np.setdiff1d(np.arange(count), kept)
    for i in lost:
        for j in kept:
            assert not (np.all(losses[i] <= losses[j]) and np.any(losses[i] < losses[j]))


@pytest.mark.parametrize("dim", [24, 384])
def test_asks_are_cheap(dim):
    """Some milliseconds of processor time per evaluation at most, with hundreds of axes too."""
    begin = time.process_time()
    search(Nsga2, 300, 0, dim=dim)
    assert time.process_time() - begin < 300 * 0.01
