"""Blocks of layers and the importance prior are those of the cards."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.errors import SpecError
from mergesearch.space import Knob, KnobRange, Per, Scale, build_space
from mergesearch.strategies.base import Geometry, Problem
from mergesearch.strategies.surrogates.layers import (
    depth_partition,
    prior_lengths,
    ranked_lengths,
    robust_share,
    smoothed,
)
from mergesearch.types import Objective

DISTANCES = np.array([0, 0.1, 0.15, 0.7, 0.8, 0.75, 0.3, 0.35, 1, 0.9])


@pytest.mark.parametrize(
    ("blocks", "beta", "ends", "cost"),
    [(3, 0.005, [3, 8, 10], 0.257575), (3, 1.0, [5, 8, 10], 0.808333), (4, 0.005, [3, 6, 8, 10], 0.036826)],
)
def test_partition_golden(blocks, beta, ends, cost):
    """The three partitions of card 5a."""
    found, total = depth_partition(DISTANCES, blocks, beta=beta)
    assert found == ends
    assert total == pytest.approx(cost, abs=1e-6)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=7), st.integers(1, 7), st.floats(0, 2))
@settings(max_examples=40, deadline=None)
def test_partition_is_the_best_of_all(distances, blocks, beta):
    """No other set of cuts costs less."""
    d, k = np.array(distances), min(blocks, len(distances))

    def cost(cuts):
        edges = [0, *cuts, len(d)]
        parts = [d[a:b] for a, b in pairwise(edges)]
        return sum(((p - p.mean()) ** 2).sum() + beta * (p.sum() - d.sum() / k) ** 2 for p in parts)

    ends, total = depth_partition(d, k, beta=beta)
    assert len(ends) == k
    assert total == pytest.approx(min(cost(c) for c in combinations(range(1, len(d)), k - 1)), abs=1e-9)


def test_more_blocks_than_layers_is_refused():
    """With a sentence."""
    with pytest.raises(SpecError, match="3 layers make 1 to 3 blocks"):
        depth_partition(np.arange(3.0), 4)


def test_robust_share_golden():
    """The values of card 5c, before and after smoothing."""
    share = robust_share(np.array([0.02, 0.03, 0.05, 0.04, 0.10, 0.06, 0.03, 0.02]))
    wanted = [0.337492, 0.444028, 0.662508, 0.555972, 0.948962, 0.754758, 0.444028, 0.337492]
    assert np.allclose(share, wanted, atol=1e-6)
    wanted = [0.364126, 0.472014, 0.581254, 0.680853, 0.802163, 0.725626, 0.495076, 0.364126]
    assert np.allclose(smoothed(share), wanted, atol=1e-6)
    assert robust_share(np.ones(4)).tolist() == [0.5] * 4


def test_ranks_become_length_scales():
    """The top 15 % get 0.5, up to 40 % 1, up to 70 % 2, the rest 5; equals are treated equally."""
    assert ranked_lengths(np.arange(20.0)[::-1]).tolist() == [0.5] * 3 + [1.0] * 5 + [2.0] * 6 + [5.0] * 6
    assert len(set(ranked_lengths(np.ones(6)))) == 1


def test_prior_follows_the_weights():
    """The axis of the group that changed most has the shortest length-scale; without geometry there is no prior."""
    groups = [f"g{i}" for i in range(8)]
    span = KnobRange(0.0, 1.0, 0.3, Per.GROUP, Scale.LINEAR)
    space = build_space([Knob("scale", 0.0, 1.0, 0.3)], ["a", "b"], groups, {"scale": span}, {})
    change = np.array([0.02, 0.03, 0.05, 0.04, 0.10, 0.06, 0.03, 0.02])
    gram = np.square(change)[:, None, None] * np.eye(2)
    geometry = Geometry(gram, np.ones(8), np.ones(8))
    of = Problem(8, (Objective("acc"),), space.start, 40, space=space, geometry=geometry)
    lengths = prior_lengths(of)
    assert lengths[4] == 0.5
    assert lengths[0] == lengths[7] == 5.0
    assert prior_lengths(Problem(8, (Objective("acc"),), space.start, 40, space=space)) is None
