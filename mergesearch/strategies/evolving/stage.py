"""One stage of a search: some axes in a part of their range, the others held, a penalty on their size."""

from collections.abc import Callable
from dataclasses import replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from mergesearch.space import Axis
from mergesearch.strategies.base import Observation, Problem, Strategy
from mergesearch.types import Candidate, Vector

_SAME = 1e-6  # how far held coordinates may lie off for a result to count
PLAIN = (-1.5, 1.5)  # what the unit interval stands for where axes mean nothing


def axes_of(problem: Problem, ending: str) -> NDArray[np.int64]:
    """Axes that fill a knob whose name ends so; empty where there is none."""
    if problem.space is None:
        return np.zeros(0, dtype=np.int64)
    found = [s.axis[s.axis >= 0] for s in problem.space.slots if s.knob.endswith(ending)]
    return np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *found]))


@final
class Stage:
    """Runs an inner strategy over the cube of `axes` (A,) alone. Whoever owns it numbers its candidates, from 1: its
    start, 0, is not evaluated, since nothing would be learned from it.

    `limits` is the natural range it keeps to, within that of each axis; `begin` the natural value it starts from; what
    it is told is the losses plus `penalty` times the mean |value|.
    """

    def __init__(
        self,
        problem: Problem,
        axes: NDArray[np.int64],
        held: Vector,
        begin: float,
        limits: tuple[float, float],
        penalty: float,
        make: Callable[[Problem], Strategy],
    ) -> None:
        self._axes, self._held, self._penalty = axes, np.array(held), penalty
        plain = Axis("x", *PLAIN, 0.0)
        self._kinds = [problem.space.axes[i] if problem.space else plain for i in axes]
        ends = [(max(a.low, limits[0]), min(a.high, limits[1])) for a in self._kinds]
        ends = [e if e[0] < e[1] else (a.low, a.high) for e, a in zip(ends, self._kinds, strict=True)]
        self._low, self._high = np.array(ends).T
        first = (np.clip(begin, self._low, self._high) - self._low) / (self._high - self._low)
        self.inner = make(replace(problem, dim=len(axes), start=first, seeds=(), space=None, geometry=None))

    def ask(self, number: int) -> Vector:
        """The point (D,) of its `number`-th candidate."""
        proposal = self.inner.ask(number)
        if proposal is None:
            raise AssertionError("the inner strategies never wait")
        return self._outer(proposal.point)

    def asked(self, number: int, candidate: Candidate) -> None:
        """Announces a candidate as its `number`-th."""
        self.inner.asked(self._seen(number, candidate))

    def tell(self, number: int, candidate: Candidate, observation: Observation | None) -> None:
        """Tells a result, unless what it holds was another one there."""
        if candidate.point is None:
            return
        rest = np.delete(candidate.point - self._held, self._axes)
        if np.any(np.abs(rest) > _SAME):
            return
        if observation is not None:
            size = float(np.mean(np.abs(self._values(candidate.point))))
            observation = replace(observation, losses=observation.losses + self._penalty * size)
        self.inner.tell(self._seen(number, candidate), observation)

    def recommend(self) -> Vector | None:
        """What the inner strategy recommends, as a point (D,)."""
        point = self.inner.recommend()
        return None if point is None else self._outer(point)

    def _seen(self, number: int, candidate: Candidate) -> Candidate:
        """The candidate as the inner strategy knows it."""
        point = candidate.point if candidate.point is not None else self._held
        values = (self._values(point) - self._low) / (self._high - self._low)
        return Candidate(number, np.clip(values, 0.0, 1.0), candidate.origin)

    def _values(self, point: Vector) -> Vector:
        """Natural values (A,) of a point (D,)."""
        return np.array([a.value(float(point[i])) for a, i in zip(self._kinds, self._axes, strict=True)])

    def _outer(self, inner: Vector) -> Vector:
        """The point (D,) of one of the inner cube (A,)."""
        values = self._low + inner * (self._high - self._low)
        point = np.array(self._held)
        point[self._axes] = [a.unit(float(v)) for a, v in zip(self._kinds, values, strict=True)]
        return point
