"""Quadratic surrogates of losses, one per objective, seen through the link that fits the metric's range.

Source: MAP (arXiv:2406.07529): M(x) = link(e + b'x + x'Ax/2). Instead of its descent from all-ones the linked metric is
fitted by weighted ridge least squares, in the form (linear, diagonal, full) and with the ridge that leave-one-out
errors favour. Everything is in loss orientation: the quadratic rises where the loss rises.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from mergesearch.types import Direction, Objective, Vector

Matrix = NDArray[np.float64]

RIDGES = (1e-8, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_PENALTY = {"linear": 1.0, "square": 3.0, "cross": 10.0}  # relative ridge: cross terms must earn their place
_UNKNOWN_ITEMS = 1000.0  # items behind a score whose count is not known (n = 1): clips it at 1/2000 from its bounds
_SOLVABLE = 1000  # unknowns; beyond, the eigendecomposition takes seconds


class Form(IntEnum):
    """Which terms a surrogate has."""

    LINEAR = 1
    DIAGONAL = 2
    FULL = 3


def unknowns(form: Form, dim: int) -> int:
    """Free numbers of a form in `dim` axes; FULL: (D+1)(D+2)/2."""
    return {Form.LINEAR: dim + 1, Form.DIAGONAL: 2 * dim + 1, Form.FULL: (dim + 1) * (dim + 2) // 2}[form]


def loss_range(objective: Objective) -> tuple[float | None, float | None]:
    """Least and greatest possible loss, None where there is no bound."""
    if objective.direction is Direction.MIN:
        return objective.low, objective.high
    return (
        None if objective.high is None else -objective.high,
        None if objective.low is None else -objective.low,
    )


def linked(objective: Objective, losses: Vector, n: Vector) -> tuple[Vector, Vector]:
    """Linked losses z (k,) and least-squares weights (k,) of losses over `n` items each.

    Two bounds: logit, weight M(1-M)n, M clipped half an item from its bounds. One bound: inverse softplus, weight its
    squared slope. None: the losses themselves, weight 1.
    """
    low, high = loss_range(objective)
    if low is not None and high is not None:
        items = np.where(n > 1, n, _UNKNOWN_ITEMS)
        share = np.clip((losses - low) / (high - low), 0.5 / items, 1.0 - 0.5 / items)
        return np.log(share / (1.0 - share)), share * (1.0 - share) * items
    if low is None and high is None:
        return losses.copy(), np.ones(len(losses))
    gap = losses - low if low is not None else high - losses  # type: ignore[operator]
    gap = np.maximum(gap, 1e-6 * max(float(np.ptp(gap)), 1e-6))
    z = gap + np.log(-np.expm1(-gap))
    return (z if low is not None else -z), np.square(-np.expm1(-gap))


def unlinked(objective: Objective, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Losses of linked values, any shape."""
    low, high = loss_range(objective)
    if low is not None and high is not None:
        share: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(z, -500.0, 500.0)))
        return low + (high - low) * share
    if low is not None:
        return low + np.logaddexp(0.0, z)
    return high - np.logaddexp(0.0, -z) if high is not None else z


@dataclass(frozen=True, eq=False)
class Surrogate:
    """One objective's fit. With a = (x - centre) / scale: linked loss = e + b'a + a'Aa/2.

    `r2` is the leave-one-out R² of the losses themselves (0.0 where they do not vary), of `points` fitted.
    """

    objective: Objective
    centre: Vector
    scale: float
    e: float
    b: Vector
    A: Matrix
    form: Form
    ridge: float
    r2: float
    points: int

    def linked(self, points: Matrix) -> Vector:
        """Linked losses (k,) at points (k, D)."""
        a = (points - self.centre) / self.scale
        value: Vector = self.e + a @ self.b + 0.5 * np.sum((a @ self.A) * a, axis=1)
        return value

    def slope(self, point: Vector) -> Vector:
        """Gradient (D,) of the linked loss at a point (D,)."""
        a = (point - self.centre) / self.scale
        return (self.b + self.A @ a) / self.scale

    def losses(self, points: Matrix) -> Vector:
        """Predicted losses (k,) at points (k, D)."""
        return unlinked(self.objective, self.linked(points))


@dataclass(frozen=True, eq=False)
class Sample:
    """What a surrogate is fitted to: points (k, D), losses (k,), items behind each (k,), and further weights (k,)."""

    points: Matrix
    losses: Vector
    n: Vector
    weight: Vector


def fit(objective: Objective, sample: Sample, centre: Vector, scale: float, form: Form, ridge: float) -> Surrogate:
    """The surrogate of one form and ridge.

    Its `r2` is nan where a point is fitted exactly whatever its loss, so that leaving it out says nothing.
    """
    return _Solver(objective, sample, centre, scale, form).at(ridge)


def best_fit(objective: Objective, sample: Sample, centre: Vector, scale: float) -> Surrogate:
    """The form and ridge with the least leave-one-out error.

    A form is tried where the points number 1.2 times its unknowns; the linear one always: its ridge keeps it tame.
    """
    count, dim = sample.points.shape
    forms = [Form.LINEAR]
    forms += [
        f for f in (Form.DIAGONAL, Form.FULL) if 1.2 * unknowns(f, dim) <= count and unknowns(f, dim) <= _SOLVABLE
    ]
    fits = [_Solver(objective, sample, centre, scale, form).best() for form in forms]
    return max(fits, key=lambda s: s.r2 if np.isfinite(s.r2) else -np.inf)  # the first, simplest of equals


def design_rank(points: Matrix, form: Form) -> int:
    """Rank of the design matrix, constant included: less than `unknowns` means terms that no fit can tell apart."""
    features = np.hstack([np.ones((len(points), 1)), _features(points, form)])
    return int(np.linalg.matrix_rank(features))


def _features(a: Matrix, form: Form) -> Matrix:
    """Terms without the constant: a_j, then a_j²/2, then a_j a_k for j < k. Shape (k, unknowns - 1)."""
    parts = [a]
    if form >= Form.DIAGONAL:
        parts.append(0.5 * a * a)
    if form is Form.FULL:
        j, k = np.triu_indices(a.shape[1], 1)
        parts.append(a[:, j] * a[:, k])
    return np.hstack(parts)


class _Solver:
    """Weighted ridge regression of one form for many ridges: the normal matrix is decomposed once."""

    def __init__(self, objective: Objective, sample: Sample, centre: Vector, scale: float, form: Form) -> None:
        self._objective, self._sample, self._form = objective, sample, form
        self._centre, self._scale = centre, scale
        dim = len(centre)
        z, weight = linked(objective, sample.losses, sample.n)
        weight = weight * sample.weight
        self._w = weight * (len(weight) / weight.sum())
        features = _features((sample.points - centre) / scale, form)
        self._mean, self._level = np.average(features, axis=0, weights=self._w), float(np.average(z, weights=self._w))
        penalty = np.full(features.shape[1], _PENALTY["cross"])
        penalty[: 2 * dim] = _PENALTY["square"]
        penalty[:dim] = _PENALTY["linear"]
        self._shrink = 1.0 / np.sqrt(penalty)
        self._f = (features - self._mean) * self._shrink  # (k, p), the ridge is now the same for all
        self._y = z - self._level
        gram = self._f.T @ (self._f * self._w[:, None])
        values, self._q = np.linalg.eigh(gram)
        self._values = np.maximum(values, 0.0)
        self._turned = self._f @ self._q  # (k, p)
        self._right = self._turned.T @ (self._w * self._y)

    def _left_out(self, ridge: float) -> tuple[Vector, Vector]:
        """Residuals in linked losses, and leave-one-out residuals (nan where undefined)."""
        inverse = 1.0 / (self._values + ridge + 1e-13 * max(float(self._values.max()), 1e-300))
        residual = self._y - self._turned @ (inverse * self._right)
        leverage = self._w * (np.square(self._turned) @ inverse + 1.0 / self._w.sum())
        rest = 1.0 - leverage
        return residual, np.where(rest > 1e-9, residual / np.where(rest > 1e-9, rest, 1.0), np.nan)

    def best(self) -> Surrogate:
        """The ridge with the least weighted leave-one-out error."""
        errors = []
        for ridge in RIDGES:
            left_out = self._left_out(ridge)[1]
            error = float(self._w @ np.square(left_out))
            errors.append(error if np.isfinite(error) else np.inf)
        return self.at(RIDGES[int(np.argmin(errors))])

    def at(self, ridge: float) -> Surrogate:
        """The surrogate for one ridge."""
        dim = len(self._centre)
        inverse = 1.0 / (self._values + ridge + 1e-13 * max(float(self._values.max()), 1e-300))
        beta = self._shrink * (self._q @ (inverse * self._right))
        A = np.zeros((dim, dim))
        if self._form >= Form.DIAGONAL:
            A[np.diag_indices(dim)] = beta[dim : 2 * dim]
        if self._form is Form.FULL:
            j, k = np.triu_indices(dim, 1)
            A[j, k] = A[k, j] = beta[2 * dim :]
        return Surrogate(
            objective=self._objective,
            centre=self._centre,
            scale=self._scale,
            e=self._level - float(self._mean @ beta),
            b=beta[:dim].copy(),
            A=A,
            form=self._form,
            ridge=ridge,
            r2=self._r2(ridge),
            points=len(self._y),
        )

    def _r2(self, ridge: float) -> float:
        z = self._y + self._level
        predicted = unlinked(self._objective, z - self._left_out(ridge)[1])
        losses, weight = self._sample.losses, self._sample.weight
        spread = float(weight @ np.square(losses - np.average(losses, weights=weight)))
        if spread <= 1e-24:
            return 0.0
        return 1.0 - float(weight @ np.square(losses - predicted)) / spread
