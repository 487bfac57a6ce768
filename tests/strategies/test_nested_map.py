"""Nested MAP: closest pairs first, scales multiply along the tree, a known optimum of two and four experts is found."""

import numpy as np
import pytest
from strategies.test_quadratic import search

from mergesearch.space import Axis, KnobSlots, SearchSpace
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.nested_map import NestedMap
from mergesearch.types import Candidate, Direction, Objective

COST = (Objective("cost", Direction.MIN),)


def experts(many, groups=2, high=1.5):
    """A space of one coefficient per expert and group in [0, high], starting at 0.3."""
    axes = tuple(Axis(f"c.e{k}.g{g}", 0.0, high, 0.3) for g in range(groups) for k in range(many))
    index = np.arange(groups * many).reshape(groups, many)
    slots = (KnobSlots("c", index, np.zeros((groups, many))),)
    return SearchSpace(axes, tuple(f"e{k}" for k in range(many)), tuple(f"g{g}" for g in range(groups)), slots)


def test_every_expert_alone_opens_the_design():
    """After the start and one equal scale each expert stands alone at 1, in all of its groups."""
    space = experts(3)
    subject = NestedMap(Problem(6, COST, space.start, 60, space=space), 0, NestedMap.Options())
    for k in range(3):
        settings = space.decode(subject.ask(2 + k).point)["c"]
        assert np.allclose(settings, np.eye(3)[k])


def test_scales_multiply_along_the_tree():
    """Four experts with best scales (.8, .6, .5, .9): found, as products of two scales on each path."""
    space, best = experts(4), np.array([0.8, 0.6, 0.5, 0.9])

    def loss(x, number):
        return np.array([np.sum(np.square(space.decode(x)["c"] - best))])

    of = Problem(8, COST, space.start, 80, space=space)
    subject, _, _, origins = search("nested_map", loss, of)
    assert origins[:2] == ["start", "design"]
    assert "front" in origins
    figures = subject.diagnostics()
    found = np.array([figures[f"scale.e{k}"] for k in range(4)])
    assert found == pytest.approx(best, abs=0.06)
    assert np.allclose(space.decode(subject.recommend())["c"], found)
    assert len(subject.notes()) == 3


def test_the_closest_pair_is_merged_first():
    """Of losses alone 1, 5, 5.1 the last two are the first pair."""
    space = experts(3, groups=1)
    subject = NestedMap(Problem(3, COST, space.start, 60, space=space), 0, NestedMap.Options())
    for number, loss in enumerate((3.0, 3.0, 1.0, 5.0, 5.1)):
        candidate = Candidate(number, subject.ask(number).point)
        subject.asked(candidate)
        subject.tell(candidate, Observation(np.array([loss]), np.zeros(1), np.ones(1)))
    first = space.decode(subject.ask(5).point)["c"][0]
    assert first[0] == 0.0
    assert np.all(first[1:] > 0.0)


def test_axes_without_experts_are_split_into_halves():
    """A black box of five axes becomes four blocks, whose scales run from 0 to twice the start."""
    of = Problem(5, COST, np.full(5, 0.4), 80)
    subject, points, losses, _ = search("nested_map", lambda x, i: np.array([np.sum(np.square(x - 0.5))]), of)
    assert subject.diagnostics()["experts"] == 4.0
    assert points[2:22].max() <= 0.8 + 1e-12
    assert losses.min() < 0.03 < losses[0, 0]
    assert np.sum(np.square(subject.recommend() - 0.5)) < 0.04


def test_the_weights_are_the_preference():
    """Of two objectives with weights 3 and 1 the merge is the best of their weighted mean."""
    space = experts(2, groups=1)
    objectives = (Objective("a", Direction.MIN, weight=3.0), Objective("b", Direction.MIN))

    def losses(x, number):
        c = space.decode(x)["c"][0]
        return np.array([np.sum(np.square(c - 0.9)), np.sum(np.square(c - 0.1))])

    subject = search("nested_map", losses, Problem(2, objectives, space.start, 30, space=space))[0]
    assert space.decode(subject.recommend())["c"][0] == pytest.approx((0.7, 0.7), abs=0.05)
