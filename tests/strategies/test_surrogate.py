"""The surrogates behind MAP: golden fits, links that invert, leave-one-out errors by their definition."""

import numpy as np
import pytest

from mergesearch.strategies.random import SobolPoints
from mergesearch.strategies.surrogates.linked_quadratic import (
    RIDGES,
    Form,
    Sample,
    best_fit,
    design_rank,
    fit,
    linked,
    unknowns,
    unlinked,
)
from mergesearch.types import Direction, Objective

GOLDEN = np.array([(0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0), (0, 0.5)])
ACCURACIES = np.array([0.425557, 0.549834, 0.401312, 0.645656, 0.549834, 0.443986])
BOUNDS = [(0.0, 1.0), (0.0, None), (None, 2.0), (None, None)]


def sample(points, losses, n=1000.0):
    """All points weigh the same."""
    k = len(points)
    return Sample(np.asarray(points), np.asarray(losses), np.full(k, n), np.ones(k))


def test_golden_fit():
    """The card's six points give back A, b and e and its predictions, with and without the warp (losses: negated)."""
    A, b = np.array([(-2, 0.5), (0.5, -1)]), np.array([1.5, 0.4])
    q = -0.3 + GOLDEN @ b + 0.5 * np.sum((GOLDEN @ A) * GOLDEN, axis=1)
    exact = 1.0 / (1.0 + np.exp(-q))
    assert np.allclose(exact, ACCURACIES, atol=6e-7)
    warped = fit(Objective("acc", low=0.0, high=1.0), sample(GOLDEN, -exact), np.zeros(2), 1.0, Form.FULL, 0.0)
    assert np.allclose(warped.A, -A, atol=1e-8)
    assert np.allclose(warped.b, -b, atol=1e-8)
    assert warped.e == pytest.approx(0.3, abs=1e-8)
    at = np.array([(0.5, 0.5), (1.5, 1.5)])
    assert np.allclose(warped.losses(at), (-0.598688, -0.574443), atol=1e-6)
    plain = fit(Objective("acc"), sample(GOLDEN, -exact), np.zeros(2), 1.0, Form.FULL, 0.0)
    assert np.allclose(plain.losses(at), (-0.598279, -0.567688), atol=1e-6)
    optimum = -np.linalg.solve(warped.A, warped.b)
    assert np.allclose(optimum, (0.971429, 0.885714), atol=1e-6)
    assert np.allclose(warped.slope(optimum), 0.0, atol=1e-8)
    assert warped.linked(optimum[None])[0] == pytest.approx(-0.605714, abs=1e-6)


@pytest.mark.parametrize("dim", range(2, 9))
def test_design_has_full_rank(dim):
    """Twice the unknowns of Sobol points tell all terms of a full quadratic apart, for 2 to 8 axes."""
    sobol = SobolPoints(dim, seed=dim)
    count = unknowns(Form.FULL, dim)
    assert count == [6, 10, 15, 21, 28, 36, 45][dim - 2]
    points = np.array([sobol[i] for i in range(2 * count)])
    assert design_rank(points, Form.FULL) == count


def test_grid_design_is_rank_deficient():
    """The card's warning: a grid of two levels cannot tell squares from linear terms, 37 of 45."""
    grid = np.array(np.meshgrid(*[[0.0, 1.0]] * 8)).reshape(8, -1).T
    assert design_rank(grid, Form.FULL) == 37


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_links_invert_and_rise(direction, low, high):
    """Linking keeps the order of losses and unlinking gives them back, for every kind of range."""
    objective = Objective("m", direction, low=low, high=high)
    losses = np.sort([objective.loss(s) for s in np.linspace(0.05, 0.95, 19)])
    z, weight = linked(objective, losses, np.full(19, 500.0))
    assert np.all(np.diff(z) > 0)
    assert np.all(weight > 0)
    assert np.allclose(unlinked(objective, z), losses)


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_predictions_stay_within_the_metric(direction, low, high):
    """However far a quadratic goes, the predicted score stays within its bounds; a score at a bound is no infinity."""
    objective = Objective("m", direction, low=low, high=high)
    losses = unlinked(objective, np.array([-1e3, -5.0, 0.0, 5.0, 1e3]))
    scores = np.array([objective.score(v) for v in losses])
    assert np.all(np.isfinite(scores))
    assert low is None or np.all(scores >= low)
    assert high is None or np.all(scores <= high)
    for bound in (low, high):
        if bound is not None:
            z, weight = linked(objective, np.array([objective.loss(bound), objective.loss(0.5)]), np.full(2, 100.0))
            assert np.all(np.isfinite(z))
            assert np.all(weight > 0)


def test_r2_is_leave_one_out():
    """The shortcut equals fitting again without each point."""
    generator = np.random.default_rng(0)
    points = generator.random((40, 3))
    losses = np.sum(np.square(points - 0.4), axis=1) + 0.05 * generator.standard_normal(40)
    objective = Objective("cost", Direction.MIN)
    centre = np.full(3, 0.5)
    whole = fit(objective, sample(points, losses), centre, 0.5, Form.DIAGONAL, 1e-8)
    left_out = []
    for i in range(40):
        rest = np.arange(40) != i
        one = fit(objective, sample(points[rest], losses[rest]), centre, 0.5, Form.DIAGONAL, 1e-8)
        left_out.append(one.losses(points[i : i + 1])[0])
    spread = np.sum(np.square(losses - losses.mean()))
    assert whole.r2 == pytest.approx(1.0 - np.sum(np.square(losses - left_out)) / spread, abs=1e-5)


def test_form_grows_with_the_data():
    """Crossed terms are fitted when there are points for them, and not before."""
    generator = np.random.default_rng(1)
    objective = Objective("cost", Direction.MIN)
    forms = []
    for count in (8, 14, 60):
        points = generator.random((count, 4))
        losses = (points - 0.3) @ np.ones(4) * ((points - 0.5) @ np.array([1.0, -1.0, 2.0, 0.5]))
        forms.append(best_fit(objective, sample(points, losses), np.full(4, 0.5), 0.5).form)
    assert forms[0] == Form.LINEAR
    assert forms[1] <= Form.DIAGONAL
    assert forms[2] == Form.FULL


def test_noise_is_shrunk_away():
    """Pure noise is fitted by the strongest ridge and an R² about 0; a constant metric has an R² of 0."""
    generator = np.random.default_rng(2)
    points = generator.random((60, 5))
    objective = Objective("cost", Direction.MIN)
    noise = best_fit(objective, sample(points, generator.standard_normal(60)), np.full(5, 0.5), 0.5)
    assert noise.r2 < 0.3
    assert noise.ridge in RIDGES
    constant = best_fit(objective, sample(points, np.full(60, 0.25)), np.full(5, 0.5), 0.5)
    assert constant.r2 == 0.0
    assert np.allclose(constant.losses(points), 0.25)
