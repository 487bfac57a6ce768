"""Adam in natural units with projection after the step, and the simplex projection: what gradient learners share.

Reference: Kingma and Ba, arXiv:1412.6980; decoupled decay: Loshchilov and Hutter, arXiv:1711.05101. It moves a
coefficient by at most about the learning rate in a step, so steps times rate bounds how far a run can go.
"""

import math
from collections.abc import Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

from mergesearch.strategies.learning.natural import Natural
from mergesearch.strategies.learning.rules import Pace
from mergesearch.types import Vector

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


@final
class Adam:
    """The two moments (D,) of gradients, and the direction that they give."""

    def __init__(self, dim: int) -> None:
        self._first, self._second, self._count = np.zeros(dim), np.zeros(dim), 0

    def direction(self, gradient: Vector) -> Vector:
        """m / (sqrt(v) + eps) (D,) after this gradient, both corrected for their start at zero."""
        self._count += 1
        self._first = _BETA1 * self._first + (1.0 - _BETA1) * gradient
        self._second = _BETA2 * self._second + (1.0 - _BETA2) * gradient**2
        first = self._first / (1.0 - _BETA1**self._count)
        second = self._second / (1.0 - _BETA2**self._count)
        return np.asarray(first / (np.sqrt(second) + _EPSILON))


@final
class AdamRule:
    """Rule of `rules.py`: Adam or AdamW on the values themselves.

    `tied` (D,): axes with one label get the mean of their gradients, so that they move alike. `decay` pulls values to
    0 by rate x decay of themselves in a step; `l1` adds l1 x sign(value) to the gradient; `clip` bounds its length.
    A step with the gradients of several batches is as long as that many steps, so that a study gets as far for its
    cost on many workers as on one.
    """

    def __init__(
        self,
        natural: Natural,
        begin: Vector,
        rate: float,
        decay: float = 0.0,
        l1: float = 0.0,
        clip: float = math.inf,
        tied: NDArray[np.int64] | None = None,
    ) -> None:
        self._natural, self._rate, self._decay, self._l1, self._clip = natural, rate, decay, l1, clip
        self._tied = np.arange(len(begin)) if tied is None else tied
        self.values = natural.clip(begin)
        self._adam = Adam(len(begin))

    def step(self, gradients: NDArray[np.float64], weights: Vector, pace: Pace) -> None:
        """One step against the weighted gradient of M losses (M, D)."""
        gradient = averaged(weights @ gradients, self._tied) + self._l1 * np.sign(self.values)
        rate = self._rate * pace.cosine() * pace.shrink * pace.windows
        step = rate * (self._adam.direction(clipped(gradient, self._clip)) + self._decay * self.values)
        self.values = self._natural.clip(self.values - step)

    def restart(self, values: Vector) -> None:
        """Goes on from these values with empty moments."""
        self.values, self._adam = self._natural.clip(values), Adam(len(values))

    def diagnostics(self) -> Mapping[str, float]:
        """Nothing of its own."""
        return {}


def clipped(gradient: Vector, longest: float) -> Vector:
    """The gradient (D,), shortened to a length of `longest`."""
    length = float(np.linalg.norm(gradient))
    return np.asarray(gradient * (longest / length)) if length > longest else gradient


def averaged(values: Vector, labels: NDArray[np.int64]) -> Vector:
    """Each value (D,) replaced by the mean over all that share its label (D,)."""
    return np.asarray((np.bincount(labels, weights=values) / np.maximum(np.bincount(labels), 1))[labels])


def on_simplex(values: Vector, total: float) -> Vector:
    """The nearest (K,) with no negative entry and the sum `total` (Duchi et al., ICML 2008, algorithm 1)."""
    ordered = np.sort(values)[::-1]
    excess = (np.cumsum(ordered) - total) / np.arange(1, len(values) + 1)
    last = np.flatnonzero(ordered > excess)
    threshold = excess[last[-1]] if len(last) else excess[-1]
    return np.asarray(np.maximum(values - threshold, 0.0))
