"""Frank-Wolfe: the card's golden, vertices, the gap, sparse answers, and the soft variant."""

import numpy as np
import pytest
from strategies.learning import Bowl, Run, run, space

from mergesearch.errors import SpecError
from mergesearch.space import Per
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.frank_wolfe import HardRule
from mergesearch.strategies.learning.rules import Pace
from mergesearch.strategies.make import make_strategy
from mergesearch.types import Direction, Objective

TARGET, VERTICES = np.array([0.5, 0.2]), np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
START = np.full(3, 1.0 / 3.0)  # the zero of the plane


def test_golden_iterations():
    """The card's four iterations: picks, losses before each, duality gaps, and where they end."""
    rule = HardRule(START, np.vstack([np.eye(3), START]), np.zeros(3, dtype=np.int64), 1.0)
    losses, gaps = [], []
    for _ in range(4):
        slope = rule.values @ VERTICES - TARGET
        losses.append(0.5 * float(slope @ slope))
        rule.step((VERTICES @ slope)[None], np.ones(1), Pace(0.0))
        gaps.append(rule.gap)
    assert rule.picks == [(0,), (2,), (1,), (0,)]
    assert losses == pytest.approx([0.145, 0.145, 0.722778, 0.222778], abs=1e-6)
    assert gaps == pytest.approx([0.5, 0.8, 1.722222, 0.772222], abs=1e-6)
    assert rule.values @ VERTICES == pytest.approx([0.3, 0.1])
    assert rule.values.sum() == pytest.approx(1.0)


class Merge:
    """Experts' task vectors (K, P) in one group, merged towards `target` (P,): exact gradients of the coefficients."""

    def __init__(self, tau, target):
        self.tau, self.target = np.asarray(tau), np.asarray(target)
        self.dim = len(self.tau)

    def metric(self, point):
        """Half the squared distance of the merge."""
        return 0.5 * float(np.sum((point @ self.tau - self.target) ** 2))

    def problem(self, evaluations=60, start=None):
        """One objective, a black box of one axis per expert."""
        begin = np.full(self.dim, 1.0 / self.dim) if start is None else start
        return Problem(self.dim, (Objective("d", Direction.MIN),), begin, evaluations, gradients=("loss",))

    def __call__(self, candidate):
        loss = np.array([self.metric(candidate.point)])
        given = ()
        if candidate.request.gradient:
            given = loss, (self.tau @ (candidate.point @ self.tau - self.target))[None]
        return Observation(loss, np.full(1, 1e-6), np.full(1, 64.0), *given)


def test_golden_through_the_protocol():
    """The same through asks and tells, up to the jitter of its points: the first four iterates."""
    done: Run = run("frank_wolfe", Merge(VERTICES, TARGET), 60, step=1.0)
    points = [c.point for c in done.told("gradient")][:5]
    expected = [[0, 0], [1, 0], [-1 / 3, -2 / 3], [-1 / 6, 1 / 6], [0.3, 0.1]]
    assert np.abs(np.array(points) @ VERTICES - expected).max() < 0.01


def pool(useful=3, useless=9, seed=0):
    """Useful experts whose mixture is the target, and random ones of the same norm."""
    generator = np.random.default_rng(seed)
    tau = generator.standard_normal((useful + useless, 200)) / np.sqrt(200.0)
    return Merge(tau, np.array([0.5, 0.3, 0.2]) @ tau[:useful])


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_useless_experts_are_left_out(mode):
    """Of twelve experts nine are random: they end with less than 5 % of the weight (median of 3 pools), and the loss
    is a tenth of the start's."""
    shares, gains = [], []
    for seed in range(3):
        merge = pool(seed=seed)
        done = run("frank_wolfe", merge, 120, mode=mode, step=1.0, keep=3, steps=60)
        point = done.strategy.recommend()
        shares.append(point[3:].sum() / point.sum())
        gains.append(merge.metric(point) / merge.metric(merge.problem().start))
    assert np.median(shares) < 0.05, shares
    assert np.median(gains) < 0.1, gains


def test_a_closed_gap_ends_it():
    """A target at a vertex: the gap closes, it says so, and what is left of the budget goes on by values."""
    merge = Merge(np.eye(3), np.array([1.0, 0.0, 0.0]))
    done = run("frank_wolfe", merge, 60, step=1.0)
    assert any("gap" in note for note in done.strategy.notes())
    assert done.strategy.recommend() == pytest.approx([1.0, 0.0, 0.0], abs=0.01)


def test_group_wise_and_task_wise():
    """`per: group` picks another expert in each group, `per: expert` the same in all; sums stay the start's."""
    bowl = Bowl(np.array([0.9, 0.0, 0.0, 0.0, 0.9, 0.0]), space(3, 2), noise=0.0)
    ends = {}
    for per in ("group", "expert"):
        done = run("frank_wolfe", bowl, 60, per=per)
        ends[per] = done.told("monitor")[-1].point.reshape(2, 3)
        assert ends[per].sum(axis=1) == pytest.approx([0.9, 0.9])
    assert list(ends["group"].argmax(axis=1)) == [0, 1]
    assert np.allclose(ends["expert"][0], ends["expert"][1])


def test_other_knobs_are_held():
    """An axis that is no expert's coefficient stays where it is; a space without any such axis is refused."""
    with pytest.raises(SpecError, match="per expert"):
        make_strategy("frank_wolfe", Bowl(np.full(2, 0.4), space(3, 2, per=Per.GROUP)).problem(), 0, {})


def test_total_sets_the_sum():
    """`total: 0.6`: vertices weigh 0.6, so the sum of a group's weights goes there."""
    bowl = Bowl(np.tile([0.6, 0.0, 0.0], 2), space(3, 2), noise=0.0)
    done = run("frank_wolfe", bowl, 60, total=0.6, step=1.0)
    assert done.strategy.recommend().reshape(2, 3).sum(axis=1) == pytest.approx([0.6, 0.6], abs=0.02)


def test_soft_keeps_the_best_of_each_objective():
    """`keep: 1` with two objectives keeps at most two experts, the ones their gradients point to."""
    done = run("frank_wolfe", pool(), 60, mode="soft", keep=1)
    assert done.strategy.diagnostics()["kept"] == 1.0
