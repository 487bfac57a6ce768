"""The process finds optima of smooth functions, recommends by its posterior, and keeps concurrent points apart."""

import numpy as np
import pytest

from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.gp import Gp, TrustRegion
from mergesearch.strategies.surrogates.acquisition import Apart, Feasibility, LogImprovement, maximise
from mergesearch.strategies.surrogates.gaussian_process import Hyper, posterior
from mergesearch.types import Candidate, Direction, Objective

LOSS = (Objective("loss", Direction.MIN),)


def branin(x):
    """On the unit square; 0.397887 at its three minima, range about 308."""
    a, b = 15.0 * x[0] - 5.0, 15.0 * x[1]
    bowl = b - 5.1 / (4 * np.pi**2) * a * a + 5 / np.pi * a - 6
    return float(bowl**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a) + 10)


def quadratic(dim, seed, condition=100.0):
    """A shifted, rotated quadratic whose mean over the cube is 1 (measured.md M8)."""
    draw = np.random.default_rng(1000 + seed)
    turn, _ = np.linalg.qr(draw.standard_normal((dim, dim)))
    optimum, A = draw.uniform(0.2, 0.8, dim), turn * np.geomspace(1, condition, dim) @ turn.T
    points = draw.uniform(size=(2000, dim)) - optimum
    scale = np.einsum("ij,jk,ik->i", points, A, points).mean()
    return lambda x: float((x - optimum) @ A @ (x - optimum) / scale)


def searched(function, dim, evaluations, seed=0, sd=0.0, **options):
    """A strategy that was told so many evaluations, with noise of a standard deviation that it knows."""
    subject = Gp(Problem(dim, LOSS, np.full(dim, 0.5), evaluations), seed, Gp.Options(**options))
    draw = np.random.default_rng(seed)
    for number in range(evaluations):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin)
        subject.asked(candidate)
        loss = np.array([function(candidate.point) + sd * draw.standard_normal()])
        subject.tell(candidate, Observation(loss, np.array([sd]), np.ones(1)))
    return subject


def test_branin():
    """Within a thousandth of the range in 40 evaluations, the median of three seeds."""
    found = [branin(searched(branin, 2, 40, seed, draws=512, restarts=3, starts=3).recommend()) for seed in range(3)]
    assert np.median(found) < 0.397887 + 0.308


def test_noisy_quadratic_in_24_axes():
    """60 evaluations with noise bring the recommendation below 0.12 of a random point's loss."""
    f = quadratic(24, 1)
    assert f(searched(f, 24, 60, 1, sd=0.02, draws=256, restarts=2, starts=3).recommend()) < 0.12 < f(np.full(24, 0.5))


def test_recommends_by_the_model_not_by_luck():
    """A lucky score with a large standard error, far from the bowl's bottom, is not recommended."""
    subject = searched(lambda x: float(np.sum(np.square(x - 0.6))), 2, 20, draws=128, restarts=1, starts=2)
    lucky = Candidate(20, np.array([0.1, 0.9]), "elsewhere")
    subject.tell(lucky, Observation(np.array([-0.3]), np.array([0.5]), np.ones(1)))
    assert np.abs(subject.recommend() - 0.6).max() < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_concurrent_asks_spread(seed):
    """Eight asks in a row after 12 results keep apart by a twentieth of the square's diagonal."""
    subject = searched(branin, 2, 12, seed, draws=512, startup=8)
    batch = []
    for number in range(12, 20):
        batch.append(subject.ask(number).point)
        subject.asked(Candidate(number, batch[-1], "sample"))
    gaps = [np.linalg.norm(a - b) for i, a in enumerate(batch) for b in batch[:i]]
    assert min(gaps) > 0.05 * np.sqrt(2.0)


def test_apart_leaves_something():
    """Where no candidate is far enough, one is chosen all the same."""
    model = posterior(np.array([[0.2], [0.9]]), np.array([[1.0], [0.0]]), np.full(2, 1e-4), Hyper(np.full(1, 0.3)))
    target, tried = LogImprovement.of(model, Feasibility.of(model.points, np.empty((0, 1)))), np.array([[0.3], [0.5]])
    low, high = np.zeros(1), np.ones(1)
    free = maximise(target, tried, low, high)
    assert abs(maximise(target, tried, low, high, apart=Apart(free[None, :], 0.1))[0] - free[0]) > 0.1
    assert 0.0 <= maximise(target, tried, low, high, apart=Apart(free[None, :], 2.0))[0] <= 1.0


def test_a_corner_that_fails_is_left():
    """Where every point beyond x0 = 0.7 fails, later points keep to that border, though the loss falls beyond it."""
    subject = Gp(Problem(2, LOSS, np.full(2, 0.5), 40), 1, Gp.Options(draws=256, restarts=2, starts=2))
    points = []
    for number in range(40):
        points.append(subject.ask(number).point)
        candidate = Candidate(number, points[-1], "sample")
        subject.asked(candidate)
        failed = points[-1][0] > 0.7
        seen = None if failed else Observation(np.array([-points[-1][0]]), np.zeros(1), np.ones(1))
        subject.tell(candidate, seen)
    assert np.median([p[0] for p in points[20:]]) < 0.8
    assert subject.recommend()[0] > 0.6


@pytest.mark.parametrize(("gains", "side"), [((True,) * 3, 1.6), ((True,) * 6, 1.6), ((False,) * 10, 0.4)])
def test_trust_region_doubles_and_halves(gains, side):
    """After 3 improvements in a row it doubles to 1.6 at most, after D misses it halves."""
    region = TrustRegion(10, 0.8)
    best = 0.0
    region.tell(best, False)
    for gained in gains:
        best -= gained
        region.tell(best if gained else 0.0, True)
    assert region.side == side


def test_trust_region_begins_anew():
    """Below 2^-7 the side is what it was at first; failures count as misses."""
    region, sides = TrustRegion(4, 0.8), []
    for _ in range(4 * 7):
        region.tell(np.inf, True)
        sides.append(region.side)
    assert min(sides) >= 2.0**-7
    assert sides[-1] == 0.8


def test_many_axes_keep_to_the_region():
    """Beyond `trust_region_above` axes a proposal lies in the box around the best point."""
    subject = searched(
        lambda x: float(np.sum(np.square(x - 0.5))), 6, 12, trust_region_above=4, side=0.1, draws=64, startup=8
    )
    point = subject.ask(12).point
    assert np.abs(point - subject.recommend()).max() <= 0.5 * 0.1 * 4.0 + 1e-9
