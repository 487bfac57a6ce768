"""Evo-Merging searches densities first, then signed scales with the densities held, on one log."""

import numpy as np
import pytest

from mergesearch.space import Knob, KnobRange, Per, Scale, build_space
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.evo_blackbox import EvoBlackbox
from mergesearch.strategies.random import Random
from mergesearch.types import Candidate, Direction, Objective

COST = (Objective("loss", Direction.MIN),)
KNOBS = (Knob("coefficient", -2.0, 2.0, 0.5), Knob("density", 0.05, 1.0, 0.5), Knob("scale", 0.0, 2.0, 1.0, Per.GROUP))
EXPERTS = 5


def space(*names):
    """Axes for the knobs named."""
    ranges = {
        "coefficient": KnobRange(-2.0, 2.0, 0.5, Per.EXPERT, Scale.LINEAR),
        "density": KnobRange(0.05, 1.0, 0.5, Per.EXPERT, Scale.LINEAR),
        "scale": KnobRange(0.0, 2.0, 1.0, Per.STUDY, Scale.LINEAR),
    }
    return build_space(KNOBS, [f"e{k}" for k in range(EXPERTS)], ["g"], {n: ranges[n] for n in names}, {})


def loss_of(of):
    """A bowl: densities of 0.6, and one expert with a negative sign."""
    wanted = np.array([0.9, -0.5, 0.3, 0.0, 0.6])

    def loss(point):
        settings = of.decode(point)
        off = np.sum(np.square(settings["coefficient"][0] - wanted))
        return float(off + 0.5 * np.sum(np.square(settings["density"][0] - 0.6)))

    return loss


def run(cls, of, evaluations, seed=0, workers=1, **options):
    """(strategy, proposals' origins, points, losses) of a search whose evaluations end in a shuffled order."""
    subject = cls(Problem(of.dim, COST, of.start, evaluations, space=of), seed, cls.Options(**options))
    loss, shuffle, busy, origins, points, losses = loss_of(of), np.random.default_rng(seed), [], [], [], []
    for number in range(evaluations):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin)
        subject.asked(candidate)
        origins.append(proposal.origin)
        points.append(candidate.point)
        busy.append(candidate)
        if len(busy) >= workers:
            done = busy.pop(int(shuffle.integers(len(busy))))
            losses.append(loss(done.point))
            subject.tell(done, Observation(np.array([losses[-1]]), np.zeros(1), np.ones(1)))
    return subject, origins, np.array(points), np.array(losses)


@pytest.mark.parametrize("workers", [1, 8])
def test_two_stages(workers):
    """A third of the budget varies densities at coefficients of 1/N; then densities are held and scales vary."""
    of = space("coefficient", "density")
    subject, origins, points, _ = run(EvoBlackbox, of, 120, workers=workers)
    assert origins == ["start", *["sparsity"] * 40, *["scale"] * 79]
    values = [of.decode(p) for p in points]
    assert all(np.allclose(v["coefficient"], 1 / EXPERTS) for v in values[1:41])
    held = values[41]["density"]
    assert all(np.allclose(v["density"], held) for v in values[41:])
    assert np.all(held < 1.0)
    assert subject.diagnostics()["stage"] == 2.0
    assert "scale stage begins" in subject.notes()[-1]


def test_densities_begin_at_one():
    """The first densities lie at the dense end, the first scales around 1/N."""
    of = space("coefficient", "density")
    _, _, points, _ = run(EvoBlackbox, of, 120)
    values = [of.decode(p) for p in points]
    assert np.mean([v["density"] for v in values[1:15]]) > 0.8
    assert abs(np.mean([v["coefficient"] for v in values[41:61]]) - 1 / EXPERTS) < 0.15


def test_scales_stay_within_the_limit():
    """Coefficients stay within ±1.5, though their axes go to ±2, and take both signs."""
    of = space("coefficient")
    subject, origins, points, _ = run(EvoBlackbox, of, 200)
    weights = np.array([of.decode(p)["coefficient"][0] for p in points[1:]])
    assert np.abs(weights).max() <= 1.5 + 1e-9
    assert weights.min() < 0.0
    assert set(origins[1:]) == {"scale"}
    assert "no density" in subject.notes()[0]


def test_beats_random():
    """Lower losses than random points (median of seeds), negative scale included."""
    of = space("coefficient", "density")
    ours = [run(EvoBlackbox, of, 240, seed)[3].min() for seed in range(3)]
    theirs = [run(Random, of, 240, seed)[3].min() for seed in range(3)]
    assert np.median(ours) < 0.5 * np.median(theirs)


def test_the_recommendation_is_better_than_the_start():
    """The mean of the last stage is recommended, nothing before the first update."""
    of = space("coefficient", "density")
    loss = loss_of(of)
    assert run(EvoBlackbox, of, 10)[0].recommend() is None
    assert loss(run(EvoBlackbox, of, 240)[0].recommend()) < 0.5 * loss(of.start)


def test_spaces_without_the_usual_knobs():
    """Densities alone, or a common scale alone, are searched with a sentence about it."""
    for names, origin in ((("density",), "sparsity"), (("scale",), "scale"), (("density", "scale"), "scale")):
        of = space(*names)
        subject = EvoBlackbox(Problem(of.dim, COST, of.start, 30, space=of), 0, EvoBlackbox.Options())
        for number in range(30):
            proposal = subject.ask(number)
            candidate = Candidate(number, proposal.point, proposal.origin)
            subject.asked(candidate)
            value = float(np.sum(np.square(candidate.point - 0.4)))
            subject.tell(candidate, Observation(np.array([value]), np.zeros(1), np.ones(1)))
        assert proposal.origin == origin
        assert subject.notes()
