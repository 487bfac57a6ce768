"""The process interpolates, weighs noise, and its gradients are those of finite differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.strategies.base import Observation
from mergesearch.strategies.surrogates.acquisition import (
    Feasibility,
    LogImprovement,
    around,
    candidates,
    log_h,
    maximise,
)
from mergesearch.strategies.surrogates.gaussian_process import (
    Hyper,
    Sample,
    _Evidence,
    fit,
    length_centres,
    posterior,
    process,
    typical,
)
from mergesearch.strategies.surrogates.told import Fits, Told
from mergesearch.types import Candidate


def line(noise=0.0, count=6, length=0.3):
    """A process of a sine on one axis."""
    points = np.linspace(0.0, 1.0, count)[:, None]
    return posterior(points, np.sin(6.0 * points), np.full(count, noise), Hyper(np.full(1, length)))


def cloud(seed, dim=3, count=15):
    """A process of random targets."""
    draw = np.random.default_rng(seed)
    return posterior(
        draw.uniform(size=(count, dim)),
        draw.standard_normal((count, 1)),
        np.full(count, 0.02),
        Hyper(draw.uniform(0.2, 1.0, dim), 1.3),
    )


def test_log_h_golden():
    """ln h(-40) = -808.298568 (bayesian card 1), and it stays finite where h underflows."""
    assert log_h(np.array([-40.0]))[0] == pytest.approx(-808.298568, abs=1e-6)
    assert np.isfinite(log_h(np.array([-1e8, -1e3, 0.0, 1e8]))).all()
    u = np.linspace(-4.0, 3.0, 29)
    plain = np.exp(-0.5 * u * u) / np.sqrt(2 * np.pi)
    from scipy.stats import norm

    assert np.allclose(np.exp(log_h(u)), plain + u * norm.cdf(u), rtol=1e-10)


@given(st.floats(-1e5, 50), st.floats(1e-6, 1.0))
@settings(max_examples=60, deadline=None)
def test_log_h_rises(u, step):
    """It never falls, over the seams of its three forms too."""
    low, high = log_h(np.array([u, u + step]))
    assert high >= low - 1e-9 * abs(low)


def test_interpolates_without_noise():
    """Noise-free data are met, and expected improvement at them is 0."""
    model = line()
    means, variance = model.predict(model.points)
    assert np.allclose(means, model.targets, atol=1e-6)
    assert variance.max() < 1e-6
    assert np.exp(LogImprovement.of(model, Feasibility(None)).values(model.points)).max() < 1e-4


def test_a_noisy_score_weighs_less():
    """Of two conflicting scores at neighbouring points, the one on few examples counts for little."""
    points = np.array([[0.2], [0.5], [0.5001], [0.8]])
    noise = np.array([1e-4, 1e-4, 0.5, 1e-4])
    model = posterior(points, np.array([[0.0], [0.0], [3.0], [0.0]]), noise, Hyper(np.full(1, 0.3)), mean=0.0)
    assert abs(model.predict(np.array([[0.5]]))[0][0, 0]) < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_those_of_differences(seed):
    """Of evidence times prior, and of the acquisition with fantasies and failures."""
    draw = np.random.default_rng(seed)
    evidence = _Evidence(
        Sample(draw.uniform(size=(12, 3)), draw.standard_normal(12), np.full(12, 0.01)), length_centres(3)
    )
    theta = np.log([0.3, 0.5, 0.2, 1.3, 0.02])
    steps = 1e-5 * np.eye(5)
    slope = [(evidence(theta + s)[0] - evidence(theta - s)[0]) / 2e-5 for s in steps]
    assert np.allclose(evidence(theta)[1], slope, rtol=1e-4, atol=1e-5)
    model = cloud(seed).with_pending(draw.uniform(size=(2, 3)), draw.standard_normal((4, 2)))
    target = LogImprovement.of(model, Feasibility.of(cloud(seed).points, draw.uniform(size=(3, 3))))
    x = draw.uniform(size=3)
    slope = [(target.falling(x + s)[0] - target.falling(x - s)[0]) / 2e-6 for s in 1e-6 * np.eye(3)]
    assert target.falling(x)[0] == pytest.approx(-target.values(x[None])[0], abs=1e-8)
    assert np.allclose(target.falling(x)[1], slope, rtol=1e-3, atol=1e-4)


def test_fit_finds_the_axis_that_matters():
    """The length-scale of an axis without effect ends far above that of the other."""
    points = np.random.default_rng(0).uniform(size=(40, 2))
    sample = Sample(points, np.sin(6.0 * points[:, 0]), np.zeros(40)).standardised()[0]
    hyper = fit(sample, [typical(2)])
    assert hyper.lengths[1] > 5.0 * hyper.lengths[0]
    assert hyper.noise < 1e-3


def test_known_noise_is_not_fitted_twice():
    """Where the variances told explain the scatter, the floor stays small."""
    draw = np.random.default_rng(1)
    points = draw.uniform(size=(60, 1))
    losses = points[:, 0] + 0.1 * draw.standard_normal(60)
    sample, _, scale = Sample(points, losses, np.full(60, 0.01)).standardised()
    assert fit(sample, [typical(1)]).noise < 0.3 * 0.01 / scale**2


def test_fantasies_spread_and_keep_the_mean():
    """A pending point loses its variance; over symmetric fantasies the mean stays."""
    model, pending = line(noise=1e-4, count=4), np.array([[0.5]])
    after = model.with_pending(pending, np.array([[1.0], [-1.0]]))
    means, variance = after.predict(pending)
    assert variance[0] < 0.05 * model.predict(pending)[1][0]
    assert means.mean() == pytest.approx(model.predict(pending)[0][0, 0], abs=1e-6)


def test_failures_repel():
    """The chance of success is low at a failure, high at a success, and no failure leaves it out."""
    chance = Feasibility.of(np.array([[0.1, 0.1], [0.2, 0.1]]), np.array([[0.9, 0.9]]))
    there, here = chance.log(np.array([[0.9, 0.9], [0.1, 0.1]]))
    assert there < np.log(0.1)
    assert here > np.log(0.9)
    assert Feasibility.of(np.ones((1, 2)), np.zeros((0, 2))).log(np.zeros((3, 2))).tolist() == [0.0] * 3


def test_maximise_stays_in_its_box():
    """The point lies in the box and is at least as good as every candidate."""
    target = LogImprovement.of(line(noise=1e-3), Feasibility(None))
    low, high = np.array([0.4]), np.array([0.7])
    tried = candidates(np.array([[0.9]]), low, high, 50, np.random.default_rng(0))
    point = maximise(target, tried, low, high)
    assert low <= point <= high
    assert target.values(point[None])[0] >= target.values(tried).max() - 1e-12


@given(st.integers(0, 1000), st.floats(0.01, 1.0))
@settings(max_examples=40, deadline=None)
def test_around_stays_in_the_cube(seed, spread):
    """Whatever leaves the cube is reflected into it."""
    draw = np.random.default_rng(seed)
    point = around(draw.uniform(size=4), np.append(draw.uniform(size=2), [0.0, 1.0]), spread)
    assert np.all((point >= 0.0) & (point <= 1.0))


@pytest.mark.parametrize("targets", [np.zeros(5), np.full(5, 1e12), 1e-12 * np.arange(5.0), 1e300 * np.arange(5.0)])
def test_any_unit_is_survived(targets):
    """Constant, huge and tiny losses give a finite process."""
    points = np.linspace(0.0, 1.0, 5)[:, None]
    sample = Sample(points, targets, np.full(5, 2.5e-3)).standardised()[0]
    means, variance = process(sample, fit(sample, [typical(1)])).predict(points)
    assert np.isfinite(means).all()
    assert (variance > 0).all()


def test_fits_do_not_depend_on_when_they_were_asked():
    """A replay that asks for the last fit only gets the same parameters, to the bit."""
    draw = np.random.default_rng(0)
    points = draw.uniform(size=(20, 2))
    whole = Sample(points, points.sum(axis=1), np.zeros(20))
    often, once = Fits(2, 3, 3), Fits(2, 3, 3)
    for count in range(2, 21):
        last = often.at(whole.first(count))
    assert last.lengths.tobytes() == once.at(whole).lengths.tobytes()


def test_told_counts_a_candidate_once():
    """A second tell says nothing new, a failure and a loss that is no number are failures."""
    told, candidate = Told(), Candidate(0, np.zeros(2))
    told.asked(candidate)
    assert told.tell(candidate, Observation(np.ones(1), np.zeros(1), np.ones(1)))
    assert not told.tell(candidate, Observation(np.zeros(1), np.zeros(1), np.ones(1)))
    assert told.tell(Candidate(1, np.ones(2)), None)
    assert told.tell(Candidate(2, np.ones(2)), Observation(np.array([np.nan]), np.zeros(1), np.ones(1)))
    assert told.position == (1, 2, ())
    assert not np.array_equal(told.apart(np.ones(2), 0, 5), np.ones(2))
