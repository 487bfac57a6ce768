"""The package cma's own state behind CMA-ES: how it is set up, drawn from and updated without randomness of its own.

Learning-rate adaptation is that of Nomura, Akimoto and Ono (arXiv:2304.03473): the update of mean and covariance is
damped by how much of it is signal, judged from moving averages of the updates in the distribution's own coordinates.
"""

import math
import warnings
from collections.abc import Callable
from enum import StrEnum
from typing import Any, cast, final

import cma
import numpy as np
from cma.restricted_gaussian_sampler import GaussVDSampler
from cma.sigma_adaptation import CMAAdaptSigmaCSA
from numpy.typing import NDArray

from mergesearch.strategies.base import rng
from mergesearch.types import Vector, frozen_array

_RESAMPLES = 100
_DIRECTION = 2  # purpose of random numbers
_REACH = 5.0  # standard deviations to which one coordinate counts; only points from elsewhere have more
_ALPHA, _BETA_MEAN, _BETA_SHAPE, _GAMMA = 1.4, 0.1, 0.03, 0.1  # arXiv:2304.03473, section 4.3


class Form(StrEnum):
    """What of the covariance is learned: all of it, variances alone, or variances and one direction (VD-CMA)."""

    FULL = "full"
    DIAGONAL = "diagonal"
    LIMITED_MEMORY = "limited_memory"


@final
class State:
    """A Gaussian over `dim` axes in the unit cube. cma refuses a single axis: a second one, pure noise, rides along."""

    def __init__(self, start: Vector, sigma0: float, size: int, form: Form, adapt: bool, seed: int) -> None:
        self.dim, self.form, self.size = len(start), form, size
        self._axes = max(self.dim, 2)
        self._es = _new(np.append(start, 0.5) if self.dim == 1 else start, sigma0, size, form, seed)
        self.updates = 0
        self._rates = _Rates(self._axes, form) if adapt else None

    @property
    def mean(self) -> Vector:
        """(D,), within the box."""
        return frozen_array(self._es.mean[: self.dim]).clip(0.0, 1.0)

    @property
    def deviations(self) -> Vector:
        """Standard deviation of each axis (D,)."""
        return frozen_array(self._es.stds)[: self.dim]

    @property
    def sigma(self) -> float:
        """cma's step size."""
        return float(self._es.sigma)

    @property
    def rates(self) -> tuple[float, float]:
        """Learning rates of mean and covariance; 1 where they are not adapted."""
        return (self._rates.mean.rate, self._rates.shape.rate) if self._rates else (1.0, 1.0)

    def damp(self) -> None:
        """Adapts the learning rates from now on."""
        if self._rates is None and self.form is not Form.LIMITED_MEMORY:
            self._rates = _Rates(self._axes, self.form)

    def draw(self, generator: np.random.Generator) -> Vector:
        """A point (D,) of the box. What leaves it is drawn again up to 100 times, then clipped.

        With variances alone each coordinate is drawn again by itself, which is the same distribution.
        """
        point = self._sample(generator)
        for _ in range(_RESAMPLES - 1):
            outside = (point < 0.0) | (point > 1.0)
            if not outside[: self.dim].any():
                break
            again = self._sample(generator)
            point = np.where(outside, again, point) if self.form is Form.DIAGONAL else again
        return np.clip(point[: self.dim], 0.0, 1.0)

    def is_far(self, point: Vector) -> bool:
        """True for a point more than twice as far out as the distribution reaches: it would tear it apart."""
        reach = math.sqrt(self._axes) + 2.0 * self._axes / (self._axes + 2.0)  # cma's own bound on a step
        step = np.concatenate([point - self._es.mean[: self.dim], np.zeros(self._axes - self.dim)])
        return bool(self._es.mahalanobis_norm(step) > 2.0 * reach)

    def update(self, ranked: list[Vector], current: list[bool], noise: Callable[[int], float]) -> None:
        """One update by points (D,) from best to worst; `current`: drawn from the distribution as it is.

        The length of others is limited under it. `noise` of a place stands in for a missing second axis.
        """
        es, points = self._es, []
        for place, (point, own) in enumerate(zip(ranked, current, strict=True)):
            padded = np.append(point, es.mean[1] + es.stds[1] * noise(place)) if self.dim == 1 else np.array(point)
            if not own:
                padded = es.repair_genotype(padded, copy_if_changed=True)
            if self.form is Form.DIAGONAL:
                padded = np.clip(padded, es.mean - _REACH * es.stds, es.mean + _REACH * es.stds)
            points.append(padded)
        before = _Moments(es) if self._rates else None
        with warnings.catch_warnings():  # it warns of long vectors, which only its own tests need to know
            warnings.simplefilter("ignore", UserWarning)
            es.tell(points, list(range(len(points))), check_points=False)
            if before is not None and self._rates is not None:
                self._rates.damp(es, before)
            es.pop_injection_directions = []  # of its own draws, which are not used
            es.ask(1)  # brings its decomposition up to date, so that asking changes nothing
        self.updates += 1

    def _sample(self, generator: np.random.Generator) -> Vector:
        es = self._es
        step: NDArray[np.float64] = es.sm.transform(generator.standard_normal(self._axes))
        return cast(Vector, es.mean + es.sigma * es.sigma_vec.scaling * step)


@final
class _Moments:
    """Mean and covariance σ²C before an update, with what turns steps into the distribution's own coordinates."""

    def __init__(self, es: Any) -> None:
        self.mean = np.array(es.mean)
        self.covariance: NDArray[np.float64] = _covariance(es)
        self.inverse_root: NDArray[np.float64]
        if self.covariance.ndim == 1:
            self.inverse_root = 1.0 / np.sqrt(self.covariance)
        else:
            values, vectors = np.linalg.eigh((self.covariance + self.covariance.T) / 2.0)
            values = np.maximum(values, np.finfo(float).tiny + 1e-14 * values[-1])
            self.inverse_root = (vectors / np.sqrt(values)) @ vectors.T

    def local_step(self, step: Vector) -> Vector:
        """A step of the mean (D,) in local coordinates."""
        return self.inverse_root * step if self.inverse_root.ndim == 1 else self.inverse_root @ step

    def local_change(self, change: NDArray[np.float64]) -> Vector:
        """A change of the covariance in local coordinates, flat."""
        if self.inverse_root.ndim == 1:
            return self.inverse_root**2 * change / math.sqrt(2.0)
        return (self.inverse_root @ change @ self.inverse_root).ravel() / math.sqrt(2.0)


@final
class _Rate:
    """A learning rate that follows the signal-to-noise ratio of its updates (section 4.2 of arXiv:2304.03473)."""

    def __init__(self, length: int, beta: float) -> None:
        self.rate, self._beta = 1.0, beta
        self._signal, self._power = np.zeros(length), 0.0

    def follow(self, step: Vector) -> None:
        """Takes in one update in local coordinates."""
        beta = self._beta
        self._signal = (1.0 - beta) * self._signal + beta * step
        self._power = (1.0 - beta) * self._power + beta * float(step @ step)
        seen = float(self._signal @ self._signal)
        spread = self._power - seen
        ratio = (seen - beta / (2.0 - beta) * self._power) / spread if spread > 0.0 else math.inf
        relative = min(max(ratio / (_ALPHA * self.rate) - 1.0, -1.0), 1.0)
        self.rate = min(self.rate * math.exp(min(_GAMMA * self.rate, beta) * relative), 1.0)


@final
class _Rates:
    """Both learning rates, and what they do to cma's state."""

    def __init__(self, axes: int, form: Form) -> None:
        self.mean = _Rate(axes, _BETA_MEAN)
        self.shape = _Rate(axes if form is Form.DIAGONAL else axes * axes, _BETA_SHAPE)

    def damp(self, es: Any, before: _Moments) -> None:
        """Goes the learned part of the way that cma went in one update, then corrects the step (section 4.3)."""
        step, change = es.mean - before.mean, _covariance(es) - before.covariance
        earlier = self.mean.rate
        self.mean.follow(before.local_step(step))
        self.shape.follow(before.local_change(change))
        covariance = before.covariance + self.shape.rate * change
        es.mean = before.mean + self.mean.rate * step
        if covariance.ndim == 1:
            log_volume = float(np.log(covariance).sum())
        else:
            log_volume = float(np.linalg.slogdet(covariance)[1])
        sigma = math.exp(log_volume / (2.0 * len(step)))
        if covariance.ndim == 1:
            es.sigma_vec.scaling, es.sigma_vec.is_identity = np.sqrt(covariance) / sigma, False
        else:
            es.sm.C = covariance / sigma**2
        es.sigma = sigma * earlier / self.mean.rate


def _covariance(es: Any) -> NDArray[np.float64]:
    """σ²C (D, D); (D,) with variances alone, which cma keeps beside its sampler."""
    if hasattr(es.sm, "C"):
        return np.array(es.sigma**2 * es.sm.C)
    return np.array(np.square(es.sigma * np.broadcast_to(es.sigma_vec.scaling, es.mean.shape)), dtype=np.float64)


def _new(start: Vector, sigma0: float, size: int, form: Form, seed: int) -> Any:
    """cma's own state. Its sampler is given zeros for random numbers: all of ours come from `rng`.

    Without a seed and with a `randn` of its own it never touches the global random state; -9 keeps it from printing and
    from writing files. The path-length rule (CSA) is set since the other one wants two mirrored samples per update.
    """
    settings: dict[str, Any] = {
        "popsize": size,
        "seed": math.nan,
        "randn": _zeros,
        "verbose": -9,
        "AdaptSigma": CMAAdaptSigmaCSA,
        "CMA_diagonal": form is Form.DIAGONAL,
    }
    if form is Form.LIMITED_MEMORY:  # its first direction is a random one
        direction = rng(seed, 0, purpose=_DIRECTION)
        settings |= {"CMA_active": False, "CMA_sampler": GaussVDSampler(len(start), randn=direction.standard_normal)}
    with warnings.catch_warnings():  # it adds a filter of its own to the global list
        state = cma.CMAEvolutionStrategy(start, sigma0, settings)
    state.ask(1)
    return state


def _zeros(*shape: int) -> NDArray[np.float64]:
    return np.zeros(shape)
