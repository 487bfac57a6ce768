"""Which axes are coefficients and how they lie in depth: what M2N2 cuts and mixes."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mergesearch.space import KnobSlots, SearchSpace
from mergesearch.strategies.base import Geometry, Problem
from mergesearch.types import Vector

_COEFFICIENT = "coefficient"


@dataclass(frozen=True, eq=False)
class Segments:
    """`axes` (A,): the axes that are mixed, `of_axis` (A,): the segment of each, numbered in depth from 0.

    `ends` (S,): where each of the S segments ends, in shares of the merged numbers. `gram` (A, A): inner products of
    what the axes weigh; None: not known. `alone`: points (D,) of single experts. Natural values where a space is known,
    the unit cube's own otherwise. Axes that are not mixed stay at the start.
    """

    start: Vector
    space: SearchSpace | None
    axes: NDArray[np.int64]
    of_axis: NDArray[np.int64]
    ends: Vector
    gram: NDArray[np.float64] | None = None
    alone: tuple[Vector, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """Segments of a problem: the groups in which its coefficients vary; every axis one where there are none."""
        space, dim = problem.space, problem.dim
        slots = [s for s in space.slots if s.knob.endswith(_COEFFICIENT) and np.any(s.axis >= 0)] if space else []
        if space is None or not slots:
            every = np.arange(dim, dtype=np.int64)
            note = "no axis is an expert's coefficient: every axis is a segment of its own, mixed in a straight line"
            return cls(problem.start, None, every, every, (every + 1.0) / dim, notes=(note,))
        axes = np.unique(np.concatenate([s.axis[s.axis >= 0] for s in slots]))
        first = np.array([min(_first_group(s, int(axis)) for s in slots) for axis in axes])
        begins, of_axis = np.unique(first, return_inverse=True)
        groups = len(space.groups) or slots[0].axis.shape[0]
        sizes = np.ones(groups) if problem.geometry is None else np.maximum(problem.geometry.sizes, 0.0)
        total = np.append(0.0, np.cumsum(sizes))
        ends = np.append(total[begins[1:]], total[-1]) / max(float(total[-1]), 1.0)
        gram = None if problem.geometry is None else _gram(slots, axes, problem.geometry)
        notes = [f"{len(axes)} coefficients in {len(begins)} segments are mixed" + ("" if gram is None else " on arcs")]
        if len(axes) < dim:
            notes.append(f"{dim - len(axes)} axes that are not coefficients stay at the start")
        return cls(
            problem.start, space, axes, of_axis, ends, gram, _alone(problem.start, space, slots, axes), tuple(notes)
        )

    @property
    def count(self) -> int:
        """Number of segments S."""
        return len(self.ends)

    @property
    def moves(self) -> Vector:
        """(D,): 1 for axes that are mixed, else 0."""
        mask = np.zeros(len(self.start))
        mask[self.axes] = 1.0
        return mask

    def values(self, point: Vector) -> Vector:
        """What is mixed (A,) of a point (D,)."""
        if self.space is None:
            return np.array(point[self.axes])
        return np.array([self.space.axes[i].value(float(point[i])) for i in self.axes])

    def point(self, values: Vector) -> Vector:
        """The point (D,) of mixed values (A,), clipped to the ranges of their axes."""
        point = np.array(self.start)
        if self.space is None:
            point[self.axes] = np.clip(values, 0.0, 1.0)
        else:
            point[self.axes] = [self.space.axes[i].unit(float(v)) for i, v in zip(self.axes, values, strict=True)]
        return point

    def held(self, point: Vector) -> Vector:
        """A point (D,) with what is not mixed put back to the start."""
        kept = np.array(self.start)
        kept[self.axes] = point[self.axes]
        return kept

    def cut(self, where: float) -> int:
        """The boundary next to the share `where` in [0, 1) of the merged numbers: segments before it lie left.

        Never the ends, unless there is one segment, which lies left.
        """
        if self.count == 1:
            return 1
        return 1 + int(np.argmin(np.abs(self.ends[:-1] - where)))

    def left_of(self, cut: int) -> NDArray[np.bool_]:
        """(A,): whether an axis lies before the boundary."""
        left: NDArray[np.bool_] = self.of_axis < cut
        return left


def _first_group(slot: KnobSlots, axis: int) -> int:
    rows = np.flatnonzero((slot.axis == axis).any(axis=1))
    return int(rows[0]) if len(rows) else slot.axis.shape[0]


def _gram(slots: list[KnobSlots], axes: NDArray[np.int64], geometry: Geometry) -> NDArray[np.float64]:
    """Inner products (A, A) of what the axes weigh, knob by knob."""
    place = np.full(int(axes.max()) + 1, -1)
    place[axes] = np.arange(len(axes))
    gram = np.zeros((len(axes), len(axes)))
    for slot in slots:
        for row, products in zip(slot.axis, geometry.gram, strict=True):
            cells = np.flatnonzero(row >= 0)
            index = place[row[cells]]
            np.add.at(gram, np.ix_(index, index), products[np.ix_(cells, cells)])
    return gram


def _alone(start: Vector, space: SearchSpace, slots: list[KnobSlots], axes: NDArray[np.int64]) -> tuple[Vector, ...]:
    """Each expert at 1 and the others at 0, as near as the ranges allow; none where experts share an axis."""
    points = []
    for expert in range(len(space.experts)):
        value = {int(axis): 0.0 for axis in axes}
        for slot in slots:
            mine = {int(axis) for axis in slot.axis[:, expert] if axis >= 0}
            others = np.delete(slot.axis, expert, axis=1)
            if mine & {int(axis) for axis in others.ravel()}:
                return ()
            value |= dict.fromkeys(mine, 1.0)
        point = np.array(start)
        for axis, natural in value.items():
            point[axis] = space.axes[axis].unit(natural)
        points.append(point)
    return tuple(points)
