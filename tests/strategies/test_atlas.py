"""aTLAS: its init, its decay and its penalty."""

import numpy as np
import pytest
from strategies.learning import Bowl, run, space

from mergesearch.strategies.learning.adam import AdamRule, averaged, clipped, on_simplex
from mergesearch.strategies.learning.natural import Natural
from mergesearch.strategies.learning.rules import Pace


def bowl(**more):
    return Bowl(np.tile([0.5, 0.2, 0.0], 4), space(), **more)


def test_from_zero_it_gets_there_too():
    """`init: zero` begins at coefficients of 0 after the start is measured, is not stopped for being worse at first,
    and ends as well."""
    done = run("atlas", bowl(), 120, init="zero", learning_rate=0.02)
    assert np.abs(done.told("gradient")[0].point).max() < 0.01
    assert bowl().metric(done.strategy.recommend()) < 0.2 * bowl().metric(done.told("start")[0].point)
    assert not done.strategy.notes()


def test_decay_and_l1_pull_to_zero():
    """A flat loss: AdamW's decay shrinks by rate x decay in a step, the L1 penalty to 0 and not beyond."""
    natural = Natural(bowl().problem())
    decay = AdamRule(natural, np.full(12, 0.3), 0.01, decay=0.1)
    decay.step(np.zeros((1, 12)), np.ones(1), Pace(0.0))
    assert decay.values == pytest.approx(np.full(12, 0.3 * (1 - 0.001)))
    sparse = AdamRule(natural, np.full(12, 0.3), 0.02, l1=0.5)
    for _ in range(30):
        sparse.step(np.zeros((1, 12)), np.ones(1), Pace(0.0))
    assert np.all(sparse.values <= 0.021)


def test_projection_comes_after_the_step():
    """A coefficient at its bound leaves it as soon as the gradient turns: no gradient is lost to a clamp."""
    rule = AdamRule(Natural(bowl().problem()), np.full(12, 0.01), 0.05)
    for _ in range(3):
        rule.step(np.ones((1, 12)), np.ones(1), Pace(0.0))
    assert np.all(rule.values == 0.0)
    for _ in range(8):
        rule.step(-np.ones((1, 12)), np.ones(1), Pace(0.0))
    assert np.all(rule.values > 0.05)


def test_clip_and_ties():
    """A long gradient is shortened to the given length, a short one kept; tied entries get their mean."""
    assert clipped(np.array([3.0, 4.0]), 1.0) == pytest.approx([0.6, 0.8])
    assert clipped(np.array([0.3, 0.4]), 1.0) == pytest.approx([0.3, 0.4])
    assert averaged(np.array([1.0, 2.0, 3.0]), np.array([0, 1, 0])) == pytest.approx([2.0, 2.0, 2.0])


def test_the_simplex_projection():
    """Sums to the total, has no negative entry, keeps what is on the simplex, and is the nearest of many."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        values, total = generator.standard_normal(6), float(generator.uniform(0.1, 3.0))
        found = on_simplex(values, total)
        assert found.sum() == pytest.approx(total)
        assert found.min() >= 0.0
        assert on_simplex(found, total) == pytest.approx(found)
        others = total * generator.dirichlet(np.ones(6), 200)
        assert np.linalg.norm(found - values) <= np.linalg.norm(others - values, axis=1).min() + 1e-12


def test_natural_units_follow_the_scale_of_an_axis():
    """A gradient by the coefficient is that by the coordinate over the slope, on every scale; whole axes have none."""
    from mergesearch.space import Axis, Scale, SearchSpace
    from mergesearch.strategies.base import Problem

    axes = (
        Axis("a", 0.0, 4.0, 1.0),
        Axis("b", 0.01, 1.0, 0.1, Scale.LOG),
        Axis("c", 0.1, 0.9, 0.5, Scale.LOGIT),
        Axis("d", 1, 5, 2, whole=True),
    )
    where = SearchSpace(axes)
    natural = Natural(Problem(4, bowl().problem().objectives, where.start, 10, space=where))
    point, slope = np.array([0.3, 0.6, 0.7, 0.5]), np.array([[1.0, -2.0, 0.5, 0.0]])
    units = slope * where.slopes(point)
    assert natural.gradients(point, units) == pytest.approx(slope)
    assert natural.point(natural.values(point)) == pytest.approx(point)
