"""Self Positioning: the slerp path and its inverse, the chain rule, and what the K + 1 numbers reach."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies.learning import Bowl, run, space

from mergesearch.strategies.base import Geometry
from mergesearch.strategies.learning.natural import Natural
from mergesearch.strategies.learning.rules import Pace
from mergesearch.strategies.self_positioning import PathRule, slerp_weights, weights_of


def test_golden_path():
    """Two orthogonal vectors of equal weight: half-way on the arc, 0.7071 each; a third: 0.5, 0.5, 0.7071."""
    assert slerp_weights(np.ones(2), np.eye(2)) == pytest.approx([np.sqrt(0.5)] * 2)
    assert slerp_weights(np.ones(3), np.eye(3)) == pytest.approx([0.5, 0.5, np.sqrt(0.5)])
    assert slerp_weights(np.array([2.0, 1.0]), np.eye(2)) == pytest.approx([np.sqrt(0.75), 0.5])  # 60 and 30 degrees
    assert slerp_weights(np.ones(3), None) == pytest.approx([0.25, 0.25, 0.5])


def test_the_path_is_the_slerp_of_the_vectors():
    """For vectors of equal length the sum is what slerp makes of them: as long, and at the wanted fraction."""
    generator = np.random.default_rng(0)
    one, two = (v / np.linalg.norm(v) for v in generator.standard_normal((2, 30)))
    tau = np.stack([one, two])
    angle = np.arccos(one @ two)
    found = slerp_weights(np.array([1.0, 3.0]), tau @ tau.T) @ tau
    assert np.linalg.norm(found) == pytest.approx(1.0)
    assert np.arccos(found @ one) == pytest.approx(0.75 * angle)


def test_near_parallel_vectors_take_the_straight_line():
    """Where the sine of the angle vanishes, and for a task vector of zeros, the weights are finite and linear."""
    for gram in (np.ones((2, 2)), np.diag([1.0, 0.0]), np.array([[1.0, -1.0], [-1.0, 1.0]])):
        assert slerp_weights(np.array([3.0, 1.0]), gram) == pytest.approx([0.75, 0.25])
    nearly = np.array([[1.0, 1.0 - 1e-10], [1.0 - 1e-10, 1.0]])
    close = np.array([[1.0, 1.0 - 1e-6], [1.0 - 1e-6, 1.0]])
    assert slerp_weights(np.ones(2), nearly) == pytest.approx(slerp_weights(np.ones(2), close), abs=1e-5)


@given(st.lists(st.floats(0.05, 2.0), min_size=1, max_size=6), st.booleans(), st.integers(0, 5))
def test_weights_and_length_give_back_the_coefficients(coefficients, angles, seed):
    """`weights_of` is the inverse of the path: s x c(a) are the coefficients it was given."""
    wanted = np.array(coefficients)
    tau = np.random.default_rng(seed).standard_normal((len(wanted), 40))
    gram = tau @ tau.T if angles else None
    a, s = weights_of(wanted, gram)
    assert a.min() > 0.0
    assert s * slerp_weights(a, gram) == pytest.approx(wanted)


def test_it_starts_exactly_at_the_start():
    """Groups that start at different values keep their differences, and the first gradient is taken at the start."""
    begin = np.array([0.1, 0.3, 0.5, 0.2])
    bowl = Bowl(np.full(4, 0.4), space(2, 2))
    of = bowl.problem(start=begin)
    rule = PathRule(Natural(of), begin, np.eye(2), 0.1, 0.0)
    assert np.array_equal(rule.values, begin)
    rule.step(np.array([[1.0, 0.5, 1.0, 0.5]]), np.ones(1), Pace(0.0))
    moved = (rule.values - begin).reshape(2, 2)
    assert moved[0] == pytest.approx(moved[1])
    assert np.abs(moved).max() > 1e-3


def test_the_chain_rule():
    """The step follows the gradient by (a, s), which agrees with finite differences of a loss of the merge."""
    begin, gram = np.array([0.3, 0.4, 0.2]), np.array([[1.0, 0.2, 0.1], [0.2, 2.0, 0.3], [0.1, 0.3, 1.5]])
    rule = PathRule(Natural(Bowl(np.zeros(3), space(3, 1)).problem()), begin, gram, 0.1, 0.0)
    a, s = weights_of(begin, gram)
    numbers = np.append(a / a.mean(), s)

    def loss(x):
        return float(np.sum((x[-1] * slerp_weights(x[:-1], gram) - 0.5) ** 2))

    slope = np.array([(loss(numbers + h) - loss(numbers - h)) / 2e-6 for h in 1e-6 * np.eye(4)])
    assert 2.0 * (begin - 0.5) @ rule._jacobian() == pytest.approx(slope, rel=1e-5)


def test_it_finds_the_weights_of_the_pool():
    """The best weights are the same in all groups: K + 1 numbers find them, with angles known and unknown."""
    bowl = Bowl(np.tile([0.6, 0.25, 0.1], 4), space())
    gram = np.tile(np.array([[1.0, 0.1, 0.0], [0.1, 1.0, 0.2], [0.0, 0.2, 1.0]]) / 4, (4, 1, 1))
    for geometry in (None, Geometry(gram, np.ones(4), np.ones(4))):
        of = bowl.problem(geometry=geometry)
        done = run("self_positioning", bowl, of=of)
        assert bowl.metric(done.strategy.recommend()) < 0.1 * bowl.metric(of.start)


def test_mu_shortens_the_sum():
    """The penalty on the length: the larger, the shorter the merge."""
    bowl = Bowl(np.tile([0.6, 0.25, 0.1], 4), space(), noise=0.02)
    lengths = [run("self_positioning", bowl, mu=mu).strategy.diagnostics()["length"] for mu in (0.0, 0.5)]
    assert lengths[1] < lengths[0] - 0.05


def test_coefficients_of_zero_can_grow():
    """An expert that starts at 0 has a weight of its own from the first step on, and is not lost."""
    bowl = Bowl(np.array([0.3, 0.3, 0.3]), space(3, 1), noise=0.0)
    of = bowl.problem(start=np.array([0.5, 0.4, 0.0]), evaluations=200)
    done = run("self_positioning", bowl, of=of)
    assert bowl.metric(done.strategy.recommend()) < 0.5 * bowl.metric(of.start)
