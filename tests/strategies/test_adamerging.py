"""AdaMerging follows the entropy's gradient, ties experts on request, and notices a collapse."""

from itertools import pairwise

import numpy as np
import pytest
from strategies.learning import Bowl, again, run, space

from mergesearch.strategies.base import Observation
from mergesearch.strategies.learning.adam import Adam
from mergesearch.strategies.make import make_strategy
from mergesearch.types import Candidate

X = np.array([1.0, -0.5])
W0 = np.array([[0.2, 0.0, -0.1], [0.0, 0.1, 0.3]])
TAU = np.array([[[1.0, -0.5, 0.0], [0.2, 0.1, 0.0]], [[-0.3, 0.4, 0.1], [0.0, -1.0, 0.5]]])


def entropy(values):
    """Entropy of one layer's predictions, its gradient by the coefficients (2,), and the probabilities (3,)."""
    z = X @ (W0 + np.tensordot(values, TAU, 1))
    p = np.exp(z - z.max())
    p /= p.sum()
    h = -float(p @ np.log(p))
    return h, (X @ TAU) @ (-p * (np.log(p) + h)), p


class Layer(Bowl):
    """One layer, whose metric is its entropy."""

    def __call__(self, candidate):
        h, slope, _ = entropy(self.values(candidate.point))
        losses, slopes, noise, n = np.array([h, h]), np.array([slope, slope]), np.full(2, 1e-6), np.full(2, 64.0)
        return Observation(losses, noise, n, *((losses, slopes) if candidate.request.gradient else ()))


def test_golden_entropy():
    """The card's numbers for one layer, and its gradient against finite differences."""
    h, slope, p = entropy(np.array([0.3, 0.3]))
    assert p == pytest.approx([0.448092, 0.323759, 0.228149], abs=1e-6)
    assert h == pytest.approx(1.061979, abs=1e-6)
    assert slope == pytest.approx([-0.116253, 0.039784], abs=1e-6)
    finite = [(entropy(0.3 + d)[0] - entropy(0.3 - d)[0]) / 2e-5 for d in 1e-5 * np.eye(2)]
    assert slope == pytest.approx(finite, abs=1e-8)


def test_steps_against_the_entropy():
    """From (0.3, 0.3) the first goes up and the second down, by about the learning rate in a step, never by more."""
    done = run("adamerging", Layer(np.zeros(2), space(2, 1)), 60)
    points = [c.point for c in done.told("gradient")]
    assert points[20][0] > 0.4
    assert points[20][1] < 0.2
    assert max(np.abs(b - a).max() for a, b in pairwise(points)) < 0.02 + 8 * 1e-3  # jitter of both included
    assert entropy(done.strategy.recommend())[0] < 0.97


def test_adam_moves_by_the_rate():
    """The first direction is the sign of the gradient; a constant gradient keeps it."""
    adam = Adam(2)
    for _ in range(5):
        assert adam.direction(np.array([1e-3, -5.0])) == pytest.approx([1.0, -1.0], abs=1e-4)


class Collapse(Bowl):
    """A loss that wants all of expert 0 and nothing of expert 1, and a metric that does not care."""

    def __call__(self, candidate):
        found = super().__call__(candidate)
        if found.gradients is None:
            return Observation(np.zeros(2), np.full(2, 0.1), found.n)
        slope = np.tile([-1.0, 1.0, 0.0], 4)
        guide = float(slope @ candidate.point)
        return Observation(np.zeros(2), np.full(2, 0.1), found.n, np.full(2, guide), np.array([slope, slope]))


def test_a_collapse_is_noticed():
    """One expert's coefficients at 0 while another's are at the bound: it stops and says so; for 'kl' it goes on."""
    collapse = Collapse(np.zeros(12), space())
    done = run("adamerging", collapse, 60, learning_rate=0.03)
    assert any("collapsed" in note for note in done.strategy.notes())
    assert again("adamerging", collapse.problem(), done.log, learning_rate=0.03).notes() == done.strategy.notes()
    assert done.strategy.diagnostics()["progress"] < 1.0
    assert not run("adamerging", collapse, 60, learning_rate=0.03, loss="kl").strategy.notes()


def test_task_wise_moves_all_groups_alike():
    """`tie: expert`: groups of an expert keep one coefficient; without it they part."""
    bowl = Bowl(np.linspace(0.1, 0.9, 12), space(), noise=0.02)
    for tie, apart in (("expert", False), ("group", True)):
        done = run("adamerging", bowl, 60, loss="loss", tie=tie)
        values = done.told("monitor")[-1].point.reshape(4, 3)
        assert (np.ptp(values, axis=0).max() > 0.05) == apart


def test_balance_scales_each_objective():
    """`balance`: an objective whose loss is ten times as large no longer decides alone."""

    class Uneven(Bowl):
        def __call__(self, candidate):
            found = super().__call__(candidate)
            if found.gradients is None:
                return Observation(np.zeros(2), np.full(2, 0.1), found.n)
            one, other = candidate.point - 0.9, candidate.point - 0.1
            slopes = np.array([10.0 * one, other])
            guides = np.array([10.0 * (one**2).sum() / 2, (other**2).sum() / 2])
            return Observation(np.zeros(2), np.full(2, 0.1), found.n, guides, slopes)

    ends = {}
    for balance in (False, True):
        subject = make_strategy(
            "adamerging", Bowl(np.zeros(3), space(3, 1, 0.5)).problem(), 0, {"balance": balance, "loss": "loss"}
        )
        bowl = Uneven(np.zeros(3), space(3, 1, 0.5))
        for number in range(60):
            proposal = subject.ask(number)
            candidate = Candidate(number, proposal.point, proposal.origin, proposal.request)
            subject.asked(candidate)
            subject.tell(candidate, bowl(candidate))
        ends[balance] = float(candidate.point.mean())
    assert ends[False] > 0.7
    assert ends[True] == pytest.approx(0.5, abs=0.05)
