"""The sequential quadratic: its fits are what they say, and it beats the control on merges' kind of surfaces."""

import time

import numpy as np
import pytest

from mergesearch.pareto import front, hypervolume
from mergesearch.plugins import load
from mergesearch.strategies import STRATEGIES
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.quadratic import QuadraticSearch
from mergesearch.strategies.surrogates.quadratic_fit import Form, Kernel, Prior, learn
from mergesearch.strategies.surrogates.quadratic_links import Link, candidates
from mergesearch.strategies.surrogates.quadratic_model import AUGMENTED, Results, believe, best_point, local
from mergesearch.types import Candidate, Direction, Objective

COST = (Objective("cost", Direction.MIN),)
COSTS = (Objective("a", Direction.MIN), Objective("b", Direction.MIN))


def search(kind, function, of, seed=0, stderr=0.0, **options):
    """(strategy, points, losses, origins) of a whole study; `function` gives losses (M,) of a point and a number."""
    cls = load("strategy", STRATEGIES, kind)
    subject = cls(of, seed, cls.Options(**options))
    points, losses, origins, m = [], [], [], len(of.objectives)
    for number in range(of.evaluations):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin)
        subject.asked(candidate)
        points.append(candidate.point)
        losses.append(np.atleast_1d(function(candidate.point, number)))
        origins.append(candidate.origin)
        subject.tell(candidate, Observation(losses[-1], np.full(m, stderr), np.full(m, 300.0)))
    return subject, np.array(points), np.array(losses), origins


def bowl(dim, seed, noise=0.0):
    """A shifted, rotated quadratic of condition 100, about 1 at a random point and 0 at its optimum in [.2, .8]^D."""
    generator = np.random.default_rng(seed)
    q, _ = np.linalg.qr(generator.standard_normal((dim, dim)))
    h = (q * 100.0 ** (np.arange(dim) / (dim - 1))) @ q.T
    optimum = generator.uniform(0.2, 0.8, dim)
    h /= np.trace(h) / 12 + (0.5 - optimum) @ h @ (0.5 - optimum)

    def loss(x, number=None):
        drawn = 0.0 if number is None else noise * np.random.default_rng([seed, number]).standard_normal()
        return float((x - optimum) @ h @ (x - optimum)) + drawn

    return loss


def test_fit_recovers_a_quadratic():
    """With more points than unknowns and no noise, the fitted slope, curvature and level are those of the function."""
    generator = np.random.default_rng(0)
    points = generator.random((60, 4))
    h = np.diag([1.0, 2.0, 3.0, 4.0]) + 0.3
    values = 0.7 + 0.5 * np.sum(((points - 0.4) @ h) * (points - 0.4), axis=1)
    kernel = Kernel(points, np.full(4, 0.5), 0.2)
    fitted = kernel.fit(Prior(np.array([0.0, 0.0, 0.0, 0.0, -12.0]), Form.CROSSED), values, np.ones(60))
    assert np.allclose(fitted.A / 0.2**2, h, atol=0.02)
    assert fitted.values(np.full((1, 4), 0.4))[0] == pytest.approx(0.7, abs=1e-3)
    value, slope = fitted.at(np.full(4, 0.45))
    assert value == pytest.approx(fitted.values(np.full((1, 4), 0.45))[0])
    assert np.allclose(slope, h @ np.full(4, 0.05), atol=0.01)


def test_left_out_predictions_are_leave_one_out():
    """The shortcut equals fitting again without each point, at a given scale of the losses."""
    generator = np.random.default_rng(1)
    points = generator.random((25, 3))
    values = points @ np.ones(3) + 0.1 * generator.standard_normal(25)
    values = (values - values.mean()) / values.std()
    prior, centre, noise = Prior(np.array([0.0, -2.0, -3.0, -3.0, -2.0]), Form.CROSSED), np.full(3, 0.5), np.ones(25)
    whole = Kernel(points, centre, 0.5)
    left_out = whole.fit(prior, values, noise).left_out
    matrix = whole.matrix(prior.variances, noise)
    for i in range(25):
        rest = np.arange(25) != i
        expected = matrix[i, rest] @ np.linalg.solve(matrix[np.ix_(rest, rest)], values[rest])
        assert left_out[i] == pytest.approx(expected, abs=1e-5)


def test_gradient_of_the_likelihood():
    """The slope of the marginal likelihood agrees with finite differences."""
    generator = np.random.default_rng(2)
    points, log, step = generator.random((20, 3)), np.array([-0.5, -1.0, -2.0, -1.5, -2.0]), 1e-5
    kernel, noise = Kernel(points, np.full(3, 0.5), 0.3), generator.uniform(0.5, 2.0, 20)
    values = generator.standard_normal(20)
    slope = kernel._cost(log, values, noise)[1]
    for i in range(5):
        up, down = (kernel._cost(log + s * np.eye(5)[i], values, noise)[0] for s in (step, -step))
        assert slope[i] == pytest.approx((up - down) / (2 * step), abs=1e-4)


def test_forms_grow_with_the_data():
    """Crossed terms come when the points show them; a straight loss needs none, noise has an R² about 0."""
    generator = np.random.default_rng(3)
    points = generator.random((120, 6))
    centre, noise = np.full(6, 0.5), np.ones(120)
    twisted = 10.0 * (points[:, 0] - 0.5) * (points[:, 1] - 0.5) + points @ np.ones(6)
    straight = points @ np.arange(6.0) + 0.01 * generator.standard_normal(120)
    assert learn(points, twisted, noise, centre, 0.5).form is Form.CROSSED
    assert learn(points, straight, noise, centre, 0.5).form < Form.CROSSED
    assert learn(points[:8], straight[:8], noise[:8], centre, 0.5).form < Form.CROSSED
    pure = generator.standard_normal((120, 1))
    flat = Results(points, pure, np.zeros((120, 1)), np.ones((120, 1)))
    assert believe(COST, flat, 0.5)[0].r2 < 0.3


def test_links_invert_and_a_flat_loss_takes_one():
    """Every link gives losses back with its slope; a loss that saturates is fitted behind one, a bowl is not."""
    losses = np.linspace(0.1, 0.9, 9)
    for objective in (Objective("x", low=0.0, high=1.0), Objective("y", Direction.MIN, low=0.0), COST[0]):
        told = np.sort([objective.loss(v) for v in losses])
        for ceiling in candidates(objective):
            link = Link.of(objective, ceiling, told)
            z = link.forward(told, np.full(9, 500.0))[0]
            assert np.all(np.diff(z) > 0)
            assert np.allclose(link.back(z), told)
            rise = (link.back(z + 1e-5) - link.back(z - 1e-5)) / 2e-5
            assert np.allclose([link.slope(float(v)) for v in z], rise, rtol=1e-3)
    generator = np.random.default_rng(4)
    points = generator.random((150, 4))
    square = np.sum(np.square(points - 0.45), axis=1)
    zero, one = np.zeros((150, 1)), np.ones((150, 1))
    flat = Results(points, 1.0 - np.exp(-6.0 * square[:, None]), zero, one)
    assert believe(COST, flat, 0.5)[0].ceiling > 0.0
    assert believe(COST, Results(points, square[:, None], zero, one), 0.5)[0].ceiling == 0.0


def test_parego_golden_and_preferences_cover_the_simplex():
    """The card's augmented Chebyshev value, and preferences that leave no corner of the simplex out."""
    results = Results(np.zeros((2, 1)), np.array([(0.3, 0.8), (0.0, 1.0)]), np.zeros((2, 2)), np.ones((2, 2)))
    assert max(0.15, 0.4) + AUGMENTED * (0.15 + 0.4) == pytest.approx(0.4275)
    low, span = results.scaled()
    shares = (results.losses - low) / span * 0.5
    assert np.allclose(results.badness(np.full(2, 0.5)), shares.max(axis=1) + 0.05 * shares.sum(axis=1))
    for many in (2, 3, 5):
        of = Problem(2, tuple(Objective(str(j)) for j in range(many)), np.full(2, 0.5), 100)
        subject = QuadraticSearch(of, 3, QuadraticSearch.Options())
        weights = np.array([subject._preference(turn) for turn in range(400)])
        assert np.allclose(weights.sum(axis=1), 1.0)
        assert np.all(weights >= 0.0)
        assert np.allclose(weights.mean(axis=0), 1.0 / many, atol=0.02)
        assert np.all(weights.max(axis=0) > (0.9 if many < 4 else 0.6))


def test_concave_fronts_are_reached():
    """Of a concave front not only the ends are found, which is all that a weighted sum would give."""

    def losses(x, number):
        return np.array([x[0], 1.0 - x[0] ** 2 + np.sum(np.square(x[1:] - 0.4))])

    of = Problem(5, COSTS, np.full(5, 0.5), 60)
    _, _, found, _ = search("quadratic", losses, of)
    kept = found[front(found)]
    assert np.count_nonzero((kept[:, 0] > 0.2) & (kept[:, 0] < 0.8)) >= 5
    assert hypervolume(kept, (1.1, 1.1)) > 0.85 * hypervolume(
        np.stack([np.linspace(0, 1, 500), 1 - np.linspace(0, 1, 500) ** 2], axis=1), (1.1, 1.1)
    )


def test_one_objective_beats_the_mean_of_cma_es():
    """24 noisy axes, 80 evaluations: what it recommends is nearer to the optimum than CMA-ES's mean (2 seeds)."""
    found = {}
    for kind in ("quadratic", "cma_es"):
        ends = []
        for seed in range(2):
            noisy, of = bowl(24, seed, 0.02), Problem(24, COST, np.full(24, 0.5), 80)
            ends.append(bowl(24, seed)(search(kind, noisy, of, seed)[0].recommend()))
        found[kind] = np.median(ends)
    assert found["quadratic"] < 0.7 * found["cma_es"]


def test_front_beats_random_by_far():
    """Two objectives, 12 noisy axes: twice the hypervolume above the start that Sobol points add (3 seeds)."""
    gain = {}
    for kind in ("quadratic", "random"):
        gains = []
        for seed in range(3):
            noisy = [bowl(12, 10 * seed + j, 0.02) for j in range(2)]
            true = [bowl(12, 10 * seed + j) for j in range(2)]
            of = Problem(12, COSTS, np.full(12, 0.5), 45)
            _, points, losses, _ = search(kind, lambda x, i, noisy=noisy: np.array([f(x, i) for f in noisy]), of, seed)
            values = np.array([[f(x) for f in true] for x in points])
            gains.append(hypervolume(values[front(losses)], (1.0, 1.0)) - hypervolume(values[:1], (1.0, 1.0)))
        gain[kind] = np.median(gains)
    assert gain["quadratic"] > 2.0 * max(gain["random"], 0.01)


def test_noise_is_said_and_half_of_the_points_are_steps():
    """Pure noise: R² about 0, the box is halved, and the notes say that the fits are not trusted."""
    noise = np.random.default_rng(0)
    of = Problem(4, COST, np.full(4, 0.5), 60)
    subject = search("quadratic", lambda x, i: noise.standard_normal(1), of, trust_r2=0.5)[0]
    figures = subject.diagnostics()
    assert figures["trusted"] == 0.0
    assert figures["radius"] == pytest.approx(0.1)
    assert any("not trusted" in note for note in subject.notes())
    assert len(subject.notes()) == 3


def test_the_start_is_the_fallback():
    """Where no direction improves on the start, the start is recommended or a point no worse to the eye."""
    start = np.full(6, 0.4)
    of = Problem(6, COST, start, 40)
    subject = search("quadratic", lambda x, i: np.array([np.sum(np.square(x - start))]), of)[0]
    assert np.sum(np.square(subject.recommend() - start)) < 1e-3


def test_follows_a_far_optimum():
    """An optimum several boxes away is reached."""
    of = Problem(6, COST, np.full(6, 0.1), 50)
    subject = search("quadratic", lambda x, i: np.array([np.sum(np.square(x - 0.9))]), of)[0]
    assert np.max(np.abs(subject.recommend() - 0.9)) < 0.05


def test_noisier_results_count_less():
    """Of two groups of results with other standard errors, the fit follows the precise ones."""
    generator = np.random.default_rng(5)
    points = generator.random((80, 2))
    stderr = np.where(np.arange(80) % 2, 0.01, 1.0)
    losses = points @ np.array([1.0, -1.0]) + stderr * generator.standard_normal(80)
    at = np.array([(0.2, 0.8), (0.8, 0.2)])
    errors = []
    for known in (stderr, np.zeros(80)):
        results = Results(points, losses[:, None], known[:, None], np.ones((80, 1)))
        model = local(COST, believe(COST, results, 0.5), results, np.full(2, 0.5), 0.5)
        errors.append(np.abs(model.losses(at)[:, 0] - (-0.6, 0.6)).max())
    assert errors[0] < 0.15
    assert errors[0] < errors[1]
    assert np.allclose(best_point(model, np.ones(1), np.zeros(1), np.ones(1)), (0.0, 1.0), atol=0.01)


def test_replay_costs_nothing_and_asks_stay_fast():
    """A log of 400 results in 96 axes is replayed in moments, and an ask after it takes less than half a second."""
    of, generator = Problem(96, COSTS, np.full(96, 0.5), 1000), np.random.default_rng(6)
    subject = QuadraticSearch(of, 0, QuadraticSearch.Options())
    began = time.process_time()
    for number in range(400):
        candidate = Candidate(number, np.clip(0.5 + 0.1 * generator.standard_normal(96), 0.0, 1.0))
        subject.asked(candidate)
        losses = np.array([np.sum(np.square(candidate.point - o)) for o in (0.4, 0.6)])
        subject.tell(candidate, Observation(losses, np.zeros(2), np.ones(2)))
    assert time.process_time() - began < 1.0
    began = time.process_time()
    subject.ask(400)
    first = time.process_time() - began
    began = time.process_time()
    subject.ask(401)
    assert first < 3.0  # generous: the machine may be busy, and links and priors are chosen here
    assert time.process_time() - began < 0.5
