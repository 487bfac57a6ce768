"""Axes tied into blocks that move together, and how a block falls into two."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import SpecError
from mergesearch.strategies.base import Problem
from mergesearch.types import Vector, frozen_array

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Blocks:
    """A partition of D axes into B blocks. `of` (D,) is each axis' block; `offset` (D,) what an axis adds to its
    block's coordinate, so that axes with unequal starts keep their differences. `names` are those of the axes."""

    of: NDArray[np.int64]
    offset: Vector
    names: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of blocks B."""
        return int(self.of.max()) + 1

    def spread(self, point: Vector) -> Vector:
        """The point (D,) of block coordinates (B,), clipped to the cube."""
        return np.clip(point[self.of] + self.offset, 0.0, 1.0)

    def gather(self, point: Vector) -> Vector:
        """Block coordinates (B,) of a point (D,): the mean over each block, less the offsets, clipped to the cube."""
        total = np.bincount(self.of, weights=point - self.offset, minlength=self.count)
        return np.clip(total / np.bincount(self.of, minlength=self.count), 0.0, 1.0)

    def around(self, centre: Vector) -> "Blocks":
        """The same blocks with offsets that make `centre` (D,) a point they express."""
        total = np.bincount(self.of, weights=centre, minlength=self.count)
        mean = total / np.bincount(self.of, minlength=self.count)
        return Blocks(self.of, frozen_array(centre - mean[self.of]), self.names)

    def can_express(self, point: Vector) -> bool:
        """Whether some block coordinates give exactly this point (D,)."""
        return bool(np.max(np.abs(self.spread(self.gather(point)) - point)) < 1e-9)

    def pull_back(self, gradients: Matrix) -> Matrix:
        """Gradients (M, B) with respect to block coordinates, from those (M, D) with respect to the axes."""
        return np.stack([np.bincount(self.of, weights=row, minlength=self.count) for row in gradients])

    def name(self, block: int) -> str:
        """What people call a block: its first and last axis."""
        members = np.flatnonzero(self.of == block)
        first, last = self.names[members[0]], self.names[members[-1]]
        return first if len(members) == 1 else f"{first} to {last}"

    def split(self, sides: Sequence[tuple[Vector, Vector]]) -> "Blocks":
        """The blocks after some of them fell into two: each pair marks (1.0) the axes (D,) of either side."""
        of, following = self.of.copy(), self.count
        for _, right in sides:
            of[right > 0.0] = following
            following += 1
        _, of = np.unique(of, return_inverse=True)
        return Blocks(_in_order(of), self.offset, self.names)


def _in_order(of: NDArray[np.int64]) -> NDArray[np.int64]:
    """Blocks numbered by their first axis."""
    firsts = list(dict.fromkeys(of.tolist()))
    rank = {block: i for i, block in enumerate(firsts)}
    return np.array([rank[block] for block in of.tolist()], dtype=np.int64)


def coarsest(problem: Problem) -> Blocks:
    """One block for each knob and expert; for axes without a meaning one in all, since nothing tells them apart."""
    space = problem.space
    names = tuple(f"x{i}" for i in range(problem.dim)) if space is None else tuple(a.name for a in space.axes)
    if len(names) != problem.dim:
        raise SpecError(f"a space of {len(names)} axes cannot describe a problem of {problem.dim}")
    of = np.zeros(problem.dim, dtype=np.int64)
    if space is not None and space.slots:
        kinds: dict[tuple[str, frozenset[int]], int] = {}
        for axis in range(problem.dim):
            slot = next(s for s in space.slots if bool(np.any(s.axis == axis)))
            experts = frozenset(np.flatnonzero(np.any(slot.axis == axis, axis=0)).tolist())
            of[axis] = kinds.setdefault((slot.knob, experts), len(kinds))
    return Blocks(of, frozen_array(np.zeros(problem.dim)), names)


def halves(blocks: Blocks, problem: Problem) -> Iterator[tuple[int, Vector, Vector]]:
    """Every block of more than one axis in two: (block, left (D,), right (D,)), the largest blocks first.

    A block is cut in the middle of its groups, which stand in the order of depth.
    """
    depth = _depth(problem)
    sizes = np.bincount(blocks.of, minlength=blocks.count)
    for block in sorted(range(blocks.count), key=lambda b: (-sizes[b], b)):
        members = np.flatnonzero(blocks.of == block)
        if len(members) < 2:
            continue
        ordered = members[np.argsort(depth[members], kind="stable")]
        left, right = np.zeros(problem.dim), np.zeros(problem.dim)
        left[ordered[: len(ordered) // 2]] = 1.0
        right[ordered[len(ordered) // 2 :]] = 1.0
        yield block, left, right


def _depth(problem: Problem) -> Vector:
    """For each axis (D,) the first group it stands in."""
    depth = np.arange(problem.dim, dtype=np.float64)
    if problem.space is not None:
        for slot in problem.space.slots:
            for axis in np.unique(slot.axis[slot.axis >= 0]):
                depth[axis] = float(np.flatnonzero(np.any(slot.axis == axis, axis=1))[0])
    return depth
