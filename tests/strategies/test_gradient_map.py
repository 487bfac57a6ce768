"""`gradient_map`: surrogates that meet values and gradients, trust in them, and fronts of layer-wise merges."""

import time

import numpy as np
import pytest
from contracts.strategy import replay, same

from mergesearch.errors import SpecError
from mergesearch.pareto import hypervolume
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.gradient_map import GradientMap
from mergesearch.strategies.surrogates.gradient_front import Reach, minima, preferences, ruler, spread_order
from mergesearch.strategies.surrogates.gradient_surrogate import Records, curvature, surrogate
from mergesearch.strategies.surrogates.trust import first_trust, no_agreement
from mergesearch.types import Candidate, Direction, Objective


class Bowls:
    """M rotated quadratics of D axes with bottoms about 0.2 apart; metrics are 1 - exp(-guide), or coarse steps of it.

    `sign`: of the gradients, per objective; 0 gives nonsense. `noise`: of the gradients, relative to their norm.
    """

    def __init__(self, dim, objectives, seed=0, sign=1.0, noise=0.0, steps=0):
        self.draw = np.random.default_rng(seed)
        self.dim, self.noise, self.steps = dim, noise, steps
        self.sign = np.broadcast_to(np.asarray(sign, dtype=float), (objectives,))[:, None]
        middle = self.draw.uniform(0.35, 0.65, dim)
        self.hessians, self.bottoms = [], []
        for _ in range(objectives):
            turn = np.linalg.qr(self.draw.standard_normal((dim, dim)))[0]
            eigen = 100.0 ** (-np.arange(dim) / max(dim - 1, 1))
            self.hessians.append(20.0 / dim * (turn * (eigen / eigen.mean())) @ turn.T)
            away = 0.2 * self.draw.choice([-1.0, 1.0], dim) * self.draw.uniform(0.3, 1.0, dim)
            self.bottoms.append(np.clip(middle + away, 0.02, 0.98))

    def guides(self, point):
        """(M,)."""
        pairs = zip(self.hessians, self.bottoms, strict=True)
        return np.array([0.5 * (point - o) @ h @ (point - o) for h, o in pairs])

    def metrics(self, point):
        """(M,)."""
        loss = 1.0 - np.exp(-self.guides(point))
        return np.round(loss * self.steps) / self.steps if self.steps else loss

    def gradients(self, point):
        """(M, D)."""
        true = np.array([h @ (point - o) for h, o in zip(self.hessians, self.bottoms, strict=True)])
        size = np.linalg.norm(true, axis=1, keepdims=True) / np.sqrt(self.dim)
        drawn = self.draw.standard_normal(true.shape) * size
        return np.where(self.sign == 0.0, drawn, self.sign * true + self.noise * drawn)

    def problem(self, evaluations, **more):
        """From the middle of the cube."""
        objectives = tuple(Objective(f"o{j}", Direction.MIN, low=0.0, high=1.0) for j in range(len(self.bottoms)))
        return Problem(self.dim, objectives, np.full(self.dim, 0.5), evaluations, gradients=("loss", "kl"), **more)

    def observe(self, candidate):
        """What an evaluation gives."""
        m, wanted = len(self.bottoms), bool(candidate.request.gradient)
        guides, gradients = (self.guides(candidate.point), self.gradients(candidate.point)) if wanted else (None, None)
        return Observation(self.metrics(candidate.point), np.full(m, 0.01), np.full(m, 500.0), guides, gradients)

    def front_volume(self):
        """Hypervolume of the true front below (1, ..., 1), from 300 preferences."""
        weights = np.vstack([np.random.default_rng(1).dirichlet(np.ones(len(self.bottoms)), 300)])
        rows = []
        for row in weights:
            h = sum(w * a for w, a in zip(row, self.hessians, strict=True))
            b = sum(w * a @ o for w, a, o in zip(row, self.hessians, self.bottoms, strict=True))
            rows.append(self.metrics(np.clip(np.linalg.solve(h, b), 0.0, 1.0)))
        return hypervolume(np.array(rows), np.ones(len(self.bottoms)))


def search(bowls, budget, seed=0, workers=1, fails=(), **options):
    """The strategy, its log, and all points, after spending `budget`; results come in the order asked."""
    of = bowls.problem(budget)
    subject = GradientMap(of, seed, GradientMap.Options(**options))
    log, busy, points, spent, number = [], [], [], 0.0, 0
    while True:
        proposal = subject.ask(number) if len(busy) < workers else None
        cost = proposal.request.cost(of.gradient_cost) if proposal else 0.0
        if proposal and spent + cost <= budget - 1.0:
            candidate = Candidate(number, proposal.point, proposal.origin, proposal.request, cost)
            subject.asked(candidate)
            log.append(("asked", candidate, None))
            busy.append(candidate)
            points.append(candidate.point)
            spent, number = spent + cost, number + 1
            continue
        if not busy:
            return subject, log, points
        candidate = busy.pop(0)
        seen = None if candidate.number in fails else bowls.observe(candidate)
        log.append(("told", candidate, seen))
        subject.tell(candidate, seen)


def records_of(bowls, points):
    """Records of exact guides and gradients at points (N, D)."""
    guides = np.array([bowls.guides(x) for x in points])
    return Records(np.array(points), guides, np.array([bowls.gradients(x) for x in points]))


def test_surrogate_meets_values_and_gradients_at_its_nodes():
    """At a measured point the surrogate has the measured guide and gradient."""
    bowls = Bowls(9, 2)
    records = records_of(bowls, np.random.default_rng(0).uniform(0.3, 0.7, (6, 9)))
    model = surrogate(records, records.points[0], 1.0, 1e-6)
    assert np.allclose(model.guides(records.points), records.guides, atol=1e-9)
    for j in range(2):
        slopes = model.descent(records.points, np.tile(np.eye(2)[j], (6, 1)))[0]
        assert np.allclose(slopes, records.gradients[:, j], atol=1e-8)


def test_curvature_is_recovered_and_symmetric():
    """D + 1 points determine a quadratic's Hessians; products agree with weighted sums of them."""
    bowls = Bowls(8, 3)
    records = records_of(bowls, np.random.default_rng(0).uniform(0.2, 0.8, (40, 8)))
    fitted = curvature(records, np.full(8, 0.5), 2.0, 1e-3)
    dense = fitted.times(np.eye(8))  # (M, D, D)
    assert np.allclose(dense, dense.transpose(0, 2, 1), atol=1e-12)
    truth = np.array(bowls.hessians)
    assert np.linalg.norm(dense - truth) < 0.05 * np.linalg.norm(truth)
    weights = np.random.default_rng(1).random((8, 3))
    assert np.allclose(fitted.weighted(np.eye(8), weights), np.einsum("mkd,km->kd", dense, weights))
    assert np.all(fitted.bound() >= np.abs(np.linalg.eigvalsh(dense)).max(axis=1) - 1e-9)


def test_one_record_is_a_linear_surrogate():
    """Without a second point there is no curvature, and steps stay within the cap and the cube."""
    bowls = Bowls(5, 2)
    records = records_of(bowls, np.full((1, 5), 0.5))
    model = surrogate(records, records.points[0], 1.0, 1e-3)
    assert not model.hessian.times(np.eye(5)).any()
    found = minima(model, preferences(20, np.ones(2), 0), Reach(0.1, np.zeros(2)), records.guides)
    assert np.all(np.linalg.norm(found - 0.5, axis=1) < 0.1 + 1e-9)
    assert np.all(np.linalg.norm(found - 0.5, axis=1) > 0.03)


def test_minima_solve_every_preference_of_a_known_quadratic():
    """With the Hessians known, each preference's point is its exact optimum."""
    bowls = Bowls(6, 2)
    records = records_of(bowls, np.random.default_rng(0).uniform(0.3, 0.7, (30, 6)))
    model = surrogate(records, np.full(6, 0.5), 5.0, 1e-4)
    weights = preferences(16, np.ones(2), 0)
    found = minima(model, weights, Reach(1.0, np.zeros(2)), records.guides)
    for row, x in zip(weights, found, strict=True):
        h = sum(w * a for w, a in zip(row, bowls.hessians, strict=True))
        b = sum(w * a @ o for w, a, o in zip(row, bowls.hessians, bowls.bottoms, strict=True))
        best, start = row @ bowls.guides(np.clip(np.linalg.solve(h, b), 0, 1)), row @ bowls.guides(np.full(6, 0.5))
        assert row @ bowls.guides(x) - best < 0.05 * (start - best) + 1e-3


def test_preferences_hold_own_equal_and_single_weights():
    """The study's own weights come first, all sum to 1, none is there twice."""
    rows = preferences(30, np.array([3.0, 1.0, 0.0]), 5)
    assert np.allclose(rows[0], [0.75, 0.25, 0.0])
    assert np.allclose(rows.sum(axis=1), 1.0)
    assert all(np.any(np.all(np.isclose(rows, row), axis=1)) for row in (np.full(3, 1 / 3), *np.eye(3)))
    assert len(np.unique(rows, axis=0)) == len(rows) > 30
    assert preferences(30, np.array([2.0]), 5).tolist() == [[1.0]]


def test_ruler_never_promises_a_rising_metric():
    """Guides are read in metric units with a slope above zero, even where the metric is noise."""
    guides = np.random.default_rng(0).random((30, 2))
    told = np.stack([0.4 * guides[:, 0] + 0.1, np.random.default_rng(1).random(30)], axis=1)
    scale = ruler(guides, told)
    assert scale.slope[0] == pytest.approx(0.4)
    assert scale.slope[1] > 0
    assert np.allclose(scale.losses(guides)[:, 0], told[:, 0])
    assert ruler(guides[:1], told[:1]).slope.tolist() == [1.0, 1.0]


def test_order_fills_the_gaps_of_a_front():
    """Dominated rows and rows beside what is believed come last."""
    believed = np.array([[0.0, 1.0], [1.0, 0.0]])
    rows = np.array([[0.01, 0.99], [0.3, 0.3], [0.9, 0.9], [0.1, 0.6]])
    assert spread_order(rows, believed, 4)[:2].tolist() == [1, 3]
    assert sorted(spread_order(rows, believed, 9).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("dim", [1, 24])
def test_one_objective_descends_like_newton(dim):
    """After a cost of 60 less than 1 % of the start's loss is left, in the median of three seeds."""
    left = []
    for seed in range(3):
        bowls = Bowls(dim, 1, seed)
        subject, _, _ = search(bowls, 60, seed)
        left.append(bowls.metrics(subject.recommend())[0] / bowls.metrics(np.full(dim, 0.5))[0])
    assert np.median(left) < 0.01


@pytest.mark.parametrize(("noise", "steps", "bar"), [(0.0, 0, 0.9), (0.3, 0, 0.88), (0.0, 50, 0.88)])
def test_front_in_tens_of_evaluations(noise, steps, bar):
    """Two objectives of 24 axes, cost 40 (less than two evaluations an axis): exact, noisy, and coarse metrics."""
    shares = []
    for seed in range(3):
        bowls = Bowls(24, 2, seed, noise=noise, steps=steps)
        _, _, points = search(bowls, 40, seed)
        reached = hypervolume(np.array([bowls.metrics(x) for x in points]), np.ones(2))
        shares.append(reached / bowls.front_volume())
    assert np.median(shares) > bar


def test_front_of_many_axes_beats_the_start_by_far():
    """96 axes, 3 objectives, cost 60: most of what is between the start and the true front."""
    bowls = Bowls(96, 3, 0)
    subject, _, points = search(bowls, 60)
    reached = hypervolume(np.array([bowls.metrics(x) for x in points]), np.ones(3))
    first = hypervolume(bowls.metrics(points[0])[None], np.ones(3))
    assert reached - first > 0.75 * (bowls.front_volume() - first)
    assert not subject.notes()


@pytest.mark.parametrize("sign", [-1.0, 0.0, (1.0, -1.0)])
def test_wrong_gradients_are_noticed_named_and_left_alone(sign):
    """A wrong sign, nonsense, or one wrong objective of two: reported, and the search goes on by values and gains."""
    for seed in range(3):
        bowls = Bowls(12, 2, seed, sign=sign)
        subject, log, points = search(bowls, 90, seed)
        asked = [c for what, c, _ in log if what == "asked"]
        assert len(subject.notes()) == 1
        assert ("o1" if np.ndim(sign) else "o") in subject.notes()[0].split("): ")[1]
        assert sum(bool(c.request.gradient) for c in asked) <= 12
        assert not asked[-1].request.gradient
        assert subject.diagnostics()["by_values"] == 1.0
        assert bowls.metrics(subject.recommend()).mean() < bowls.metrics(points[0]).mean()


def test_right_gradients_are_never_distrusted():
    """Noise of a third of the gradient's norm raises no false alarm."""
    for seed in range(4):
        subject, _, _ = search(Bowls(16, 2, seed, noise=0.33), 60, seed)
        assert subject.notes() == ()
        assert subject.diagnostics()["agreement[o0]"] > 0.8


def test_gradients_that_never_come_are_noted():
    """Where evaluations bring none though they were asked for, values must do."""
    bowls = Bowls(4, 1)
    subject = GradientMap(bowls.problem(40), 0, GradientMap.Options())
    for number in range(20):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin, proposal.request)
        subject.asked(candidate)
        subject.tell(candidate, Observation(bowls.metrics(candidate.point), np.zeros(1), np.ones(1)))
    assert ["brought no gradients" in note for note in subject.notes()] == [True]
    assert not subject.ask(20).request.gradient
    assert bowls.metrics(subject.recommend())[0] < bowls.metrics(np.full(4, 0.5))[0]


def test_a_start_that_serves_as_zero_gradient_is_survived():
    """A constant objective, whose gradient is zero, neither raises an alarm nor stops the other."""
    bowls = Bowls(6, 2)
    bowls.hessians[1] = np.zeros((6, 6))
    subject, _, points = search(bowls, 40)
    assert not subject.notes()
    assert bowls.metrics(subject.recommend())[0] < 0.2 * bowls.metrics(points[0])[0]


def test_workers_make_a_front_too():
    """Eight at a time, results late: at most 5 % less volume than one at a time, and never the same point twice."""
    bowls = Bowls(24, 2, 3)
    volumes = []
    for workers in (1, 8):
        _, _, points = search(bowls, 80, workers=workers)
        assert len({x.tobytes() for x in points}) == len(points)
        volumes.append(hypervolume(np.array([bowls.metrics(x) for x in points]), np.ones(2)))
    assert volumes[1] > 0.95 * volumes[0]


def test_sixteen_workers_wait_for_the_first_gradient():
    """Before the first gradient is told only so many guesses are made; then it waits."""
    subject = GradientMap(Bowls(24, 2).problem(200), 0, GradientMap.Options())
    proposals = []
    for number in range(16):
        proposal = subject.ask(number)
        if proposal is None:
            break
        subject.asked(Candidate(number, proposal.point, proposal.origin, proposal.request))
        proposals.append(proposal)
    assert 8 <= len(proposals) < 16


def test_first_gradients_that_fail_are_asked_for_again():
    """A start that fails, and the next ones, are followed by further gradients, and the search gets there."""
    bowls = Bowls(8, 2)
    subject, _, points = search(bowls, 60, fails=(0, 1, 2, 3))
    assert subject.notes() == ()
    assert bowls.metrics(subject.recommend()).mean() < 0.8 * bowls.metrics(points[0]).mean()


def test_failures_shorten_steps_and_successes_lengthen_them():
    """A failed evaluation takes from the cap, down to a floor; a prediction that came true doubles it."""
    trust = first_trust(1, 0.1, 4)
    assert trust.cap == pytest.approx(0.2)
    assert trust.failed().cap < trust.cap
    for _ in range(50):
        trust = trust.failed()
    assert trust.cap == pytest.approx(0.02)
    bowls = Bowls(4, 1)
    records = records_of(bowls, np.random.default_rng(0).uniform(0.45, 0.55, (12, 4)))
    model, cap = surrogate(records, records.points[0], 1.0, 1e-4), first_trust(1, 0.1, 4).cap
    point = records.points[0] + cap * np.array([1.0, 0.0, 0.0, 0.0])
    nearer = first_trust(1, 0.1, 4).seen(model, point, bowls.guides(point))
    assert nearer.cap == pytest.approx(2 * cap)
    assert first_trust(1, 0.1, 4).seen(model, point, bowls.guides(point) + 50.0).cap == pytest.approx(0.5 * cap)


def test_agreement_tells_a_sign_from_a_ripple():
    """+1 for exact gradients of a quadratic, -1 for the wrong sign, whatever the points."""
    for sign in (1.0, -1.0):
        bowls = Bowls(5, 2, sign=sign)
        records = records_of(bowls, np.random.default_rng(0).uniform(0.2, 0.8, (8, 5)))
        found = no_agreement(2)
        for row in range(1, 8):
            found = found.after(records.chosen(slice(0, row)), records.chosen(slice(row, row + 1)))
        assert np.allclose(found.cosine, sign)
        assert found.faulty == (() if sign > 0 else (0, 1))


def test_replay_of_a_long_study_is_exact_and_quick():
    """A strategy told only the log proposes and recommends the same, failures and late results included."""
    bowls = Bowls(12, 3, 1)
    subject, log, points = search(bowls, 100, workers=4, fails=(3, 8, 9, 30))
    resumed = replay(log, GradientMap(bowls.problem(100), 0, GradientMap.Options()))
    number = len(points)
    for ahead in range(3):
        assert same(resumed.ask(number + ahead), subject.ask(number + ahead))
    assert resumed.recommend().tobytes() == subject.recommend().tobytes()
    assert dict(resumed.diagnostics()) == dict(subject.diagnostics())


def test_gradients_end_where_their_share_of_the_budget_does():
    """A third of the budget goes to gradients by default; with one objective nearly all; the start always has one."""
    for objectives, least, most in ((2, 6, 7), (1, 16, 18)):
        _, log, _ = search(Bowls(8, objectives), 60)
        asked = [c for what, c, _ in log if what == "asked"]
        wanted = sum(c.request.gradient == "loss" for c in asked)
        assert asked[0].request.gradient
        assert least <= wanted <= most
    _, log, _ = search(Bowls(8, 2), 60, loss="kl", gradient_share=0.2)
    assert [c.request.gradient for what, c, _ in log if what == "asked"][:5] == ["kl"] * 4 + [""]


def test_an_unknown_loss_is_refused():
    """The sentence says which ones there are."""
    with pytest.raises(SpecError, match="loss, kl"):
        GradientMap(Bowls(3, 1).problem(9), 0, GradientMap.Options(loss="entropie"))


def test_asking_is_quick_for_many_axes():
    """384 axes, 3 objectives: half a second of CPU an evaluation at most, in the mean."""
    bowls = Bowls(384, 3)
    before = time.process_time()
    _, _, points = search(bowls, 30)
    assert (time.process_time() - before) / len(points) < 0.5
