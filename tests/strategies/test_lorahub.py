"""LoraHub searches weights from nothing in [-1.5, 1.5], told the loss with its penalty."""

import numpy as np
import pytest

from mergesearch.space import Knob, KnobRange, Per, Scale, build_space
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.evolving.stage import Stage, axes_of
from mergesearch.strategies.lorahub import Lorahub
from mergesearch.strategies.random import Random
from mergesearch.types import Candidate, Direction, Objective

COST = (Objective("loss", Direction.MIN),)
KNOBS = (Knob("coefficient", -2.0, 2.0, 0.5), Knob("density", 0.1, 1.0, 0.5))


def space(experts=8, low=-2.0, high=2.0, density=True):
    """A weight for each expert, and a density for the study."""
    searched = {"coefficient": KnobRange(low, high, max(0.5, low), Per.EXPERT, Scale.LINEAR)}
    if density:
        searched["density"] = KnobRange(0.1, 1.0, 0.5, Per.STUDY, Scale.LINEAR)
    return build_space(KNOBS, [f"e{k}" for k in range(experts)], ["g"], searched, {})


def run(cls, of, function, evaluations, seed=0, **options):
    """(strategy, points, losses) of a search."""
    subject = cls(Problem(of.dim, COST, of.start, evaluations, space=of), seed, cls.Options(**options))
    points, losses = [], []
    for number in range(evaluations):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin)
        subject.asked(candidate)
        points.append(candidate.point)
        losses.append(function(candidate.point))
        subject.tell(candidate, Observation(np.array([losses[-1]]), np.zeros(1), np.ones(1)))
    return subject, np.array(points), np.array(losses)


def sparse_pool(of):
    """The loss of a new task to which two of the adapters contribute, one of them with a negative sign."""
    wanted = np.zeros(8)
    wanted[[1, 5]] = 0.9, -0.6

    def loss(point):
        return float(np.sum(np.square(of.decode(point)["coefficient"][0] - wanted)))

    return loss


def test_golden_composition():
    """The card's example: summing factors apart mixes adapters crosswise, summing their products does not."""
    b, a = np.eye(2), np.eye(2)  # adapter k is the outer product of column k of b with row k of a
    w = np.array([0.5, 0.5])
    theirs = np.outer(b @ w, w @ a)
    ours = sum(w[k] * np.outer(b[:, k], a[k]) for k in range(2))
    assert np.allclose(theirs, 0.25)
    assert np.allclose(ours, np.diag([0.5, 0.5]))


def test_weights_begin_at_nothing_and_stay_within_the_limit():
    """Samples lie around 0 and never beyond ±1.5, though the axes go to ±2; the density stays at the start."""
    of = space()
    subject, points, _ = run(Lorahub, of, sparse_pool(of), 60)
    weights = np.array([of.decode(p)["coefficient"][0] for p in points[1:]])
    assert np.array_equal(points[0], of.start)
    assert np.abs(weights).max() <= 1.5 + 1e-9
    assert np.abs(weights[:12].mean()) < 0.1
    assert np.allclose(points[:, -1], of.start[-1])
    assert any("stay at the start" in note for note in subject.notes())


def test_an_axis_without_nothing_begins_at_its_edge():
    """Where an axis begins above 0 the search begins at that edge; where it lies beyond the limit its range counts."""
    for low, high in ((0.2, 2.0), (1.6, 2.0)):
        of = space(low=low, high=high, density=False)
        _, points, _ = run(Lorahub, of, lambda point: float(point.sum()), 30)
        weights = np.array([of.decode(p)["coefficient"][0] for p in points])
        assert weights.min() >= low
        assert weights.max() <= high


def test_the_penalty_is_told():
    """What the optimizer hears is the loss plus 0.05 mean |w|."""
    of, heard = space(density=False), []

    class Ear:
        def ask(self, number):
            return None

        def asked(self, candidate):
            pass

        def tell(self, candidate, observation):
            heard.append(float(observation.losses[0]))

    problem = Problem(of.dim, COST, of.start, 10, space=of)
    stage = Stage(problem, axes_of(problem, "coefficient"), of.start, 0.0, (-1.5, 1.5), 0.05, lambda inner: Ear())
    point = of.encode({"coefficient": np.array([[1.0, -1.0, 0.5, 0, 0, 0, 0, 0]])})
    stage.tell(1, Candidate(1, point), Observation(np.array([2.0]), np.zeros(1), np.ones(1)))
    assert heard == [pytest.approx(2.0 + 0.05 * 2.5 / 8)]


@pytest.mark.parametrize("optimizer", ["cma_es", "ngopt"])
def test_beats_random(optimizer):
    """With 60 evaluations it finds lower losses than random points (median of seeds), either way."""
    of = space()
    loss = sparse_pool(of)
    ours = [run(Lorahub, of, loss, 60, seed, optimizer=optimizer)[2].min() for seed in range(3)]
    theirs = [run(Random, of, loss, 60, seed)[2].min() for seed in range(3)]
    assert np.median(ours) < 0.6 * np.median(theirs)


def test_recommends_after_a_few_updates():
    """The recommended weights are better than none, and no recommendation comes before the first update."""
    of = space()
    loss = sparse_pool(of)
    assert run(Lorahub, of, loss, 3)[0].recommend() is None
    nothing = loss(of.encode({"coefficient": np.zeros((1, 8))}))
    assert loss(run(Lorahub, of, loss, 80)[0].recommend()) < nothing


def test_a_black_box_is_all_weights():
    """Where axes mean nothing all are weights, the unit interval standing for [-1.5, 1.5]."""
    subject = Lorahub(Problem(4, COST, np.full(4, 0.2), 40), 0, Lorahub.Options())
    points = np.array([subject.ask(n).point for n in range(1, 9)])
    assert abs(points.mean() - 0.5) < 0.1
    assert "all axes" in subject.notes()[0]
