"""Expert Merging: which loss it takes, its logits, the pull to the mean, and the chunks of ++."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies.learning import Bowl, run, space

from mergesearch.strategies.base import Geometry
from mergesearch.strategies.expert_merging import LogitRule, allocate, importance, runs
from mergesearch.strategies.learning.natural import Natural
from mergesearch.strategies.learning.rules import Pace
from mergesearch.strategies.make import make_strategy

SHARES = np.array([8.0, 4.0, 2.0, 1.0, 0.5])


def test_it_takes_the_alignment_where_there_is_one():
    """'alignment' first, then 'kl', never a labelled loss by itself."""
    bowl = Bowl(np.full(12, 0.4), space())
    for offered, taken in ((("loss", "kl", "alignment"), "alignment"), (("loss", "kl"), "kl")):
        subject = make_strategy("expert_merging", bowl.problem(gradients=offered), 0, {})
        assert subject.ask(1).request.gradient == taken


def test_golden_allocation():
    """The card's floors: 2, 1, 0, 0, 0 of a budget of 5 for kappa 1, and 1, 1, 0, 0, 0 for kappa 1/2."""
    assert list(allocate(SHARES, 5, 1.0, floors=True)) == [2, 1, 0, 0, 0]
    assert list(allocate(SHARES, 5, 0.5, floors=True)) == [1, 1, 0, 0, 0]


def test_largest_remainders_waste_nothing():
    """Ours: the whole budget is given out; with room for one piece each the most important groups get theirs."""
    assert list(allocate(SHARES, 5, 1.0)) == [3, 1, 1, 0, 0]
    assert list(allocate(SHARES, 3, 1.0, capacity=1)) == [1, 1, 1, 0, 0]
    assert list(allocate(SHARES[::-1], 2, 0.5, capacity=1)) == [0, 0, 0, 1, 1]


@given(
    st.lists(st.floats(0.0, 100.0), min_size=1, max_size=12),
    st.integers(0, 20),
    st.floats(0.0, 2.0),
    st.sampled_from([None, 1, 3]),
)
def test_allocation_properties(shares, budget, kappa, capacity):
    """All of the budget that there is room for is given out, none negative, none above the capacity."""
    pieces = allocate(np.array(shares), budget, kappa, capacity)
    room = budget if capacity is None else min(budget, capacity * len(shares))
    assert pieces.sum() == room
    assert pieces.min() >= 0
    assert capacity is None or pieces.max() <= capacity


def test_runs_of_unimportant_groups():
    """Groups with a piece stand alone, neighbours without one go together."""
    assert list(runs(np.array([0, 0, 1, 1, 0, 0, 0, 1]))) == [0, 0, 1, 2, 3, 3, 3, 4]


def test_importance_from_the_weights():
    """Sum over experts of |alpha| ||tau|| sqrt(n): the group with the long task vectors counts most."""
    bowl = Bowl(np.full(6, 0.4), space(2, 3))
    gram = np.zeros((3, 2, 2))
    gram[:, 0, 0], gram[:, 1, 1] = [1.0, 4.0, 0.0], [1.0, 0.0, 9.0]
    of = bowl.problem(geometry=Geometry(gram, np.ones(3), np.array([1.0, 4.0, 1.0])))
    natural = Natural(of)
    found = importance(of, natural, np.full(6, 0.3))
    assert found == pytest.approx(np.array([2.0, 4.0, 3.0]) / 9.0)
    done = run("expert_merging", bowl, of=of, chunks=0.34, evaluations=20)
    assert done.strategy.diagnostics()["chunks"] == 2 * 3  # 0 | 1 | 2: the middle one alone, both its neighbours too


def test_chunks_move_as_one():
    """++ with half of the groups: unimportant neighbours share a coefficient throughout."""
    bowl = Bowl(np.linspace(0.1, 0.9, 8), space(2, 4))
    gram = np.zeros((4, 2, 2))
    gram[:, [0, 1], [0, 1]] = np.array([[25.0], [1.0], [1.0], [16.0]])
    of = bowl.problem(geometry=Geometry(gram, np.ones(4), np.ones(4)))
    done = run("expert_merging", bowl, of=of, chunks=0.5)
    values = done.told("monitor")[-1].point.reshape(4, 2)
    assert np.allclose(values[1], values[2])
    assert not np.allclose(values[0], values[1], atol=0.02)


def test_a_start_at_a_bound_can_leave_it():
    """A coefficient of 0, whose logit is minus infinity, still learns; one that nothing depends on stays at 0."""
    where = space(3, 1, init=0.0)
    bowl = Bowl(np.array([0.5, 0.4, 0.0]), where, noise=0.0)
    done = run("expert_merging", bowl, 60)
    assert bowl.metric(done.strategy.recommend()) < 0.3 * bowl.metric(np.zeros(3))
    rule = LogitRule(Natural(bowl.problem()), np.array([0.0, 0.3, 0.3]), 0.2, 0.0, np.arange(3))
    rule.step(np.array([[0.0, 1.0, -1.0]]), np.ones(1), Pace(0.0))
    assert rule.values[0] == 0.0
    assert rule.values[1] < 0.3 < rule.values[2]


def test_the_pull_keeps_groups_together():
    """With a strong gamma the groups of an expert stay nearer to their mean than without."""
    bowl = Bowl(np.linspace(0.1, 0.9, 12), space(), noise=0.02)
    spans = [
        np.ptp(run("expert_merging", bowl, 60, gamma=gamma).told("monitor")[-1].point.reshape(4, 3), axis=0).mean()
        for gamma in (0.0, 5.0)
    ]
    assert spans[1] < 0.5 * spans[0]
