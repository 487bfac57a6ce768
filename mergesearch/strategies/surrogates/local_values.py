"""A local quadratic of values alone: what `gradient_map` goes on with where gradients cannot be had or trusted.

Card: `quad_seq`, a sequential, local variant of MAP (arXiv:2406.07529): one linked surrogate per objective, fitted with
weights that fall with the distance from a moving centre; its optimum for one preference in a trust box is asked next.
"""

from dataclasses import dataclass

import numpy as np

from mergesearch.strategies.surrogates.linked_quadratic import Form, Matrix, Sample, Surrogate, fit, unknowns
from mergesearch.types import Objective, Vector

_RIDGES = {Form.LINEAR: 1.0, Form.DIAGONAL: 0.3, Form.FULL: 0.3}
_NEIGHBOURS = 300  # points fitted at most: the nearest
_LARGEST = 600  # unknowns of the largest form
_DRAWN, _REFINED = 600, 150
_SHRINK = (0.3, 0.15, 0.08, 0.04)


@dataclass(frozen=True, eq=False)
class Values:
    """Evaluated points (k, D), their losses (k, M) and the examples behind them (k, M)."""

    points: Matrix
    losses: Matrix
    n: Matrix


@dataclass(frozen=True, eq=False)
class LocalFit:
    """Surrogates about `centre` (D,), to be believed within `radius` of it on every axis."""

    centre: Vector
    radius: float
    fits: tuple[Surrogate, ...]

    def losses(self, points: Matrix) -> Matrix:
        """Predicted losses (k, M)."""
        return np.stack([fitted.losses(points) for fitted in self.fits], axis=1)

    def optimum(self, weights: Vector, generator: np.random.Generator) -> Vector:
        """Where the sum with `weights` (M,) is least, found by sampling, so that any link will do."""
        low, high = np.maximum(self.centre - self.radius, 0.0), np.minimum(self.centre + self.radius, 1.0)
        best, least = self.centre, float(self.losses(self.centre[None])[0] @ weights)
        slope = sum(w * np.sign(s.slope(self.centre)) for w, s in zip(weights, self.fits, strict=True))
        tried = np.vstack(
            [low + generator.random((_DRAWN, len(low))) * (high - low), self.centre - self.radius * slope]
        )
        for width in (0.0, *_SHRINK):
            if width:
                tried = best + width * self.radius * generator.standard_normal((_REFINED, len(low)))
            tried = np.clip(tried, low, high)
            sums = self.losses(tried) @ weights
            row = int(np.argmin(sums))
            if sums[row] < least:
                best, least = tried[row], float(sums[row])
        return best


def local_fit(objectives: tuple[Objective, ...], values: Values, weights: Vector, radius: float) -> LocalFit:
    """Fitted about the mean of the best few points by their weighted losses: the luckiest alone would mislead."""
    spread = values.losses.std(axis=0)
    sums = (values.losses / np.where(spread > 1e-12, spread, 1.0)) @ weights
    best = np.argsort(sums, kind="stable")[: max(1, min(5, len(sums) // 5))]
    centre = values.points[best].mean(axis=0)
    squares = np.mean(np.square((values.points - centre) / (2.0 * radius)), axis=1)
    near = np.sort(np.argsort(squares, kind="stable")[:_NEIGHBOURS])
    weight = np.exp(-0.5 * np.minimum(squares[near] - squares[near].min(), 20.0))
    dim = len(centre)
    form = Form.LINEAR
    for larger in (Form.DIAGONAL, Form.FULL):
        if 1.2 * unknowns(larger, dim) <= len(near) and unknowns(larger, dim) <= _LARGEST:
            form = larger
    fits = []
    for j, objective in enumerate(objectives):
        sample = Sample(values.points[near], values.losses[near, j], values.n[near, j], weight)
        fits.append(fit(objective, sample, centre, radius, form, _RIDGES[form]))
    return LocalFit(centre, radius, tuple(fits))
