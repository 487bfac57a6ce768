"""M2N2: resources, attraction and cuts as in the paper; its recipes are those of the merged weights themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.space import Knob, KnobRange, Per, Scale, build_space
from mergesearch.strategies.base import Geometry, Observation, Problem
from mergesearch.strategies.evolving.segments import Segments
from mergesearch.strategies.m2n2 import M2n2, attraction, child, fitness, slerp
from mergesearch.strategies.random import Random
from mergesearch.types import Candidate, Direction, Objective, frozen_array

ACCURACY = (Objective("accuracy", low=0.0, high=1.0),)
KNOBS = (Knob("coefficient", 0.0, 1.5, 0.3), Knob("density", 0.1, 1.0, 0.5))
SCORES = np.array([[1, 1, 0, 0, 1], [1, 0, 1, 0, 0], [0, 1, 1, 1, 0]], dtype=float)


def space(experts=2, groups=4, density=True, low=0.0, high=1.5):
    """Coefficients by expert and group, and a density for the study."""
    searched = {"coefficient": KnobRange(low, high, 0.3, Per.EXPERT_GROUP, Scale.LINEAR)}
    if density:
        searched["density"] = KnobRange(0.1, 1.0, 0.5, Per.STUDY, Scale.LINEAR)
    return build_space(KNOBS, [f"e{k}" for k in range(experts)], [f"g{g}" for g in range(groups)], searched, {})


def problem(of, geometry=None, evaluations=100, objectives=ACCURACY):
    """A problem over a space."""
    return Problem(of.dim, objectives, of.start, evaluations, space=of, geometry=geometry)


def told(losses, examples=None):
    """An observation of losses (M,) and per-example losses."""
    m = len(losses)
    return Observation(np.array(losses), np.zeros(m), np.ones(m), examples=examples)


def test_golden_of_the_card():
    """Demand, fitness with and without competition, and attraction of three members on five examples."""
    ones = np.ones(5)
    assert np.allclose(SCORES.sum(axis=0), [2, 2, 2, 1, 1])
    assert np.allclose(fitness(SCORES, ones), [2, 1, 2], atol=1e-6)
    assert np.allclose(fitness(SCORES, ones, 0.0), [3, 2, 3], atol=1e-6)
    for first, wanted in enumerate(([0, 0.5, 1.5], [1.5, 0, 1.5], [1.5, 0.5, 0])):
        assert np.allclose(attraction(SCORES, ones, first), wanted, atol=1e-6)


def test_golden_child():
    """The card's child of two vectors, and the angle between them."""
    a, b = np.array([1.0, 0, 2, 1]), np.array([0.0, 1, 1, 2])
    assert np.arccos(a @ b / 6.0) == pytest.approx(0.841069, abs=1e-6)
    found = child(a, b, 0.25, np.arange(4) < 2, np.eye(4))
    assert np.allclose(found, (0.791289, 0.280029, 1.351347, 1.862607), atol=1e-6)


def test_parallel_vectors_mix_straight():
    """Where there is no angle, or no length, or no geometry, the mixture is linear."""
    a = np.array([1.0, 2.0])
    for b, gram in ((2 * a, np.eye(2)), (np.zeros(2), np.eye(2)), (np.array([5.0, 1.0]), None)):
        assert np.allclose(slerp(a, b, 0.25, gram), 0.75 * a + 0.25 * b)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1_000))
def test_recipes_are_the_sequential_slerps(seed):
    """Coefficients by group, bred over generations, merge to what slerps of the whole weights give."""
    random, groups, experts, size = np.random.default_rng(seed), 4, 2, 5
    changes = random.standard_normal((groups, experts, size))
    geometry = Geometry(np.einsum("gks,gls->gkl", changes, changes), np.ones(groups), np.full(groups, float(size)))
    segments = Segments.of(problem(space(density=False), geometry))
    recipes = [segments.values(p) for p in segments.alone]
    weights = [changes[:, k].copy() for k in range(experts)]
    for _ in range(6):
        i, j = random.permutation(len(recipes))[:2]
        t, cut = float(random.random()), segments.cut(float(random.random()))
        recipes.append(child(recipes[i], recipes[j], t, segments.left_of(cut), segments.gram))
        a, b = weights[i].ravel(), weights[j].ravel()
        cosine = np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1.0, 1.0)
        omega = np.arccos(cosine)
        if np.sin(omega) < 1e-3:
            return
        both = [(np.sin((1 - s) * omega) * a + np.sin(s * omega) * b) / np.sin(omega) for s in (t, 1.0 - t)]
        weights.append(np.where(np.arange(groups * size) < cut * size, *both).reshape(groups, size))
    rebuilt = np.einsum("gk,gks->gs", recipes[-1].reshape(groups, experts), changes)
    assert np.allclose(rebuilt, weights[-1], rtol=1e-6, atol=1e-6)


def test_cuts_follow_the_sizes():
    """Boundaries lie between groups, are hit in proportion to the groups' sizes, and are never the ends."""
    geometry = Geometry(np.tile(np.eye(2), (4, 1, 1)), np.ones(4), np.array([1.0, 1.0, 1.0, 97.0]))
    segments = Segments.of(problem(space(), geometry))
    cuts = [segments.cut(u) for u in np.linspace(0.0, 0.999, 200)]
    assert set(cuts) == {1, 2, 3}
    assert cuts.count(3) > 180
    assert Segments.of(problem(space(groups=1))).cut(0.7) == 1


def test_what_is_no_coefficient_stays():
    """A density stays at the start in every proposal, which the notes say; so do ranges hold."""
    of = space(low=-1.0, high=0.9)
    subject = M2n2(problem(of), 0, M2n2.Options(archive_size=4))
    random = np.random.default_rng(0)
    for number in range(40):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin)
        assert candidate.point[-1] == of.start[-1]
        subject.asked(candidate)
        subject.tell(candidate, told([-0.5], (-random.integers(0, 2, 30).astype(np.float32),)))
    assert any("stay at the start" in note for note in subject.notes())


def test_begins_with_start_seeds_and_experts_alone():
    """The archive begins with what is known: the start, the seeds, and every expert alone, each once."""
    of = space()
    alone = of.encode({"coefficient": np.tile([1.0, 0.0], (4, 1))})
    seeds = (alone, np.clip(of.start + 0.1, 0.0, 1.0))
    subject = M2n2(Problem(of.dim, ACCURACY, of.start, 100, seeds, space=of), 0, M2n2.Options())
    proposals = [subject.ask(n) for n in range(5)]
    assert [p.origin for p in proposals] == ["start", "seed", "seed", "seed", "child"]
    assert np.allclose(of.decode(proposals[1].point)["coefficient"], [[1.0, 0.0]] * 4)
    assert np.allclose(of.decode(proposals[3].point)["coefficient"], [[0.0, 1.0]] * 4)
    assert proposals[2].point[-1] == of.start[-1]


def pool_losses(of, weights):
    """Per-example losses: examples of task k are solved by a coefficient of expert k that depends on the group."""

    def examples(point):
        values = of.decode(point)["coefficient"]  # (G, K)
        seen = np.abs(values - weights).mean(axis=0)  # (K,)
        thresholds = np.linspace(0.02, 1.0, 40)
        return -(seen[:, None] < thresholds).astype(np.float32).ravel()

    return examples


def best_mean(cls, seed, evaluations=150):
    """Best mean accuracy that a search met on a pool whose good coefficients change in the middle of depth."""
    of = space(experts=3, groups=8, density=False)
    # early groups want the first expert's half, late ones the second's: what a cut can bring together
    weights = np.array([[1.0, 0.0, 0.0]] * 4 + [[0.0, 1.0, 0.6]] * 4)
    examples = pool_losses(of, weights)
    subject = cls(problem(of, evaluations=evaluations), seed, cls.Options())
    best = 0.0
    for number in range(evaluations):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin)
        subject.asked(candidate)
        losses = examples(candidate.point)
        best = max(best, -float(losses.mean()))
        subject.tell(candidate, told([float(losses.mean())], (losses,)))
    return best


def test_beats_random():
    """Higher accuracy than random points (median of seeds) where experts complement each other in depth."""
    ours, theirs = ([best_mean(cls, seed) for seed in range(3)] for cls in (M2n2, Random))
    assert np.median(ours) > np.median(theirs) + 0.05


def test_competition_keeps_the_specialist():
    """Who alone solves an example stays in the archive, though its mean is the lowest."""
    of = space()
    subject = M2n2(problem(of), 0, M2n2.Options(archive_size=4))
    common, rare = -np.array([1, 1, 1, 0], dtype=np.float32), -np.array([0, 0, 0, 1], dtype=np.float32)
    special = Candidate(0, np.full(of.dim, 0.9))
    for number, losses in enumerate([rare, common, common, common, common, common]):
        candidate = special if number == 0 else Candidate(number, np.full(of.dim, 0.1 * number))
        subject.asked(candidate)
        subject.tell(candidate, told([float(losses.mean())], (losses,)))
    figures = subject.diagnostics()
    assert (figures["members"], figures["dropped"], figures["covered"]) == (4.0, 2.0, pytest.approx(1.0))


def test_objectives_weigh_by_weight_and_not_by_examples():
    """Two objectives of equal weight earn the same from very different numbers of examples."""
    two = (Objective("a", low=0.0, high=1.0), Objective("b", Direction.MIN))
    of = space()
    subject = M2n2(problem(of, objectives=two), 0, M2n2.Options(archive_size=2))
    for number, (a, b) in enumerate([(-1.0, 5.0), (0.0, 1.0)]):
        candidate = Candidate(number, np.full(of.dim, 0.3 + 0.1 * number))
        subject.asked(candidate)
        examples = (np.full(2, a, dtype=np.float32), np.full(200, b, dtype=np.float32))
        subject.tell(candidate, told([a, b], examples))
    f = fitness(subject._scores(), subject._capacities())
    assert f[0] == pytest.approx(f[1], rel=1e-6)


def test_nan_examples_score_nothing():
    """A NaN among the examples is the worst score, not an error."""
    of = space()
    subject = M2n2(problem(of), 0, M2n2.Options(archive_size=2))
    for number in range(6):
        candidate = Candidate(number, subject.ask(number).point)
        subject.asked(candidate)
        subject.tell(candidate, told([-0.5], (np.array([np.nan, -1.0], dtype=np.float32),)))
    assert subject.diagnostics()["covered"] == pytest.approx(0.5)


def test_without_a_space_every_axis_is_a_segment():
    """A black box is cut between any two axes, mixed straight, and it says so."""
    subject = M2n2(Problem(5, ACCURACY, frozen_array(np.full(5, 0.4)), 50), 0, M2n2.Options())
    assert subject.diagnostics()["cuts"] == 4.0
    assert "segment of its own" in subject.notes()[0]
