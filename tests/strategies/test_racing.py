"""Racing: losers end early, nothing is scored twice, the inner strategy learns of every candidate."""

import numpy as np
import pytest

from mergesearch.errors import SpecError
from mergesearch.plugins import parse_options
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.racing import Racing
from mergesearch.types import Candidate, Objective

N = 400
ONE = (Objective("acc", low=0.0, high=1.0),)


def make(evaluations=60, objectives=ONE, dim=4, **options):
    """A race over CMA-ES, or `inner`."""
    of = Problem(dim, objectives, np.full(dim, 0.5), evaluations)
    return of, Racing(of, 3, parse_options("racing", Racing.Options, options))


def observe(candidate, difficulty, objectives=1):
    """Right or wrong per example: harder the further from 0.7. Every candidate has the same examples."""
    chance = 1.0 / (1.0 + np.exp(8.0 * np.mean(np.square(candidate.point - 0.7)) * 4 - 1.5 + 2 * difficulty))
    right = (np.abs(np.sin(1000 * difficulty)) < chance).astype(np.float32)
    rows = np.arange(N) if candidate.request.continues is not None else candidate.request.rows(N)
    if candidate.request.continues is not None:
        rows = rows[: round(candidate.request.covers * N)]
    examples = tuple((-right[rows]).astype(np.float32) for _ in range(objectives))
    losses = np.array([float(e.mean()) for e in examples])
    return Observation(losses, np.full(objectives, 0.02), np.full(objectives, float(len(rows))), examples=examples)


def play(of, subject, budget, workers=1):
    """Ask and tell until the cost is spent; returns every candidate asked."""
    difficulty = np.random.default_rng(1).normal(size=N)
    spent, number, asked, busy = 0.0, 0, [], []
    while True:
        proposal = subject.ask(number) if len(busy) < workers else None
        cost = 0.0 if proposal is None else proposal.request.cost(3.0)
        if proposal is not None and spent + cost <= budget:
            candidate = Candidate(number, proposal.point, proposal.origin, proposal.request, cost)
            subject.asked(candidate)
            busy.append(candidate)
            asked.append(candidate)
            spent, number = spent + cost, number + 1
        elif busy:
            done = busy.pop(0)
            subject.tell(done, observe(done, difficulty, len(of.objectives)))
        else:
            return asked


@pytest.mark.parametrize("workers", [1, 4])
def test_losers_end_early_and_nothing_is_scored_twice(workers):
    """For one budget many more candidates are looked at; the windows of one candidate follow each other."""
    of, subject = make()
    asked = play(of, subject, 60, workers)
    begun = [c for c in asked if c.request.continues is None]
    complete = [c for c in asked if c.request.complete]
    assert len(begun) > 90
    assert 10 <= len(complete) < len(begun) / 2
    assert len({c.request.continues for c in asked if c.request.continues is not None}) == len(asked) - len(begun)
    by_number = {c.number: c for c in asked}
    for candidate in asked:
        if candidate.request.continues is not None:
            before = by_number[candidate.request.continues]
            assert before.request.covers == pytest.approx(candidate.request.offset)
            assert np.array_equal(before.point, candidate.point)
    figures = subject.diagnostics()
    assert figures["racing.stopped"] > 40
    assert figures["racing.saved"] == pytest.approx(
        len(begun) - sum(c.cost for c in asked), abs=1.0 + workers
    )  # but for those on their way


def test_the_best_found_is_as_good_as_with_every_candidate_in_full():
    """At equal cost the recommended point of a raced CMA-ES is nearer to the optimum, in the median of three seeds."""
    raced, plain = [], []
    for seed in range(3):
        for kept, rungs in ((raced, (0.2, 0.5)), (plain, (0.999,))):
            of = Problem(4, ONE, np.full(4, 0.3), 100)
            options = parse_options("racing", Racing.Options, {"rungs": rungs})
            subject = Racing(of, seed, options)
            play(of, subject, 100)
            kept.append(float(np.abs(subject.recommend() - 0.7).mean()))
    assert np.median(raced) < 1.1 * np.median(plain)


def test_a_front_keeps_who_is_best_in_one_objective():
    """A candidate is stopped only by one that is better with confidence in every objective."""
    objectives = (Objective("a", low=0.0, high=1.0), Objective("b", low=0.0, high=1.0))
    of, subject = make(objectives=objectives, inner={"kind": "random"})
    examples = (np.full(N, -1.0, np.float32), np.full(N, 0.0, np.float32))
    first = Candidate(0, of.start, "start")
    subject.asked(first)
    subject.tell(first, Observation(np.array([-1.0, 0.0]), np.zeros(2), np.full(2, float(N)), examples=examples))
    for number, (a, b), promoted in ((1, (0.0, -1.0), True), (2, (-0.4, 0.2), False)):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin, proposal.request)
        subject.asked(candidate)
        part = round(0.2 * N)
        seen = (np.full(part, a, np.float32), np.full(part, b, np.float32))
        subject.tell(candidate, Observation(np.array([a, b]), np.zeros(2), np.full(2, float(part)), examples=seen))
        following = subject.ask(number + 1)
        assert (following.request.continues == number) is promoted
        if promoted:
            again = Candidate(9, following.point, following.origin, following.request)
            subject.asked(again)
            subject.tell(again, None)


def test_without_examples_every_candidate_is_promoted():
    """A scorer that keeps no per-example scores cannot be raced on: all go on to the end."""
    _, subject = make()
    for number in range(12):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin, proposal.request)
        subject.asked(candidate)
        subject.tell(candidate, Observation(np.array([-0.5 + number]), np.array([0.1]), np.array([80.0])))
    assert subject.diagnostics()["racing.stopped"] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rungs": [0.5, 0.2]}, "rise"),
        ({"rungs": []}, "rise"),
        ({"inner": {}}, "needs its kind"),
        ({"inner": {"kind": "racing"}}, "cannot be an inner strategy"),
        ({"inner": {"kind": "cma_es", "sigma": 1}}, "sigma"),
    ],
)
def test_bad_options_are_refused(options, words):
    """With a sentence that says what is wrong."""
    with pytest.raises(SpecError, match=words):
        make(**options)
