"""The front that surrogates predict: the minimum for each of many preferences, all searched at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from mergesearch.strategies.surrogates.gradient_surrogate import Matrix, Surrogate, Vector

_ROUNDS = 2  # times that preferences take over each other's points
_STEPS = 25  # of accelerated descent in each round


def preferences(count: int, own: Vector, seed: int) -> Matrix:
    """Weights (k, M), each summing to 1: the study's own, equal, each objective alone, then spread over the simplex.

    One objective has one preference. The spread is Sobol's, turned into exponentials.
    """
    objectives = len(own)
    if objectives == 1:
        return np.ones((1, 1))
    equal = np.full(objectives, 1.0 / objectives)
    fixed = np.vstack([own / own.sum(), equal, np.eye(objectives)])
    power = max(int(np.ceil(np.log2(max(count, 2)))), 1)
    drawn = qmc.Sobol(objectives, rng=np.random.Generator(np.random.Philox(seed))).random_base2(power)[:count]
    spread = -np.log(np.clip(drawn, 1e-9, 1.0 - 1e-9))
    rows = np.vstack([fixed, spread / spread.sum(axis=1, keepdims=True)])
    return rows[np.sort(np.unique(rows, axis=0, return_index=True)[1])]


def focused(weights: Matrix, losses: Matrix, corner: Vector, generator: np.random.Generator) -> Matrix:
    """Preferences (k / 2, M) near those of `weights` (k, M) whose expected losses (k, M) come nearest to beating
    `corner` (M,) in every objective: few of an even spread lead to merges that are better than the base in all."""
    unit = np.maximum(np.ptp(losses, axis=0), 1e-12)
    excess = np.max((losses - corner) / unit, axis=1)
    chosen = np.argsort(excess, kind="stable")[: max(2, len(weights) // 4)]
    parents = weights[generator.choice(chosen, max(len(weights) // 2, 2))]
    drawn = np.maximum(parents, 0.2 / weights.shape[1]) * np.exp(0.5 * generator.standard_normal(parents.shape))
    found: Matrix = drawn / drawn.sum(axis=1, keepdims=True)
    return found


@dataclass(frozen=True, eq=False)
class Reach:
    """How far points may lie from measured ones: `cap`, and `cubic` (M,), the error per cubed distance."""

    cap: float
    cubic: Vector


def minima(surrogate: Surrogate, weights: Matrix, reach: Reach, known: Matrix) -> Matrix:
    """Points (k, D) of the cube where the weighted sums (k, M) of the guides, plus their expected errors, are least.

    `known` (N, M) are the guides measured at the nodes. Every preference starts from the node that it likes best;
    between the rounds it moves to another preference's point where that is better for it, so that preferences continue
    from each other along the front.
    """
    x = surrogate.nodes[np.argmin(weights @ known.T, axis=1)].copy()
    cubic = weights @ reach.cubic
    curve = weights @ surrogate.hessian.bound() + 6.0 * cubic * reach.cap + 1e-12
    for _ in range(_ROUNDS):
        x = _descend(surrogate, weights, cubic, curve, reach.cap, x)
        if len(weights) > 1:
            x = x[np.argmin(weights @ surrogate.guides(x).T + _error(surrogate, x, cubic), axis=1)]
    return _descend(surrogate, weights, cubic, curve, reach.cap, x)


def _error(surrogate: Surrogate, x: Matrix, cubic: Vector) -> Matrix:
    """Expected error (k, k') of preference k's sum at point k'."""
    squares = surrogate.shares(x)[1].min(axis=1)
    found: Matrix = cubic[:, None] * squares**1.5
    return found


def _descend(surrogate: Surrogate, weights: Matrix, cubic: Vector, curve: Vector, cap: float, x: Matrix) -> Matrix:
    """Nesterov's projected descent with restarts, one step length for each preference."""
    y, t = x, np.ones(len(x))
    size = np.maximum(curve, _least_curve(surrogate, weights, cap, x))[:, None]
    for _ in range(_STEPS):
        slope, squares, nearest = surrogate.descent(y, weights)
        away = y - surrogate.nodes[nearest]
        slope = slope + 3.0 * cubic[:, None] * np.sqrt(squares)[:, None] * away
        new = within(y - slope / size, surrogate, cap)
        restart = np.sum((y - new) * (new - x), axis=1) > 0.0
        t = np.where(restart, 1.0, t)
        following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * t * t))
        momentum = np.where(restart, 0.0, (t - 1.0) / following)[:, None]
        x, y, t = new, within(new + momentum * (new - x), surrogate, cap), following
    return x


def _least_curve(surrogate: Surrogate, weights: Matrix, cap: float, x: Matrix) -> Vector:
    """Curvature at which one step spans the cap: without any known curvature a step must be limited too."""
    slope = surrogate.descent(x, weights)[0]
    found: Vector = np.linalg.norm(slope, axis=1) / max(cap, 1e-300) / _STEPS * 2.0 + 1e-300
    return found


def within(x: Matrix, surrogate: Surrogate, cap: float) -> Matrix:
    """Points pulled towards their nearest node until they are no further than `cap`, and into the cube."""
    squares = surrogate.shares(x)[1]
    nearest = np.argmin(squares, axis=1)
    distance = np.sqrt(squares[np.arange(len(x)), nearest])
    node = surrogate.nodes[nearest]
    pull = np.minimum(1.0, cap / np.maximum(distance, 1e-300))[:, None]
    pulled: Matrix = np.clip(node + (x - node) * pull, 0.0, 1.0)
    return pulled


@dataclass(frozen=True, eq=False)
class Ruler:
    """Guides in the units of the metrics: metric loss = base + slope * guide, slope (M,) above 0."""

    base: Vector
    slope: Vector

    def losses(self, guides: Matrix) -> Matrix:
        """Expected metric losses (k, M) of guides (k, M)."""
        return self.base + self.slope * guides


def ruler(guides: Matrix, losses: Matrix) -> Ruler:
    """Fitted to guides and metric losses (N, M) of the same points by least squares through their means.

    A slope is at least a quarter of the ratio of their spreads: metrics are counts over few examples, and a guide that
    falls must never promise a metric that rises.
    """
    middle, level = guides.mean(axis=0), losses.mean(axis=0)
    a, b = guides - middle, losses - level
    spread, height = np.sum(a * a, axis=0), np.sum(b * b, axis=0)
    usual = np.where(spread > 1e-300, np.sqrt(height / np.maximum(spread, 1e-300)), 1.0)
    usual = np.where(usual > 1e-12, usual, 1.0)
    fitted = np.sum(a * b, axis=0) / np.maximum(spread, 1e-300)
    slope = np.where(spread > 1e-300, np.clip(fitted, 0.25 * usual, usual), usual)
    return Ruler(level - slope * middle, slope)


_SAMPLES = 2048  # points at which dominated volume is counted


def spread_order(predicted: Matrix, believed: Matrix, count: int, corner: Vector | None = None) -> NDArray[np.int64]:
    """Rows of `predicted` (k, M) in the order in which each adds most volume to what is `believed` (N, M) and chosen.

    Volume is counted on a fixed sample between the ideal and a little beyond the worst predicted losses, or `corner`
    (M,) where that is known, so that any number of objectives costs the same. Where nothing adds volume, the row
    furthest from the others comes next.
    """
    low = np.minimum(predicted.min(axis=0), believed.min(axis=0))
    far = (
        predicted.max(axis=0) if corner is None else np.maximum(corner, np.sort(predicted, axis=0)[len(predicted) // 8])
    )
    width = np.maximum(far - low, 1e-12)
    sample = qmc.Sobol(len(low), rng=np.random.Generator(np.random.Philox(0))).random(_SAMPLES)
    sample *= 1.1 if corner is None else 1.0
    rows, known = (predicted - low) / width, (believed - low) / width
    free = np.ones(_SAMPLES, dtype=bool)
    for row in known:
        free &= np.any(sample < row, axis=1)
    covers = np.all(rows[:, None, :] <= sample, axis=2)  # (k, samples)
    apart = np.sqrt(np.min(np.sum(np.square(rows[:, None, :] - known), axis=2), axis=1))
    order: list[int] = []
    for _ in range(min(count, len(rows))):
        gain = (covers & free).sum(axis=1) + 1e-3 * apart
        gain[order] = -np.inf
        best = int(np.argmax(gain))
        order.append(best)
        free &= ~covers[best]
        apart = np.minimum(apart, np.linalg.norm(rows - rows[best], axis=1))
    return np.array(order, dtype=np.int64)
