"""What strategies learn from told baselines."""

import numpy as np

from mergesearch.plugins import parse_options
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.gradient_map import GradientMap
from mergesearch.strategies.reference import Reference
from mergesearch.strategies.surrogates.gradient_front import focused, spread_order
from mergesearch.types import Candidate, Objective


def told(reference, origin, *losses):
    """The reference after one more baseline."""
    return reference.after(Candidate(0, None, origin), Observation(np.array(losses), np.zeros(2), np.ones(2)))


def test_the_corner_is_a_tenth_worse_than_the_base():
    """Of the way from base to best expert, in each objective; nothing is known before both are told."""
    reference = told(Reference(), "baseline:base", 0.5, 0.4)
    assert reference.corner is None
    reference = told(told(reference, "baseline:expert:a", 0.1, 0.6), "baseline:expert:b", 0.7, 0.3)
    reference = told(reference, "baseline:uniform", 0.0, 0.0)
    assert np.allclose(reference.corner, [0.54, 0.41])
    assert reference.after(Candidate(0, None, "baseline:base"), None) is reference


def test_preferences_gather_where_the_corner_is_beaten():
    """Of a spread of weights those of the middle beat it; the new ones lie near them."""
    weights = np.column_stack([np.linspace(0, 1, 21), np.linspace(1, 0, 21)])
    losses = weights[:, ::-1]  # who weighs an objective much has little of its loss
    near = focused(weights, losses, np.array([0.6, 0.6]), np.random.default_rng(0))
    assert near.shape == (10, 2)
    assert np.allclose(near.sum(axis=1), 1.0)
    assert np.abs(np.median(near[:, 0]) - 0.5) < 0.15


def test_volume_counts_within_the_corner_alone():
    """A point far along one axis adds much to the whole front, and nothing within the corner."""
    known = np.array([[0.5, 0.5]])
    predicted = np.array([[0.05, 2.0], [0.45, 0.45]])
    assert spread_order(predicted, known, 1, np.array([0.6, 0.6]))[0] == 1


def test_baselines_change_what_is_asked_and_a_replay_agrees():
    """Told in the log, they move every second proposal; the same log gives the same ones."""
    objectives = (Objective("a"), Objective("b"))
    of = Problem(6, objectives, np.full(6, 0.4), 60, gradients=("loss",))
    base = np.full(2, 0.3)

    def play(with_baselines):
        subject = GradientMap(of, 0, parse_options("gradient_map", GradientMap.Options, {}))
        if with_baselines:
            for origin, losses in (("baseline:base", base), ("baseline:expert:a", base - 0.2)):
                subject.tell(Candidate(0, None, origin), Observation(losses, np.zeros(2), np.ones(2)))
        points = []
        for number in range(14):
            proposal = subject.ask(number)
            candidate = Candidate(number, proposal.point, proposal.origin, proposal.request)
            subject.asked(candidate)
            points.append(proposal.point.tobytes())
            apart = np.array([candidate.point - 0.2, candidate.point - 0.7])
            values = np.mean(np.square(apart), axis=1)
            slopes = 2.0 * apart / 6.0 if proposal.request.gradient else None
            guides = values if proposal.request.gradient else None
            subject.tell(candidate, Observation(values, np.zeros(2), np.ones(2), guides, slopes))
        return points

    assert play(True) == play(True)
    assert play(True) != play(False)
