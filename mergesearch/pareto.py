"""Pareto fronts of losses: dominance, front, hypervolume, knee, pick by preference. Everything is minimised.

`losses` is always float64 (n, M): n evaluations, M objectives. Infinite entries are allowed, NaN is refused.
Hypervolume slices along the last objective as in WFG (While, Bradstreet, Barone, IEEE TEVC 2012): with the points
sorted by it, HV_d = sum of (r_d - f_d) * (volume that the point adds to the earlier ones in the other d - 1).
"""

from bisect import bisect_left
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mergesearch.errors import SpecError
from mergesearch.types import Vector, frozen_array

EXACT_UP_TO = 6
"""Objectives up to which `hypervolume` is exact; above, use `hypervolume_estimate`."""


def _table(losses: ArrayLike) -> NDArray[np.float64]:
    table = np.asarray(losses, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 1:
        raise SpecError(f"losses must have shape (n, M) with M of at least 1, got {table.shape}")
    if np.isnan(table).any():
        raise SpecError("losses hold NaN; leave failed evaluations out before building a front")
    return table


def _within(losses: ArrayLike, reference: ArrayLike) -> tuple[NDArray[np.float64], Vector]:
    """Rows strictly better than the reference in every objective, and the reference (M,)."""
    table, bound = _table(losses), np.asarray(reference, dtype=np.float64)
    if bound.shape != (table.shape[1],) or not np.isfinite(bound).all():
        raise SpecError(f"the reference point must be {table.shape[1]} finite losses, got {bound}")
    inside = table[np.all(table < bound, axis=1)]
    if np.isneginf(inside).any():
        raise SpecError("a loss of -inf has no finite hypervolume")
    return inside, bound


def dominates(a: ArrayLike, b: ArrayLike) -> bool:
    """True where losses `a` (M,) are nowhere worse than `b` (M,) and somewhere better."""
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return bool(np.all(left <= right) and np.any(left < right))


def front(losses: ArrayLike) -> NDArray[np.int64]:
    """Sorted indices of the rows that no other row dominates. Equal rows do not dominate each other: all of them stay.

    An empty table (0, M) gives an empty front.
    """
    table = _table(losses)
    order = np.lexsort(table.T[::-1])  # nothing later in this order dominates anything earlier
    rows, kept = table[order], order
    done = 0
    while done < len(rows):
        worse = np.all(rows >= rows[done], axis=1) & np.any(rows > rows[done], axis=1)
        rows, kept = rows[~worse], kept[~worse]
        done += 1
    return np.sort(kept).astype(np.int64)


def hypervolume(losses: ArrayLike, reference: ArrayLike) -> float:
    """Exact volume between the front and `reference` (M,), for M up to 6.

    Rows not strictly better than the reference in every objective count nothing; dominated and repeated rows neither.

    Raises:
        SpecError: M above 6, wrong shapes, NaN or -inf losses.
    """
    inside, bound = _within(losses, reference)
    if len(bound) > EXACT_UP_TO:
        raise SpecError(f"hypervolume is exact up to {EXACT_UP_TO} objectives, got {len(bound)}; use the estimate")
    return _volume(inside, bound)


def _volume(points: NDArray[np.float64], bound: Vector) -> float:
    """Hypervolume of points (n, d) that all lie strictly below `bound` (d,)."""
    if len(points) == 0:
        return 0.0
    if len(points) == 1:
        return float(np.prod(bound - points[0]))
    if len(bound) == 1:
        return float(bound[0] - points.min())
    if len(bound) == 2:
        return _area(points, bound)
    if len(bound) == 3:
        return _sweep(points, bound)
    rows = points[front(points)]
    rows = rows[np.argsort(rows[:, -1], kind="stable")]
    heights = bound[-1] - rows[:, -1]
    flat, low = rows[:, :-1], bound[:-1]
    return float(sum(heights[i] * _added(flat[i], flat[:i], low) for i in range(len(rows))))


def _added(point: Vector, others: NDArray[np.float64], bound: Vector) -> float:
    """Volume that `point` (d,) adds to the union of `others` (n, d)."""
    if len(others) == 0:
        return float(np.prod(bound - point))
    clipped = np.maximum(others, point)
    if np.any(np.all(clipped == point, axis=1)):
        return 0.0
    return float(np.prod(bound - point)) - _volume(clipped, bound)


def _area(points: NDArray[np.float64], bound: Vector) -> float:
    rows = points[np.argsort(points[:, 0], kind="stable")]
    lowest = np.minimum.accumulate(rows[:, 1])
    widths = np.diff(rows[:, 0], append=bound[0])
    return float(widths @ (bound[1] - lowest))


def _sweep(points: NDArray[np.float64], bound: Vector) -> float:
    """Three objectives: a staircase of the first two grows while the third rises, O(n log n) apart from deletions."""
    right, top, far = map(float, bound)
    xs: list[float] = []  # ascending, with ys descending: the corners of the staircase
    ys: list[float] = []
    volume = 0.0
    for x, y, z in points[np.argsort(points[:, 2], kind="stable")].tolist():
        at = bisect_left(xs, x)
        ceiling = ys[at - 1] if at else top
        if ceiling <= y or (at < len(xs) and xs[at] == x and ys[at] <= y):
            continue
        area, left, end = 0.0, x, at
        while end < len(xs) and ys[end] >= y:
            area += (xs[end] - left) * (ceiling - y)
            left, ceiling, end = xs[end], ys[end], end + 1
        area += ((xs[end] if end < len(xs) else right) - left) * (ceiling - y)
        xs[at:end], ys[at:end] = [x], [y]
        volume += area * (far - z)
    return volume


def hypervolume_estimate(
    losses: ArrayLike, reference: ArrayLike, samples: int = 100_000, seed: int = 0
) -> tuple[float, float]:
    """Monte Carlo hypervolume and its standard error, for any M; the same numbers for the same seed.

    Samples are uniform in the box from the front's ideal point to the reference.
    """
    inside, bound = _within(losses, reference)
    if len(inside) == 0:
        return 0.0, 0.0
    rows = inside[front(inside)]
    ideal = rows.min(axis=0)
    box = float(np.prod(bound - ideal))
    generator = np.random.Generator(np.random.Philox(seed))
    hits = 0
    for size in [10_000] * (samples // 10_000) + [samples % 10_000]:  # in parts, to bound memory
        drawn = ideal + generator.random((size, len(bound))) * (bound - ideal)
        covered = np.zeros(size, dtype=bool)
        for row in rows:
            covered |= np.all(drawn >= row, axis=1)
        hits += int(covered.sum())
    share = hits / samples
    return box * share, box * float(np.sqrt(share * (1.0 - share) / samples))


@dataclass(frozen=True, eq=False)
class HypervolumeTracker:
    """Hypervolume after each evaluation, at the cost of the newcomer's own contribution only.

    A value: `add` returns the next one. `rows` is the front (f, M) below the reference, without repeats.
    """

    reference: Vector
    value: float = 0.0
    rows: NDArray[np.float64] = field(default_factory=lambda: frozen_array(np.zeros((0, 0))))

    def __post_init__(self) -> None:
        bound = frozen_array(self.reference)
        if bound.ndim != 1 or not 1 <= len(bound) <= EXACT_UP_TO:
            raise SpecError(f"a tracker takes 1 to {EXACT_UP_TO} objectives, got a reference of shape {bound.shape}")
        object.__setattr__(self, "reference", bound)
        if self.rows.size == 0:
            object.__setattr__(self, "rows", frozen_array(np.zeros((0, len(bound)))))

    def contribution(self, losses: ArrayLike) -> float:
        """What losses (M,) would add to the hypervolume; 0.0 where they are dominated, repeated or out of reach."""
        inside, bound = _within(np.atleast_2d(np.asarray(losses, dtype=np.float64)), self.reference)
        return _added(inside[0], self.rows, bound) if len(inside) else 0.0

    def add(self, losses: ArrayLike) -> "HypervolumeTracker":
        """The tracker after one more evaluation with losses (M,)."""
        gain = self.contribution(losses)
        if gain <= 0.0:
            return self
        point = np.asarray(losses, dtype=np.float64)
        left = self.rows[np.any(self.rows < point, axis=1)]
        return HypervolumeTracker(self.reference, self.value + gain, frozen_array(np.vstack([left, point])))


def knee(losses: ArrayLike, *, is_front: bool = False) -> int:
    """Index of the front's knee: furthest below the hyperplane through the extremes of the normalised front.

    Losses are scaled to 0 at the front's ideal and 1 at its nadir; the distance below the plane falls with their sum,
    so the smallest sum wins, the first of equals. An objective that does not vary on the front does not count.
    `is_front`: no row dominates another, so that nothing has to be left out first.

    Raises:
        SpecError: no rows.
    """
    table = _table(losses)
    on_front = _some_front(table, is_front)
    rows = table[on_front]
    ideal, nadir = rows.min(axis=0), rows.max(axis=0)
    span = np.where(nadir > ideal, nadir - ideal, 1.0)
    return int(on_front[int(np.argmin(((rows - ideal) / span).sum(axis=1)))])


def prefer(losses: ArrayLike, weights: ArrayLike, scale: ArrayLike | None = None, *, is_front: bool = False) -> int:
    """Index of the front row with the least weighted sum of losses / scale; the first of equals.

    `weights` (M,) are at least 0 and not all 0; only their ratios matter. `scale` (M,) > 0 brings objectives of
    different units together (base to expert, say); None leaves the losses as they are. `is_front`: as in `knee`.

    Raises:
        SpecError: no rows, or weights or scale that do not fit.
    """
    table, share = _table(losses), np.asarray(weights, dtype=np.float64)
    unit = np.ones(table.shape[1]) if scale is None else np.asarray(scale, dtype=np.float64)
    if share.shape != (table.shape[1],) or not np.all(share >= 0) or not 0 < share.sum() < np.inf:
        raise SpecError(f"a preference needs {table.shape[1]} weights of at least 0, one above 0; got {share}")
    if unit.shape != share.shape or not np.all(unit > 0):
        raise SpecError(f"the scale needs {table.shape[1]} numbers above 0, got {unit}")
    on_front = _some_front(table, is_front)
    used = share > 0  # 0 * inf would be NaN
    sums = (table[np.ix_(on_front, used)] / unit[used]) @ (share[used] / share.sum())
    return int(on_front[int(np.argmin(sums))])


def _some_front(table: NDArray[np.float64], is_front: bool) -> NDArray[np.int64]:
    if len(table) == 0:
        raise SpecError("the front is empty: no evaluation has been scored yet")
    return np.arange(len(table)) if is_front else front(table)
