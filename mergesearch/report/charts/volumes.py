"""The front's hypervolume over a search, in the time that one look at each merge takes, also for very many of them."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mergesearch import pareto
from mergesearch.report.reached import BLOCK, first_reached
from mergesearch.report.volume import volume
from mergesearch.results import MARGIN, Results

EXACT_ENTRIES: Final = {2: 5000, 3: 400, 4: 60, 5: 30, 6: 20}
"""Objectives -> how many changes of the front are followed exactly; what takes longer is estimated."""

SAMPLES: Final = 16_384
SIEVE: Final = 64


@dataclass(frozen=True, eq=False)
class Volumes:
    """Hypervolume `values` (k,) from the merges at index `at` (k,) of the scored ones on; it grows at these alone.

    `error` is the standard error of the last value where it was estimated from random points, else 0.0.
    """

    at: NDArray[np.int64]
    values: NDArray[np.float64]
    error: float = 0.0


def entries(losses: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows of losses (n, M) that nothing before them dominates or equals: those that changed the front, in order.

    `Results.entered` knows them for a study; this is for other losses.
    """
    found: list[int] = []
    front = np.zeros((0, losses.shape[1]))
    for first in range(0, len(losses), BLOCK):
        rows = np.arange(first, min(first + BLOCK, len(losses)))
        # Most rows are worse than one of a few of the front: the others alone meet all of it.
        few = front[np.linspace(0, len(front) - 1, SIEVE).astype(int)] if len(front) > SIEVE else front
        rows = rows[~(few[:, None, :] <= losses[None, rows, :]).all(axis=2).any(axis=0)]
        for row in rows.tolist():
            values = losses[row]
            if (front <= values).all(axis=1).any():
                continue
            front = np.vstack([front[(front < values).any(axis=1)], values])
            found.append(row)
    return np.array(found, dtype=np.int64)


def volumes(results: Results) -> Volumes | None:
    """How the hypervolume on the search split grew, normalised; None without baselines, for a single objective, or
    while nothing is scored."""
    normalisation, count = results.normalisation(), len(results.objectives)
    at, losses = results.entered
    if normalisation is None or count < 2 or len(at) == 0:
        return None
    reference = np.full(count, MARGIN)
    scaled = normalisation.scaled(losses)
    inside = (scaled < reference).all(axis=1)
    at, scaled = at[inside], scaled[inside]
    if len(at) <= EXACT_ENTRIES.get(count, 0):
        tracker, values = pareto.HypervolumeTracker(reference), []
        for row in scaled:
            tracker = tracker.add(row)
            values.append(tracker.value)
        return _from_start(at, np.array(values))
    last = volume(results)
    return _estimated(scaled, at, reference, last.value or 0.0, last.stderr)


def _from_start(at: NDArray[np.int64], values: NDArray[np.float64], error: float = 0.0) -> Volumes:
    """With a zero before the first merge that counts, where that is not the first of all."""
    if len(at) == 0 or at[0] > 0:
        at, values = np.concatenate([[0], at]), np.concatenate([[0.0], values])
    return Volumes(at.astype(np.int64), values, error)


def _estimated(
    rows: NDArray[np.float64], at: NDArray[np.int64], reference: NDArray[np.float64], last: float, error: float
) -> Volumes:
    """Random points of the box that `rows` span, each counted from the first row that reaches it; ends at `last`."""
    ideal = rows.min(axis=0)
    generator = np.random.Generator(np.random.Philox(0))
    drawn = ideal + generator.random((SAMPLES, len(reference))) * (reference - ideal)
    first = first_reached(rows, drawn)
    reached = np.bincount(first[first < len(rows)], minlength=len(rows))
    turns = np.flatnonzero(reached)
    if len(turns) == 0:
        return _from_start(at[:1], np.array([last]), error)
    grown = np.cumsum(reached[turns])
    return _from_start(at[turns], last * grown / grown[-1], error)
