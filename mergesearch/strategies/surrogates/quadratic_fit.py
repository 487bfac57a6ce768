"""Quadratic surrogates that learn from fewer points than they have unknowns, in at most cubic time in the points.

Ours, after the cards of MAP (arXiv:2406.07529) and its sequential variant. A quadratic whose coefficients have Gaussian
priors is a Gaussian process with a polynomial kernel, solved among n points rather than (D+1)(D+2)/2 unknowns:
K = c + v_1 a'b + v_2 r(a) r(b) + v_3 (a²)'(b²) + v_4 sum_{j<k} a_j a_k b_j b_k, r the mean of squares. So slope, the
curvature that all axes share, that of each axis, and crossed terms (of a rank up to n) are shrunk each by its own
amount; the variances v and the noise are those of the greatest marginal likelihood (Rasmussen and Williams 2006, eq.
5.8 and 5.9), and terms that do not lower the leave-one-out error (eq. 5.12) are dropped.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.optimize import minimize

from mergesearch.types import Vector, frozen_array

Matrix = NDArray[np.float64]

_CONSTANT = 10.0  # prior variance of the level, in variances of the losses
_JITTER = 1e-9
_PRIOR = np.array([0.0, -1.0, -3.0, -2.0, -3.0])  # log of slope, bowl, squares, crosses and noise, +- _SD
_SD = 3.0
_BOUNDS = [(-14.0, 4.0)] * 4 + [(-12.0, 2.0)]
_STEPS = 25  # of the search for the variances
_SUBSET = 160  # points that the search for the variances sees
_PROJECTED = 128  # axes up to which negative curvature is cut off; beyond, the trust box alone holds the minimiser


class Form(IntEnum):
    """Which terms a surrogate has: slope; and one curvature for all axes; and one per axis; and crossed terms."""

    LINEAR = 1
    BOWL = 2
    DIAGONAL = 3
    CROSSED = 4


@dataclass(frozen=True, eq=False)
class Quadratic:
    """value(x) = e + b'a + a'Aa/2 with a = (x - centre) / scale. `A` (D, D), or its diagonal (D,).

    `left_out` (n,) are the predictions for the fitted points had each been left out.
    """

    centre: Vector
    scale: float
    e: float
    b: Vector
    A: NDArray[np.float64]
    left_out: Vector

    def values(self, points: Matrix) -> Vector:
        """Values (k,) at points (k, D)."""
        a = (points - self.centre) / self.scale
        bent = a * self.A if self.A.ndim == 1 else a @ self.A
        value: Vector = self.e + a @ self.b + 0.5 * np.sum(bent * a, axis=1)
        return value

    def at(self, point: Vector) -> tuple[float, Vector]:
        """Value and gradient (D,) at a point (D,)."""
        a = (point - self.centre) / self.scale
        bent = self.A * a if self.A.ndim == 1 else self.A @ a
        return float(self.e + a @ (self.b + 0.5 * bent)), (self.b + bent) / self.scale


@dataclass(frozen=True, eq=False)
class Prior:
    """Log variances (5,) of slope, bowl, squares, crosses and noise, and the form that leaves some of them out."""

    log: Vector
    form: Form

    @property
    def variances(self) -> Vector:
        """Variances (5,); 0 for terms that the form lacks."""
        there = np.array([True, *(self.form >= f for f in (Form.BOWL, Form.DIAGONAL, Form.CROSSED)), True])
        return np.where(there, np.exp(self.log), 0.0)


class Kernel:
    """The four kernels among scaled points a (n, D), each of mean variance 1, for any number of fits."""

    def __init__(self, points: Matrix, centre: Vector, scale: float) -> None:
        self.centre, self.scale = frozen_array(centre), scale
        self.a = (points - centre) / scale
        squares = self.a * self.a
        self.square_means = squares.mean(axis=0)
        self.squares = squares - self.square_means
        self.bowl = self.squares.sum(axis=1)
        products = self.a @ self.a.T
        crosses = 0.5 * (products * products - squares @ squares.T)
        parts = [products, np.outer(self.bowl, self.bowl), self.squares @ self.squares.T, crosses]
        floor = 1e-12 * max(float(np.trace(products)), 1e-12)
        self.norms = [max(float(np.mean(np.diag(part))), floor) for part in parts]
        self.parts = np.stack([part / norm for part, norm in zip(parts, self.norms, strict=True)])

    def matrix(self, variances: Vector, noise: Vector) -> Matrix:
        """Covariance (n, n) of the values; `noise` (n,) relative to its variance."""
        total: Matrix = np.tensordot(variances[:4], self.parts, 1) + _CONSTANT
        total[np.diag_indices(len(total))] += variances[4] * noise + _JITTER
        return total

    def learn(self, values: Vector, noise: Vector) -> Prior:
        """The variances of the greatest marginal likelihood, and the simplest form within 2 % of the best error."""
        scaled, spread = _scaled(values, noise)
        if spread == 0.0:
            return Prior(frozen_array(_PRIOR), Form.LINEAR)
        found = minimize(
            self._cost,
            _PRIOR,
            args=(scaled, noise),
            jac=True,
            method="L-BFGS-B",
            bounds=_BOUNDS,
            options={"maxiter": _STEPS},
        )
        priors = [Prior(frozen_array(found.x), form) for form in Form]
        errors = []
        for prior in priors:
            left_out = self._solve(prior, scaled, noise)[1]
            errors.append(float(np.average(np.square(left_out), weights=1.0 / noise)))
        return next(p for p, error in zip(priors, errors, strict=True) if error <= 1.02 * min(errors))

    def fit(self, prior: Prior, values: Vector, noise: Vector) -> Quadratic:
        """The posterior mean, convex up to some dimension."""
        scaled, spread = _scaled(values, noise)
        level = float(np.average(values, weights=1.0 / noise))
        if spread == 0.0:
            zero = np.zeros(self.a.shape[1])
            return Quadratic(self.centre, self.scale, level, zero, zero, np.full(len(values), level))
        alpha, residual = self._solve(prior, scaled, noise)
        v = prior.variances[:4] / self.norms
        bend = 2.0 * (v[1] * float(self.bowl @ alpha) + v[2] * (self.squares.T @ alpha))  # (D,)
        e = _CONSTANT * float(alpha.sum()) - 0.5 * float(bend @ self.square_means)
        curvature = np.maximum(bend, 0.0)
        if prior.form is Form.CROSSED:
            curvature = v[3] * ((self.a.T * alpha) @ self.a)
            curvature[np.diag_indices(len(bend))] = bend
            if len(bend) <= _PROJECTED:
                eigenvalues, q = np.linalg.eigh(curvature)
                curvature = (q * np.maximum(eigenvalues, 0.0)) @ q.T
        b = v[0] * (self.a.T @ alpha)
        left_out = values - spread * residual
        return Quadratic(
            self.centre, self.scale, level + spread * e, spread * b, spread * np.asarray(curvature), left_out
        )

    def _solve(self, prior: Prior, scaled: Vector, noise: Vector) -> tuple[Vector, Vector]:
        """Weights alpha (n,) and leave-one-out residuals (n,)."""
        alpha, inverse, _ = _inverted(self.matrix(prior.variances, noise), scaled)
        return alpha, alpha / np.diag(inverse)

    def _cost(self, log: Vector, scaled: Vector, noise: Vector) -> tuple[float, Vector]:
        """Negative log posterior of the log variances and its gradient (5,)."""
        v = np.exp(log)
        alpha, inverse, half_log_det = _inverted(self.matrix(v, noise), scaled)
        surplus = inverse - np.outer(alpha, alpha)
        slope = np.array([*(np.vdot(surplus, part) for part in self.parts), np.diag(surplus) @ noise])
        off = (log - _PRIOR) / _SD
        return float(0.5 * scaled @ alpha + half_log_det + 0.5 * off @ off), 0.5 * v * slope + off / _SD


def learn(points: Matrix, values: Vector, noise: Vector, centre: Vector, scale: float) -> Prior:
    """`Kernel.learn` on at most 160 of the points (n, D), those of the least noise."""
    kept = np.sort(np.argsort(noise, kind="stable")[:_SUBSET])
    return Kernel(points[kept], centre, scale).learn(values[kept], noise[kept])


def _scaled(values: Vector, noise: Vector) -> tuple[Vector, float]:
    """Values (n,) of weighted mean 0 and variance 1, and the standard deviation; 0.0 where they do not vary."""
    level = np.average(values, weights=1.0 / noise)
    spread = float(np.sqrt(np.average(np.square(values - level), weights=1.0 / noise)))
    if spread <= 1e-12 * max(abs(float(level)), 1e-300):
        return np.zeros(len(values)), 0.0
    return (values - level) / spread, spread


def _inverted(matrix: Matrix, values: Vector) -> tuple[Vector, Matrix, float]:
    """matrix^-1 values (n,), matrix^-1 (n, n) and half the log determinant."""
    lower, fault = lapack.dpotrf(matrix, lower=1)
    if fault:
        matrix = matrix + 1e-6 * float(np.mean(np.diag(matrix))) * np.eye(len(matrix))
        lower, _ = lapack.dpotrf(matrix, lower=1)
    alpha = lapack.dpotrs(lower, values, lower=1)[0]
    inverse = np.tril(lapack.dpotri(lower, lower=1)[0])
    inverse += np.tril(inverse, -1).T
    return alpha, inverse, float(np.log(np.diag(lower)).sum())
