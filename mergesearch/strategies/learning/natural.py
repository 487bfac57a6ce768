"""Points in the units that people read: coefficients instead of unit-cube coordinates, and whose each axis is.

Learning rates are meant in these units: a coefficient moves by 0.01, whatever the width of its axis.
"""

from typing import final

import numpy as np
from numpy.typing import NDArray

from mergesearch.space import KnobSlots, SearchSpace
from mergesearch.strategies.base import Problem
from mergesearch.types import Vector

_MAIN = "coefficient"  # the knob that weighs an expert's change, in every operator that has one


@final
class Natural:
    """The axes of a problem in natural units. A black box, which has no space, is its own: each axis one expert's.

    `low`, `high` (D,): the range. `expert` (D,): which expert's coefficient an axis is, -1 for another knob or one
    that several experts share. `group` (D,): the first layer group that an axis fills, in the order of depth.
    """

    def __init__(self, problem: Problem) -> None:
        self._space, dim = problem.space, problem.dim
        self.low, self.high = np.zeros(dim), np.ones(dim)
        self.expert: NDArray[np.int64] = np.arange(dim)
        self.group: NDArray[np.int64] = np.zeros(dim, dtype=np.int64)
        self.experts, self.groups = dim, 1
        if self._space is None:
            return
        self.low = np.array([axis.low for axis in self._space.axes])
        self.high = np.array([axis.high for axis in self._space.axes])
        slots = _main_slots(self._space)
        if slots is not None:
            self.experts, self.groups = len(self._space.experts), len(self._space.groups)
            self.expert, self.group = _owners(slots, dim)

    def values(self, point: Vector) -> Vector:
        """Natural values (D,) of a point (D,)."""
        return np.array(point) if self._space is None else self._space.values(point)

    def point(self, values: Vector) -> Vector:
        """Point (D,) of natural values (D,), projected on the box."""
        return np.clip(values, 0.0, 1.0) if self._space is None else self._space.point(values)

    def gradients(self, point: Vector, gradients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gradients (M, D) with respect to natural values, from those with respect to a point (D,).

        An axis of whole numbers has none: 0.
        """
        if self._space is None:
            return gradients
        slopes = self._space.slopes(point)
        return np.where(slopes > 0.0, gradients / np.where(slopes > 0.0, slopes, 1.0), 0.0)

    def clip(self, values: Vector) -> Vector:
        """Projection on the box, after a step and never within it: a clamp inside a model gives no gradient back."""
        return np.clip(values, self.low, self.high)

    def at_bounds(self, values: Vector) -> float:
        """Share of the axes that stand at an end of their range."""
        reach = 1e-6 * (self.high - self.low)
        return float(np.mean((values <= self.low + reach) | (values >= self.high - reach)))

    def by_expert(self, values: Vector) -> Vector:
        """Mean (K,) of the values (D,) of each expert's coefficients; 0 for an expert without."""
        own = self.expert >= 0
        count = np.bincount(self.expert[own], minlength=self.experts)
        total = np.bincount(self.expert[own], weights=values[own], minlength=self.experts)
        return np.asarray(total / np.maximum(count, 1))


def _main_slots(space: SearchSpace) -> KnobSlots | None:
    """The slots of the coefficients, or of the only searched knob of a space that calls them otherwise."""
    searched = [slots for slots in space.slots if (slots.axis >= 0).any()]
    named = [slots for slots in searched if slots.knob == _MAIN]
    return named[0] if named else searched[0] if len(searched) == 1 else None


def _owners(slots: KnobSlots, dim: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    expert, group = np.full(dim, -1, dtype=np.int64), np.zeros(dim, dtype=np.int64)
    for axis in np.unique(slots.axis[slots.axis >= 0]):
        groups, experts = np.nonzero(slots.axis == axis)
        expert[axis] = experts[0] if (experts == experts[0]).all() else -1
        group[axis] = groups.min()
    return expert, group
