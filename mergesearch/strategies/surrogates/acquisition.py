"""Expected improvement of a Gaussian process in logarithms, with fantasies and feasibility, and its maximiser.

Log form: Ament et al., arXiv:2310.20708, eq. 8-9: expected improvement underflows where it matters least and its
gradient with it. Improvement counts from the least posterior mean, never from the luckiest score.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import erfcx, log_ndtr, logsumexp, ndtri

from mergesearch.strategies.surrogates.gaussian_process import Hyper, Matrix, Process, posterior
from mergesearch.types import Vector

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_SHIFTS = (0.01, 0.03, 0.1)  # standard deviations of the candidates around the best points
_LEAST = 1e-6  # feasibility is never taken for less; 0.01 is too much: what lies beyond a border goes on tempting


def log_h(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln(phi(u) + u Phi(u)), any shape, finite for every finite u. Expected improvement is s h((best - mean) / s)."""
    u = np.asarray(u, dtype=np.float64)
    far = u < -1.0
    deep = np.minimum(u, -1.0)
    # phi(u) (1 - |u| sqrt(pi/2) erfcx(|u| / sqrt 2)), which tends to phi(u) / u^2
    rest = 1.0 + deep * math.sqrt(math.pi / 2.0) * erfcx(-deep / math.sqrt(2.0))
    rest = np.where(deep < -1e4, 1.0 / np.square(deep), rest)
    tail = -0.5 * np.square(deep) - _LOG_SQRT_2PI + np.log(rest)
    near = np.maximum(u, -1.0)
    plain = np.exp(-0.5 * np.square(near)) / math.sqrt(2.0 * math.pi) + near * np.exp(log_ndtr(near))
    value: NDArray[np.float64] = np.where(far, tail, np.log(plain))
    return value


@dataclass(frozen=True, eq=False)
class Feasibility:
    """Chance that an evaluation works: a regression of 1 (worked) and 0 (failed) with prior mean 1, held to 1e-6 .. 1.

    Ours: Matérn-5/2 with one length-scale, a fifth of sqrt(D). `process` is None where nothing failed.
    """

    process: Process | None

    @classmethod
    def of(cls, worked: Matrix, failed: Matrix) -> "Feasibility":
        """From points that worked (n, D) and points that failed (k, D)."""
        if len(failed) == 0:
            return cls(None)
        points = np.vstack([worked, failed])
        hyper = Hyper(np.full(points.shape[1], 0.2 * math.sqrt(points.shape[1])))
        targets = np.append(np.ones(len(worked)), np.zeros(len(failed)))[:, None]
        return cls(posterior(points, targets, np.full(len(points), 0.01), hyper, mean=1.0))

    def log(self, points: Matrix) -> Vector:
        """ln of the chance (k,) at points (k, D)."""
        if self.process is None:
            return np.zeros(len(points))
        return np.log(np.clip(self.process.predict(points)[0][:, 0], _LEAST, 1.0))

    def log_slope(self, point: Vector) -> tuple[float, Vector]:
        """ln of the chance at a point (D,), and its gradient (D,)."""
        if self.process is None:
            return 0.0, np.zeros(len(point))
        means, _, slope, _ = self.process.slopes(point)
        if not _LEAST < means[0] < 1.0:
            return math.log(min(max(means[0], _LEAST), 1.0)), np.zeros(len(point))
        return math.log(means[0]), slope[0] / means[0]


@dataclass(frozen=True, eq=False)
class LogImprovement:
    """ln of the expected improvement, averaged over the process' fantasies, times the feasibility."""

    process: Process
    feasibility: Feasibility
    best: Vector  # (F,): least posterior mean at the process' points, pending ones included

    @classmethod
    def of(cls, model: Process, feasibility: Feasibility) -> "LogImprovement":
        """Improvement on the best of the process' own points."""
        return cls(model, feasibility, model.fitted().min(axis=0))

    def values(self, points: Matrix) -> Vector:
        """At points (k, D)."""
        means, variance = self.process.predict(points)
        s = np.sqrt(variance)[:, None]
        gains = logsumexp(log_h((self.best - means) / s), axis=1) - math.log(len(self.best))
        total: Vector = gains + np.log(s[:, 0]) + self.feasibility.log(points)
        return total

    def falling(self, point: Vector) -> tuple[float, Vector]:
        """Its negative at one point (D,) and the gradient (D,): what is minimised."""
        means, variance, mean_slopes, variance_slope = self.process.slopes(point)
        s = math.sqrt(variance)
        s_slope = variance_slope / (2.0 * s)
        u = (self.best - means) / s
        gains = log_h(u)
        steep = np.exp(np.minimum(log_ndtr(u) - gains, 500.0))  # d ln h / du = Phi / h
        u_slopes = (-mean_slopes - u[:, None] * s_slope) / s  # (F, D)
        share = np.exp(gains - logsumexp(gains))
        chance, chance_slope = self.feasibility.log_slope(point)
        value = float(logsumexp(gains)) - math.log(len(u)) + math.log(s) + chance
        return -value, -((share * steep) @ u_slopes + s_slope / s + chance_slope)


@dataclass(frozen=True, eq=False)
class Apart:
    """Where points may lie: farther than `radius` from each of `others` (k, D)."""

    others: Matrix
    radius: float

    def holds(self, points: Matrix) -> NDArray[np.bool_]:
        """For points (n, D), (n,)."""
        gaps = np.linalg.norm(points[:, None, :] - self.others[None, :, :], axis=2)  # (n, k)
        held: NDArray[np.bool_] = np.all(gaps > self.radius, axis=1)
        return held


def maximise(
    target: LogImprovement,
    candidates: Matrix,
    low: Vector,
    high: Vector,
    refine: int = 10,
    apart: Apart | None = None,
) -> Vector:
    """The best point (D,) of the box: the best `refine` of the candidates (k, D), followed uphill by L-BFGS.

    `apart` holds for it wherever it holds for any of the candidates.
    """
    if apart is not None and len(apart.others):
        held = apart.holds(candidates)
        candidates = candidates[held] if held.any() else candidates
    values = target.values(candidates)
    order = np.argsort(-values, kind="stable")[:refine]
    best, point = float(values[order[0]]), candidates[order[0]]
    bounds = list(zip(low, high, strict=True))
    for start in order:
        end = minimize(
            target.falling, candidates[start], jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 50}
        )
        found = np.clip(end.x, low, high)
        if -end.fun > best and (apart is None or apart.holds(found[None, :])[0]):
            best, point = -float(end.fun), found
    return np.asarray(point, dtype=np.float64)


def around(centre: Vector, uniform: Vector, spread: float) -> Vector:
    """A uniform point (D,) of the cube as a normal one around the centre, with what leaves the cube reflected."""
    moved = centre + spread * ndtri(np.clip(uniform, 1e-9, 1.0 - 1e-9))
    folded = np.abs(moved) % 2.0
    return np.minimum(folded, 2.0 - folded)


def candidates(best: Matrix, low: Vector, high: Vector, count: int, generator: np.random.Generator) -> Matrix:
    """Points (k, D) of the box: half of them spread over it, half around the best ones (b, D), which come first."""
    dim = len(low)
    near = best[generator.integers(len(best), size=count // 2)]
    scale = np.array(_SHIFTS)[generator.integers(len(_SHIFTS), size=count // 2)]
    near = near + scale[:, None] * generator.standard_normal((count // 2, dim))
    far = low + (high - low) * generator.uniform(size=(count - count // 2, dim))
    return np.clip(np.vstack([best, near, far]), low, high)
