"""MAP recovers known surfaces, says how far it can be trusted, and beats the control (source: methods card of MAP)."""

import logging

import numpy as np
import pytest

from mergesearch.pareto import front, hypervolume
from mergesearch.plugins import load
from mergesearch.strategies import STRATEGIES
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.map import Map
from mergesearch.strategies.surrogates.surrogate_front import partitions, predicted_front
from mergesearch.types import Candidate, Direction, Objective

COSTS = (Objective("a", Direction.MIN), Objective("b", Direction.MIN))
ACCURACY = (Objective("acc", low=0.0, high=1.0),)


def search(kind, function, of, seed=0, **options):
    """(strategy, points, observed losses, origins) of a whole study; `function` gives losses (M,)."""
    cls = load("strategy", STRATEGIES, kind)
    subject = cls(of, seed, cls.Options(**options))
    points, losses, origins = [], [], []
    for number in range(of.evaluations):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin)
        subject.asked(candidate)
        points.append(candidate.point)
        losses.append(np.atleast_1d(function(candidate.point)))
        origins.append(candidate.origin)
        m = len(of.objectives)
        subject.tell(candidate, Observation(losses[-1], np.zeros(m), np.full(m, 1000.0)))
    return subject, np.array(points), np.array(losses), origins


def two_bowls(dim, seed):
    """Two rotated quadratics, condition 30, whose optima lie 0.2 apart per axis around the middle."""
    generator = np.random.default_rng(seed)
    bowls = []
    for side in (-0.1, 0.1):
        rotation, _ = np.linalg.qr(generator.standard_normal((dim, dim)))
        scales = 30.0 ** (np.arange(dim) / (dim - 1))
        bowls.append((rotation * np.sqrt(scales / scales.mean()), 0.5 + side * generator.choice([-1, 1], dim)))
    return lambda x: np.array([float(np.mean(np.square((x - o) @ r))) * 10 for r, o in bowls])


def test_recovers_a_warped_quadratic():
    """An accuracy that is a logistic of a quadratic is fitted with R² near 1, and its optimum is found."""
    dim, optimum = 4, np.array([0.42, 0.55, 0.35, 0.5])

    def loss(x):
        d = x - optimum
        return -1.0 / (1.0 + np.exp(-(1.5 - 20 * d @ d - 8 * d[0] * d[1])))

    of = Problem(dim, ACCURACY, np.full(dim, 0.4), 60)
    subject, points, losses, origins = search("map", loss, of)
    figures = subject.diagnostics()
    assert figures["r2.acc"] > 0.99
    assert figures["form.acc"] == 3.0
    assert figures["front_trusted"] == 1.0
    assert origins.count("front") >= 1
    assert np.linalg.norm(points[np.argmin(losses)] - optimum) < 0.02
    assert np.linalg.norm(subject.recommend() - optimum) < 0.02


def test_front_beats_random():
    """Two objectives in six axes: a larger hypervolume than Sobol points have (median of seeds)."""
    found = {}
    for kind, options in (("map", {"generations": 15, "refits": 3}), ("random", {})):
        volumes = []
        for seed in range(3):
            function = two_bowls(6, seed)
            of = Problem(6, COSTS, np.full(6, 0.5), 80)
            _, _, losses, _ = search(kind, function, of, seed, **options)
            volumes.append(hypervolume(losses[front(losses)], (1.0, 1.0)))
        found[kind] = np.median(volumes)
    assert found["map"] > found["random"]


def test_evaluates_what_it_predicts():
    """After the design most points lie on the predicted front, no two of all points are equal."""
    of = Problem(4, COSTS, np.full(4, 0.5), 60)
    _, points, _, origins = search("map", two_bowls(4, 1), of, generations=10, refits=3)
    assert origins[0] == "start"
    assert origins[1:30] == ["design"] * 29
    assert origins[30:].count("front") >= 20
    assert len(np.unique(points, axis=0)) == 60


def test_local_design_stays_around_the_start():
    """The first points lie within half a box width of the start, or in the whole cube when asked."""
    start = np.array([0.1, 0.5, 0.9])
    of = Problem(3, COSTS, start, 30)
    points = search("map", two_bowls(3, 0), of, generations=3, half_width=0.2)[1]
    assert np.max(np.abs(points[:18] - start)) <= 0.2
    points = search("map", two_bowls(3, 0), of, generations=3, design="box")[1]
    assert np.max(np.abs(points[:18] - start)) > 0.5


def test_seeds_open_the_design():
    """Points that the problem offers are evaluated right after the start, at most half of the design."""
    seeds = tuple(np.eye(3))
    for evaluations, taken in ((40, 3), (5, 1)):
        of = Problem(3, COSTS, np.full(3, 0.3), evaluations, seeds)
        subject = Map(of, 0, Map.Options())
        for number in range(1 + taken):
            proposal = subject.ask(number)
            assert np.array_equal(proposal.point, (of.start, *seeds)[number])
            subject.asked(Candidate(number, proposal.point))
        assert not any(np.array_equal(subject.ask(1 + taken).point, seed) for seed in seeds)


def test_noise_is_admitted(caplog):
    """Pure noise gives a low R², no trust in the front, and every second point samples the box."""
    noise = np.random.default_rng(0)
    of = Problem(4, COSTS, np.full(4, 0.5), 60)
    subject, _, _, origins = search("map", lambda x: noise.standard_normal(2), of, generations=3, refits=2)
    figures = subject.diagnostics()
    assert figures["r2.a"] < 0.7
    assert figures["front_trusted"] == 0.0
    assert origins[30:].count("design") == pytest.approx(15, abs=1)


def test_small_budget_is_warned_of_and_shrinks_the_form(caplog):
    """A budget below three times the unknowns is said at once, and a simpler form is fitted."""
    of = Problem(12, COSTS, np.full(12, 0.5), 60)
    with caplog.at_level(logging.WARNING):
        subject = search("map", two_bowls(12, 0), of, generations=3)[0]
    assert "60 evaluations are few for 12 axes" in caplog.text
    figures = subject.diagnostics()
    assert figures["budget_wanted"] == 3 * 91
    assert figures["form.a"] <= 2.0
    assert figures["unknowns.a"] <= 25.0


def test_follows_an_optimum_outside_its_first_box():
    """The box moves with the predicted optimum, so a far one is reached."""
    of = Problem(3, (Objective("cost", Direction.MIN),), np.full(3, 0.2), 90)
    subject, points, losses, _ = search("map", lambda x: np.array([np.sum(np.square(x - 0.85))]), of, design_share=0.3)
    assert np.linalg.norm(points[np.argmin(losses[:, 0])] - 0.85) < 0.05
    assert np.linalg.norm(subject.recommend() - 0.85) < 0.05


def test_resuming_costs_nothing_before_the_first_ask():
    """Replaying a log fits nothing; the figures agree with those of the undisturbed strategy afterwards."""
    of = Problem(3, COSTS, np.full(3, 0.5), 40)
    subject, points, losses, _ = search("map", two_bowls(3, 0), of, generations=3)
    resumed = Map(of, 0, Map.Options(generations=3))
    for number, (point, loss) in enumerate(zip(points, losses, strict=True)):
        resumed.asked(Candidate(number, point))
        resumed.tell(Candidate(number, point), Observation(loss, np.zeros(2), np.full(2, 1000.0)))
    assert dict(resumed.diagnostics()) == dict(subject.diagnostics())


def test_nsga3_finds_the_front_of_two_bowls():
    """The front between two bowls is the line between their bottoms; the same seed gives the same points."""

    def losses(points):
        return np.stack([np.sum(np.square(points - 0.3), axis=1), np.sum(np.square(points - 0.7), axis=1)], axis=1)

    first = np.random.default_rng(0).random((100, 4))
    arguments = (losses, np.zeros(4), np.ones(4), first, 40, 5)
    points, values = predicted_front(*arguments)
    assert len(front(values)) == len(values) > 20
    middle = points.mean(axis=1)
    assert np.median(np.abs(points - middle[:, None])) < 0.05
    assert values.min(axis=0).max() < 0.05
    assert np.array_equal(predicted_front(*arguments)[0], points)


def test_reference_directions_fit_the_population():
    """Das-Dennis partitions for two to eight objectives, never more directions than the population."""
    assert [partitions(m) for m in range(2, 9)] == [99, 12, 6, 4, 3, 3, 2]


def test_thirty_two_axes():
    """With 32 axes and fewer points than a full quadratic has unknowns it fits a simpler form, and it improves."""
    function = two_bowls(32, 3)
    of = Problem(32, COSTS, np.full(32, 0.5), 150)
    subject, _, losses, _ = search("map", function, of, generations=5, refits=3)
    assert subject.diagnostics()["form.a"] <= 2.0
    assert subject.diagnostics()["r2.a"] > 0.3
    assert losses.sum(axis=1).min() < 0.9 * losses[0].sum()
