"""How good a front is against a reference front: distances, R2, epsilon, spread, spacing, coverage, win rate.

Fronts are losses, float64 (n, M), always minimised; negate scores first. Bring objectives of different units together
before (once per study, base to expert): no function here scales anything, since indicators of fronts that were scaled
each by itself cannot be compared. Functions take the rows as they are: pass non-dominated rows (`pareto.front`).
Sources: Zitzler et al., IEEE TEVC 2003 (epsilon, coverage); Ishibuchi et al., EMO 2015 (GD+, IGD+); Hansen and
Jaszkiewicz 1998 (R2); Deb et al., IEEE TEVC 2002 (spread); Schott 1995 (spacing); MAP, arXiv:2406.07529 (win rate).
All but coverage and win rate raise SpecError for an empty front; NaN and infinite losses are refused everywhere.
"""

import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mergesearch.errors import SpecError
from mergesearch.pareto import hypervolume
from mergesearch.types import Vector


def _pair(a: ArrayLike, b: ArrayLike, empty: bool = False) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1] or left.shape[1] < 1:
        raise SpecError(f"two fronts must have shapes (n, M) and (k, M), got {left.shape} and {right.shape}")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise SpecError("a front holds NaN or an infinite loss; leave failed evaluations out")
    if not empty and (len(left) == 0 or len(right) == 0):
        raise SpecError("a front is empty: the indicator is not defined")
    return left, right


def _gaps(obtained: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much worse each obtained row is than each reference row, (n, k, M); negative where it is better."""
    return obtained[:, None, :] - reference[None, :, :]


def generational_distance(obtained: ArrayLike, reference: ArrayLike) -> float:
    """GD: mean distance of an obtained row to its nearest reference row. Says nothing of coverage."""
    gaps = _gaps(*_pair(obtained, reference))
    return float(np.linalg.norm(gaps, axis=2).min(axis=1).mean())


def inverted_generational_distance(obtained: ArrayLike, reference: ArrayLike) -> float:
    """IGD: mean distance of a reference row to its nearest obtained row. A better front may have a worse IGD."""
    gaps = _gaps(*_pair(obtained, reference))
    return float(np.linalg.norm(gaps, axis=2).min(axis=0).mean())


def generational_distance_plus(obtained: ArrayLike, reference: ArrayLike) -> float:
    """GD+: as GD, but only what an obtained row is worse by counts."""
    gaps = np.maximum(_gaps(*_pair(obtained, reference)), 0.0)
    return float(np.linalg.norm(gaps, axis=2).min(axis=1).mean())


def inverted_generational_distance_plus(obtained: ArrayLike, reference: ArrayLike) -> float:
    """IGD+: as IGD, but only what an obtained row is worse by counts: never better for a front that is dominated."""
    gaps = np.maximum(_gaps(*_pair(obtained, reference)), 0.0)
    return float(np.linalg.norm(gaps, axis=2).min(axis=0).mean())


def additive_epsilon(obtained: ArrayLike, reference: ArrayLike) -> float:
    """Smallest amount to take off every obtained loss so that each reference row is weakly dominated."""
    return float(_gaps(*_pair(obtained, reference)).max(axis=2).min(axis=0).max())


def multiplicative_epsilon(obtained: ArrayLike, reference: ArrayLike) -> float:
    """Smallest factor by which to improve every objective so that each reference row is weakly dominated.

    Losses that are all positive are divided by it; losses that are all negative are negated scores, multiplied by it.

    Raises:
        SpecError: losses of either sign, or zero, where a factor means nothing.
    """
    rows, targets = _pair(obtained, reference)
    positive = bool((rows > 0).all() and (targets > 0).all())
    if not positive and not ((rows < 0).all() and (targets < 0).all()):
        raise SpecError("the multiplicative epsilon needs losses all above zero, or all below (negated scores)")
    ratio = rows[:, None, :] / targets[None, :, :]
    return float((ratio if positive else 1.0 / ratio).max(axis=2).min(axis=0).max())


def simplex_weights(objectives: int, parts: int) -> NDArray[np.float64]:
    """Weights (n, M) at every multiple of 1 / parts that sum to 1, in lexical order."""
    if objectives < 1 or parts < 1:
        raise SpecError(f"weights need at least 1 objective and 1 part, got {objectives} and {parts}")
    counts = [c for c in itertools.product(range(parts + 1), repeat=objectives - 1) if sum(c) <= parts]
    return np.array([(*c, parts - sum(c)) for c in counts], dtype=np.float64) / parts


def r2(obtained: ArrayLike, ideal: ArrayLike, weights: ArrayLike) -> float:
    """R2: mean over weights (n, M) of the least weighted Chebyshev distance to the ideal losses (M,).

    For the usual value with two objectives take `simplex_weights(2, 10)`.
    """
    rows, directions = _pair(obtained, weights)
    best = np.asarray(ideal, dtype=np.float64)
    if best.shape != (rows.shape[1],) or not np.isfinite(best).all():
        raise SpecError(f"the ideal must be {rows.shape[1]} finite losses, got {best}")
    distances = (directions[:, None, :] * (rows - best)[None, :, :]).max(axis=2)  # (n, rows)
    return float(distances.min(axis=1).mean())


def relative_hypervolume(obtained: ArrayLike, reference: ArrayLike, bound: ArrayLike) -> float:
    """Hypervolume of the obtained front over that of the reference front; both below `bound` (M,)."""
    rows, targets = _pair(obtained, reference, empty=True)
    whole = hypervolume(targets, bound)
    if whole <= 0.0:
        raise SpecError("the reference front has no hypervolume: no row of it lies below the bound")
    return hypervolume(rows, bound) / whole


def spread(obtained: ArrayLike, reference: ArrayLike) -> float:
    """Δ of NSGA-II, two objectives: how unevenly the rows lie, and how far their ends are from the reference's ends."""
    rows, targets = _pair(obtained, reference)
    if rows.shape[1] != 2:
        raise SpecError(f"the spread is defined for 2 objectives, got {rows.shape[1]}; use spacing")
    rows, targets = _along(rows), _along(targets)
    first, last = np.linalg.norm(rows[0] - targets[0]), np.linalg.norm(rows[-1] - targets[-1])
    gaps = np.linalg.norm(np.diff(rows, axis=0), axis=1)
    mean = gaps.mean() if len(gaps) else 0.0
    whole = first + last + len(gaps) * mean
    return float((first + last + np.abs(gaps - mean).sum()) / whole) if whole > 0 else 0.0


def _along(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows[np.lexsort((-rows[:, 1], rows[:, 0]))]


def spacing(obtained: ArrayLike) -> float:
    """Sample standard deviation of the L1 distances to the nearest neighbour; 0.0 for fewer than three rows."""
    rows, _ = _pair(obtained, obtained)
    if len(rows) < 3:
        return 0.0
    distances = np.abs(_gaps(rows, rows)).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    return float(distances.min(axis=1).std(ddof=1))


def coverage(a: ArrayLike, b: ArrayLike) -> float:
    """Share of the rows of `b` that some row of `a` weakly dominates; 0.0 where either is empty. Report both ways."""
    rows, others = _pair(a, b, empty=True)
    if len(rows) == 0 or len(others) == 0:
        return 0.0
    return float((_gaps(rows, others) <= 0.0).all(axis=2).any(axis=0).mean())


def win_rate(a: ArrayLike, b: ArrayLike) -> float:
    """Share of (row of a, row of b, objective) in which `a` has the smaller loss; ties count for neither side.

    Not a measure of dominance: a front of compromises and one of extremes may both lose.
    """
    rows, others = _pair(a, b, empty=True)
    if len(rows) == 0 or len(others) == 0:
        return 0.0
    return float((_gaps(rows, others) < 0.0).mean())


def summary(obtained: ArrayLike, reference: ArrayLike, bound: ArrayLike) -> dict[str, float]:
    """The indicators that make sense for any number of objectives, by name. R2 is taken to the reference's ideal."""
    rows, targets = _pair(obtained, reference)
    ideal: Vector = targets.min(axis=0)
    return {
        "relative_hypervolume": relative_hypervolume(rows, targets, bound),
        "gd": generational_distance(rows, targets),
        "igd": inverted_generational_distance(rows, targets),
        "gd_plus": generational_distance_plus(rows, targets),
        "igd_plus": inverted_generational_distance_plus(rows, targets),
        "additive_epsilon": additive_epsilon(rows, targets),
        "r2": r2(rows, ideal, simplex_weights(rows.shape[1], 10 if rows.shape[1] == 2 else 4)),
        "spacing": spacing(rows),
    }
