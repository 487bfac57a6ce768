"""Gaussian process regression of losses in the unit cube: Matérn-5/2, one length-scale per axis, noise known per point.

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), eq. 2.25-2.30 (posterior), 5.8-5.9 (evidence
and its gradient). Length-scales have the prior of Hvarfner et al., arXiv:2402.02229, LogNormal(sqrt(2) + ln(D)/2,
sqrt(3)), as BoTorch 0.18 has it; the output variance Gamma(2, 1) and the noise floor Gamma(1.1, 30), as Optuna has
them. Ours: the constant mean is the generalised least squares estimate, and the priors stand on the parameters
themselves, so that the search over their logarithms needs no Jacobian.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, lapack, solve_triangular
from scipy.optimize import minimize

from mergesearch.types import Vector

Matrix = NDArray[np.float64]

NOISE_FLOOR = 1e-6  # least fitted noise variance, in squared standard deviations of the losses
_LENGTHS = (0.01, 1e3)
_OUTPUTS = (1e-2, 1e2)
_SQRT5 = math.sqrt(5.0)


@dataclass(frozen=True, eq=False)
class Hyper:
    """Length-scales (D,) in unit-cube widths; output variance and noise floor in squared units of the targets."""

    lengths: Vector
    output: float = 1.0
    noise: float = 1e-3


def typical(dim: int) -> Hyper:
    """Where a fit begins that knows nothing: length-scales at the mode's order, sqrt(D) / 2."""
    return Hyper(np.full(dim, 0.5 * math.sqrt(dim)))


def length_centres(dim: int) -> Vector:
    """Prior medians of ln(length-scale) (D,): sqrt(2) + ln(D) / 2."""
    return np.full(dim, math.sqrt(2.0) + 0.5 * math.log(dim))


@dataclass(frozen=True, eq=False)
class Sample:
    """What a process is fitted to: points (n, D), targets (n,) in any units, and their known noise variances (n,)."""

    points: Matrix
    targets: Vector
    variances: Vector

    def standardised(self) -> "tuple[Sample, float, float]":
        """Targets with mean 0 and standard deviation 1, with the mean and the deviation (1 where they do not vary)."""
        peak = max(float(np.abs(self.targets).max()), 1e-300)  # squares of huge losses would overflow
        level, scale = peak * float((self.targets / peak).mean()), peak * float((self.targets / peak).std())
        if not (scale > 1e-12 * max(abs(level), 1e-290) and math.isfinite(scale)):
            scale = max(abs(level), 1.0)
        stderr = np.minimum(np.sqrt(self.variances), 1e3 * scale) / scale  # cannot overflow, and 1000 says enough
        return Sample(self.points, (self.targets - level) / scale, np.square(stderr)), level, scale

    def first(self, count: int) -> "Sample":
        """The first `count` of them."""
        return Sample(self.points[:count], self.targets[:count], self.variances[:count])


@dataclass(frozen=True, eq=False)
class Process:
    """The posterior, given F columns of targets: F = 1, or one for each fantasy of what is still being evaluated.

    `cholesky` (n, n) is the lower factor of the covariance of the targets, `alpha` (n, F) what it solves to, `noise`
    (n,) the variances on its diagonal, `mean` the constant.
    """

    points: Matrix
    targets: Matrix
    noise: Vector
    hyper: Hyper
    mean: float
    cholesky: Matrix
    alpha: Matrix

    def predict(self, points: Matrix) -> tuple[Matrix, Vector]:
        """Posterior means (k, F) and variances (k,) of the noise-free loss at points (k, D)."""
        cross = self.hyper.output * matern(_squared(points, self.points, self.hyper.lengths))  # (k, n)
        half = solve_triangular(self.cholesky, cross.T, lower=True, check_finite=False)  # (n, k)
        variance = self.hyper.output - np.einsum("ij,ij->j", half, half)
        return self.mean + cross @ self.alpha, np.maximum(variance, 1e-14 * self.hyper.output)

    def slopes(self, point: Vector) -> tuple[Vector, float, Matrix, Vector]:
        """At one point (D,): means (F,), variance, and their gradients (F, D) and (D,)."""
        step = (point - self.points) / self.hyper.lengths  # (n, D)
        r = np.sqrt(np.einsum("ij,ij->i", step, step))
        fall = self.hyper.output * np.exp(-_SQRT5 * r)
        cross = fall * (1.0 + _SQRT5 * r + 5.0 / 3.0 * r * r)  # (n,)
        slope = (-5.0 / 3.0 * fall * (1.0 + _SQRT5 * r))[:, None] * step / self.hyper.lengths  # (n, D)
        solved = cho_solve((self.cholesky, True), cross, check_finite=False)
        variance = self.hyper.output - float(cross @ solved)
        means = self.mean + cross @ self.alpha
        return means, max(variance, 1e-14 * self.hyper.output), self.alpha.T @ slope, -2.0 * (solved @ slope)

    def fitted(self) -> Matrix:
        """Posterior means (n, F) at the process' own points."""
        return self.targets - self.noise[:, None] * self.alpha

    def with_pending(self, points: Matrix, normals: Matrix) -> "Process":
        """The process had the points (k, D) given what normals (F, k) make of its own posterior there.

        The noise of a pending point is the median of the known ones.
        """
        cross = self.hyper.output * matern(_squared(points, self.points, self.hyper.lengths))
        half = solve_triangular(self.cholesky, cross.T, lower=True, check_finite=False)
        noise = float(np.median(self.noise))
        own = self.hyper.output * matern(_squared(points, points, self.hyper.lengths))
        joint = own - half.T @ half + noise * np.eye(len(points))
        drawn = self.mean + cross @ self.alpha[:, :1] + _factor(joint)[0] @ normals.T  # (k, F)
        targets = np.vstack([np.repeat(self.targets[:, :1], len(normals), axis=1), drawn])
        return posterior(
            np.vstack([self.points, points]),
            targets,
            np.append(self.noise, np.full(len(points), noise)),
            self.hyper,
            self.mean,
        )


def posterior(points: Matrix, targets: Matrix, noise: Vector, hyper: Hyper, mean: float | None = None) -> Process:
    """The process of points (n, D), targets (n, F) and noise variances (n,) with the floor. No `mean`: fitted."""
    K = hyper.output * matern(_squared(points, points, hyper.lengths))
    L, jitter = _factor(K + np.diag(noise))
    if mean is None:
        ones = cho_solve((L, True), np.ones(len(points)), check_finite=False)
        mean = float(ones @ targets[:, 0] / ones.sum())
    alpha = cho_solve((L, True), targets - mean, check_finite=False)
    return Process(points, targets, noise + jitter, hyper, mean, L, alpha)


def process(sample: Sample, hyper: Hyper) -> Process:
    """The process of a standardised sample: known variances plus the fitted floor."""
    return posterior(sample.points, sample.targets[:, None], sample.variances + hyper.noise, hyper)


def fit(sample: Sample, starts: list[Hyper], centres: Vector | None = None, iterations: int = 60) -> Hyper:
    """Maximum a posteriori parameters of a standardised sample: the best end of L-BFGS from every start.

    `centres` (D,) are the prior medians of ln(length-scale); None: `length_centres`.
    """
    evidence = _Evidence(sample, length_centres(sample.points.shape[1]) if centres is None else centres)
    limits = [_LENGTHS] * sample.points.shape[1] + [_OUTPUTS, (NOISE_FLOOR, 1.0)]
    bounds = [(math.log(low), math.log(high)) for low, high in limits]
    best, least = starts[0], math.inf
    for start in starts:
        begin = np.log(np.append(start.lengths, [start.output, start.noise]))
        begin = np.clip(begin, [low for low, _ in bounds], [high for _, high in bounds])
        end = minimize(evidence, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": iterations})
        if end.fun < least:
            values = np.exp(end.x)
            best, least = Hyper(values[:-2], float(values[-2]), float(values[-1])), float(end.fun)
    return best


class _Evidence:
    """Negative log of evidence times prior, and its gradient, at the logarithms of (lengths, output, noise)."""

    def __init__(self, sample: Sample, centres: Vector) -> None:
        self._points = sample.points - sample.points.mean(axis=0)  # keeps the squared distances exact
        self._y, self._known, self._centres = sample.targets, sample.variances, centres

    def __call__(self, theta: Vector) -> tuple[float, Vector]:
        dim, n = len(theta) - 2, len(self._y)
        lengths, output, noise = np.exp(theta[:dim]), math.exp(theta[dim]), math.exp(theta[dim + 1])
        r = np.sqrt(_squared(self._points, self._points, lengths))
        fall = output * np.exp(-_SQRT5 * r)
        near = fall * (1.0 + _SQRT5 * r)
        K = near + 5.0 / 3.0 * r * r * fall
        L, _ = _factor(K + np.diag(self._known + noise))
        inverse = lapack.dpotri(L, lower=1)[0]
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        ones = inverse.sum(axis=1)
        centred = self._y - float(ones @ self._y / ones.sum())
        alpha = inverse @ centred
        value = 0.5 * float(centred @ alpha) + float(np.log(np.diag(L)).sum()) + 0.5 * n * math.log(2.0 * math.pi)
        inner = np.outer(alpha, alpha) - inverse  # eq. 5.9; the mean is at its best, so its change adds nothing
        weight = 5.0 / 3.0 * inner * near  # dK/d ln(l_i) = 5/3 near * (x_i - x'_i)^2 / l_i^2
        scaled = self._points / lengths
        slope = np.empty(dim + 2)
        slope[:dim] = -(weight.sum(axis=1) @ np.square(scaled) - np.einsum("ij,ij->j", scaled, weight @ scaled))
        slope[dim] = -0.5 * float(np.einsum("ij,ij->", inner, K))
        slope[dim + 1] = -0.5 * noise * float(np.trace(inner))
        off = (theta[:dim] - self._centres) / 3.0  # variance 3, the prior's own
        value += 0.5 * float(off @ off) * 3.0 + float(theta[:dim].sum())
        value += (output - theta[dim]) + (30.0 * noise - 0.1 * theta[dim + 1])
        slope[:dim] += off + 1.0
        slope[dim] += output - 1.0
        slope[dim + 1] += 30.0 * noise - 0.1
        return value, slope


def matern(squared: Matrix) -> Matrix:
    """Matérn-5/2 correlation of squared scaled distances, any shape."""
    r = np.sqrt(squared)
    value: Matrix = (1.0 + _SQRT5 * r + 5.0 / 3.0 * squared) * np.exp(-_SQRT5 * r)
    return value


def _squared(a: Matrix, b: Matrix, lengths: Vector) -> Matrix:
    """Squared distances (k, n) of a (k, D) to b (n, D) in length-scales."""
    left, right = a / lengths, b / lengths
    total = np.sum(left * left, axis=1)[:, None] + np.sum(right * right, axis=1)[None, :] - 2.0 * (left @ right.T)
    if a is b:
        np.fill_diagonal(total, 0.0)
    return np.asarray(np.maximum(total, 0.0), dtype=np.float64)


def _factor(K: Matrix) -> tuple[Matrix, float]:
    """Lower Cholesky factor of a covariance, and the jitter on its diagonal that it took."""
    base = float(np.trace(K)) / len(K)
    for jitter in (1e-10, 1e-8, 1e-6, 1e-4, 1e-2):
        try:
            L: Matrix = cholesky(K + jitter * base * np.eye(len(K)), lower=True, check_finite=False)
        except LinAlgError:
            continue
        return L, jitter * base
    raise LinAlgError("a covariance is not positive definite even with a hundredth of its trace added")
