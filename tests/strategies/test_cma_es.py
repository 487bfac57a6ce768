"""CMA-ES finds optima through its ask/tell, and keeps cma's own randomness and files out."""

import time
import warnings

import numpy as np
import pytest

from mergesearch.errors import SpecError
from mergesearch.plugins import parse_options
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.cma_es import CmaEs
from mergesearch.types import Candidate, Direction, Objective

COST = (Objective("cost", Direction.MIN),)


def search(function, start, evaluations, workers=1, seed=0, stderr=0.0, **options):
    """(strategy, points, losses) of a search with `workers` evaluations at a time, ending in a shuffled order."""
    dim = len(start)
    subject = CmaEs(Problem(dim, COST, start, evaluations), seed, CmaEs.Options(**options))
    shuffle, busy, points, losses = np.random.default_rng(seed), [], [], []
    for number in range(evaluations):
        candidate = Candidate(number, subject.ask(number).point)
        subject.asked(candidate)
        busy.append(candidate)
        if len(busy) >= workers:
            done = busy.pop(int(shuffle.integers(len(busy))))
            points.append(done.point)
            losses.append(function(done.point))
            subject.tell(done, Observation(np.array([losses[-1]]), np.full(1, stderr), np.ones(1)))
    return subject, np.array(points), np.array(losses)


def test_constants_are_the_papers():
    """Population sizes are those of the paper's table for a small budget, twice that for others; one axis has four."""
    for dim, paper in ((4, 8), (6, 9), (8, 10), (16, 12), (32, 14), (64, 16), (192, 19), (250, 20)):
        for evaluations, size in ((16 * paper, 2 * paper), (16 * paper - 1, paper)):
            subject = CmaEs(Problem(dim, COST, np.full(dim, 0.5), evaluations), 0, CmaEs.Options())
            assert subject.diagnostics()["population_size"] == size
    assert CmaEs(Problem(1, COST, np.full(1, 0.5), 10), 0, CmaEs.Options()).diagnostics()["population_size"] == 4


def test_solves_a_rotated_ellipsoid():
    """Ten axes, condition 1e6, from 3 with step 1 (in a box of 20): 1e-8 within 10,000 evaluations."""
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((10, 10)))
    scales = 1e6 ** (np.arange(10) / 9)
    _, _, losses = search(
        lambda u: float(scales @ np.square(rotation @ ((u - 0.5) * 20))),
        np.full(10, 0.65),
        10_000,
        sigma0=0.05,
        population_size=10,
        restart_sigma=0.0,
    )
    assert losses.min() < 1e-8


def test_late_results_cost_little():
    """With 16 workers and a population of 10 the sphere takes at most 1.5 times the evaluations of one worker."""

    def needed(workers):
        losses = search(
            lambda u: float(np.sum(np.square(u - 0.4))),
            np.full(10, 0.7),
            3_000,
            workers,
            population_size=10,
            restart_sigma=0.0,
        )[2]
        return int(np.argmax(losses < 1e-10))

    alone, crowd = needed(1), needed(16)
    assert alone > 0
    assert 0 < crowd < 1.5 * alone


@pytest.mark.parametrize("options", [{}, {"diagonal_above": 0}], ids=["full", "diagonal"])
def test_finds_an_optimum_on_a_face(options):
    """A best point on the box's faces is reached and recommended."""
    subject, _, losses = search(
        lambda u: float(u[0] - u[1] + np.sum(np.square(u[2:] - 0.5))), np.full(6, 0.5), 900, **options
    )
    assert losses.min() < -0.99
    assert np.allclose(subject.recommend()[:2], (0.0, 1.0), atol=0.02)


def test_one_axis():
    """A single axis, the global scale of a merge, works."""
    subject, _, losses = search(lambda u: float((u[0] - 0.3) ** 2), np.array([0.8]), 120)
    assert losses.min() < 1e-4
    assert abs(subject.recommend()[0] - 0.3) < 0.05


def test_recommends_the_mean():
    """Under noise the recommended mean is truly better than the point that looked best (median of seeds)."""
    mean, luckiest = [], []
    for seed in range(5):
        noise = np.random.default_rng(seed + 50)
        subject, points, losses = search(
            lambda u, noise=noise: float(np.mean(np.square(u - 0.55))) * 10 + 0.3 * noise.standard_normal(),
            np.full(12, 0.3),
            300,
            seed=seed,
        )
        mean.append(np.mean(np.square(subject.recommend() - 0.55)))
        luckiest.append(np.mean(np.square(points[np.argmin(losses)] - 0.55)))
    assert np.median(mean) < np.median(luckiest)


def test_start_and_recommended_make_no_update():
    """Points put at the mean, the start and a recommendation, do not shrink the step."""
    subject = CmaEs(Problem(3, COST, np.full(3, 0.5), 100), 0, CmaEs.Options(population_size=4))
    before = subject.diagnostics()
    for number, origin in enumerate(["start", "recommended"] * 6):
        candidate = Candidate(number, np.full(3, 0.5), origin)
        subject.asked(candidate)
        subject.tell(candidate, Observation(np.zeros(1), np.zeros(1), np.ones(1)))
    after = subject.diagnostics()
    assert (after["updates"], after["sigma"]) == (0.0, before["sigma"])


def test_failures_rank_last():
    """The search leaves a half of the box in which every candidate fails."""
    dim = 4
    subject = CmaEs(Problem(dim, COST, np.full(dim, 0.5), 400), 3, CmaEs.Options())
    for number in range(400):
        candidate = Candidate(number, subject.ask(number).point)
        subject.asked(candidate)
        bad = candidate.point[0] < 0.5
        loss = np.array([float(np.sum(np.square(candidate.point - 0.6)))])
        subject.tell(candidate, None if bad else Observation(loss, np.zeros(1), np.ones(1)))
    assert subject.recommend()[0] > 0.5
    assert subject.diagnostics()["failed"] > 0


def test_high_dimension_is_cheap():
    """384 axes: 3,000 asks and tells take seconds of processor time; with a full covariance 500 do."""
    for evaluations, options in ((3_000, {}), (500, {"diagonal_above": 384})):
        begin = time.process_time()
        subject, _, losses = search(
            lambda u: float(np.sum(np.square(u - 0.6))), np.full(384, 0.5), evaluations, **options
        )
        assert time.process_time() - begin < 6.0
        assert subject.diagnostics()["updates"] > 10
        assert np.median(losses[-50:]) < np.median(losses[1:51])


def valley(dim, seed):
    """A rotated quadratic of condition 100 with its optimum in the box, scaled to a mean of 1 over it."""
    random = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(random.standard_normal((dim, dim)))
    optimum = random.uniform(0.2, 0.8, dim)
    matrix = (rotation * 100.0 ** np.linspace(0.0, 1.0, dim)) @ rotation.T
    mean = np.trace(matrix) / 12.0 + (0.5 - optimum) @ matrix @ (0.5 - optimum)
    return lambda u: float((u - optimum) @ matrix @ (u - optimum) / mean)


def noisy(function, spread, seed):
    """`function` with Gaussian noise of its own."""
    noise = np.random.default_rng(seed + 900)
    return lambda u: function(u) + spread * noise.standard_normal()


@pytest.mark.parametrize("covariance", ["auto", "full", "diagonal", "limited_memory"])
def test_384_axes_end_no_worse_than_they_began(covariance):
    """After 500 noisy evaluations of 384 axes the mean is better than the start, whatever is learned of the shape."""
    start = np.full(384, 0.5)
    for seed, spread in ((0, 0.05), (1, 0.05), *([(0, 0.1), (1, 0.1)] if covariance == "auto" else [])):
        true = valley(384, seed)
        subject = search(noisy(true, spread, seed), start, 500, seed=seed, stderr=spread, covariance=covariance)[0]
        assert true(subject.recommend()) < true(start)


def test_covariance_by_dimension():
    """Full up to `diagonal_above` axes, variances beyond, which it says; limited memory needs ten axes."""
    wide = Problem(201, COST, np.full(201, 0.5), 100)
    assert CmaEs(Problem(200, COST, np.full(200, 0.5), 100), 0, CmaEs.Options()).notes() == ()
    assert "variances" in CmaEs(wide, 0, CmaEs.Options()).notes()[0]
    few = CmaEs(Problem(5, COST, np.full(5, 0.5), 100), 0, CmaEs.Options(covariance="limited_memory"))
    assert "few" in few.notes()[0]


def test_limited_memory_learns_a_direction():
    """In a long valley across the axes limited memory beats variances alone."""
    along = np.ones(20) / np.sqrt(20)

    def function(u):
        return float(100.0 * np.sum(np.square(u - 0.6)) - 99.0 * np.square((u - 0.6) @ along))

    options = {"population_size": 10, "restart_sigma": 0.0}
    ends = {
        kind: max(
            search(function, np.linspace(0.3, 0.5, 20), 2_000, seed=s, covariance=kind, **options)[2].min()
            for s in range(2)
        )
        for kind in ("limited_memory", "diagonal")
    }
    assert ends["limited_memory"] < 0.3 * ends["diagonal"]


def test_damped_updates_help_under_strong_noise():
    """With noise of a third of what is to be gained, damping updates gives the better mean (median of seeds)."""
    ends = {"learning_rate": [], "population": []}
    for seed in range(3):
        for noise, values in ends.items():
            true = valley(24, seed)
            subject = search(noisy(true, 0.1, seed), np.full(24, 0.5), 600, seed=seed, stderr=0.1, noise=noise)[0]
            values.append(true(subject.recommend()))
    assert np.median(ends["learning_rate"]) < np.median(ends["population"])


def test_auto_damps_when_noise_outweighs():
    """`auto` damps, and says so, where standard errors explain the losses; never where they are exact."""
    true = valley(8, 0)
    loud = search(noisy(true, 0.3, 0), np.full(8, 0.5), 300, stderr=0.3, noise="auto")[0]
    assert any("damped" in note for note in loud.notes())
    assert loud.diagnostics()["learning_rate"] < 1.0
    exact = search(true, np.full(8, 0.5), 300, noise="auto")[0]
    assert not exact.notes()
    assert exact.diagnostics()["learning_rate"] == 1.0


def test_restarts_with_twice_the_population():
    """A converged search begins again nearby, says so, and still recommends the mean it had found."""
    subject = search(lambda u: float(np.sum(np.square(u - 0.6))), np.full(4, 0.4), 1_200, seed=1)[0]
    figures, notes = subject.diagnostics(), subject.notes()
    assert figures["restarts"] >= 1
    assert figures["population_size"] == 16 * 2 ** figures["restarts"]
    assert len(notes) == figures["restarts"]
    assert "restarted" in notes[0]
    assert np.allclose(subject.recommend(), 0.6, atol=0.01)


def test_restarts_when_scores_cannot_be_told_apart():
    """Losses of a whole update within one standard error restart it; where errors are not known nothing does."""
    flat = [search(lambda u: 1e-3 * u[0], np.full(4, 0.4), 300, stderr=s)[0] for s in (0.1, 0.0)]
    assert [f.diagnostics()["restarts"] > 0 for f in flat] == [True, False]
    assert "standard error" in flat[0].notes()[0]


def test_a_restart_leaves_the_second_basin():
    """Of two basins the better one is recommended, whichever came last."""

    def function(u):
        wide, narrow = np.sum(np.square(u - 0.35)), np.sum(np.square(u - 0.75))
        return float(min(wide, narrow + 0.02))

    subject = search(function, np.full(3, 0.55), 2_500, seed=3, restart_spread=0.25)[0]
    assert subject.diagnostics()["restarts"] >= 2
    assert function(subject.recommend()) < 0.021


def test_late_results_of_an_earlier_descent_are_dropped():
    """Results asked before a restart and told after it do not enter the new distribution."""
    subject = CmaEs(Problem(3, COST, np.full(3, 0.5), 2_000), 0, CmaEs.Options(population_size=4))
    late = Candidate(0, np.full(3, 0.51), "sample")
    subject.asked(late)
    number = 1
    while not subject.diagnostics()["restarts"]:
        candidate = Candidate(number, subject.ask(number).point)
        subject.asked(candidate)
        subject.tell(candidate, Observation(np.zeros(1), np.ones(1), np.ones(1)))
        number += 1
    before = subject.ask(number).point
    subject.tell(late, Observation(np.full(1, -9.0), np.zeros(1), np.ones(1)))
    assert np.array_equal(subject.ask(number).point, before)


def test_strangers_do_not_tear_it_apart():
    """Thousands of points drawn by somebody else leave a distribution that can still be asked."""
    for dim in (3, 384):
        subject = CmaEs(Problem(dim, COST, np.full(dim, 0.5), 3_000), 0, CmaEs.Options())
        for number, point in enumerate(np.random.default_rng(0).random((3_000, dim))):
            candidate = Candidate(number, point, "elsewhere")
            subject.asked(candidate)
            subject.tell(candidate, Observation(np.array([float(point.sum())]), np.zeros(1), np.ones(1)))
        assert all(np.isfinite(v) for v in subject.diagnostics().values())
        assert np.all(np.isfinite(subject.ask(3_000).point))


def test_no_filter_and_no_file_is_left(tmp_path, monkeypatch):
    """Neither the warning filters nor the working folder change."""
    monkeypatch.chdir(tmp_path)
    before = list(warnings.filters)
    search(lambda u: float(u.sum()), np.full(3, 0.5), 60)
    assert list(warnings.filters) == before
    assert list(tmp_path.iterdir()) == []


def test_options_are_bounded():
    """A population too small to rank and a step of zero are refused."""
    for wrong in (
        {"population_size": 3},
        {"sigma0": 0.0},
        {"sigma0": 2.0},
        {"covariance": "limited_memory", "noise": "learning_rate"},
    ):
        with pytest.raises(SpecError):
            parse_options("strategy cma_es", CmaEs.Options, wrong)
