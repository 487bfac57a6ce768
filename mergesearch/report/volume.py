"""The front's normalised hypervolume, now and as it grew, quickly even where the front has thousands of points."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mergesearch import pareto
from mergesearch.report.reached import first_reached
from mergesearch.results import MARGIN, Results

EXACT_ROWS: Final = {1: 10**6, 2: 10**6, 3: 20_000, 4: 400, 5: 100, 6: 40}
"""Front rows up to which the exact volume takes some hundredths of a second, by the number of objectives."""
SAMPLES: Final = 20_000
CURVE_SAMPLES: Final = 2_000
POINTS: Final = 24


@dataclass(frozen=True)
class Volume:
    """`value`: the hypervolume, `stderr` its standard error where it was estimated by sampling, 0.0 where exact; None
    without baselines, and for one objective. `curve`: how it grew, from the first evaluation to the last."""

    value: float | None = None
    stderr: float = 0.0
    curve: tuple[float, ...] = ()


def volume(results: Results) -> Volume:
    """The hypervolume of a study's front on the search split."""
    normalisation, count = results.normalisation(), len(results.objectives)
    if normalisation is None or count < 2:
        return Volume()
    rows = normalisation.scaled(results.front_losses)
    bound = np.full(count, MARGIN)
    rows = rows[np.all(rows < bound, axis=1)]
    if len(rows) == 0:
        return Volume(0.0)
    value, stderr = _value(rows, bound)
    return Volume(value, stderr, _curve(results, value, bound))


def _value(rows: NDArray[np.float64], bound: NDArray[np.float64]) -> tuple[float, float]:
    if len(rows) <= EXACT_ROWS.get(rows.shape[1], 0):
        return pareto.hypervolume(rows, bound), 0.0
    covered = first_reached(rows, _samples(rows, bound, SAMPLES)) < len(rows)
    box, share = float(np.prod(bound - rows.min(axis=0))), float(covered.mean())
    return box * share, box * (share * (1.0 - share) / SAMPLES) ** 0.5


def _curve(results: Results, value: float, bound: NDArray[np.float64]) -> tuple[float, ...]:
    """Shares of fixed samples that the front had covered by then, scaled to end at `value`."""
    places, losses = results.entered
    normalisation = results.normalisation()
    assert normalisation is not None
    rows = normalisation.scaled(losses)
    inside = np.all(rows < bound, axis=1)
    rows, places = rows[inside], places[inside]
    first = first_reached(rows, _samples(rows, bound, CURVE_SAMPLES))
    when = np.append(places, results.scored_count)[first]
    ends = np.linspace(0, results.scored_count - 1, POINTS).round()
    shares = np.searchsorted(np.sort(when), ends, side="right") / CURVE_SAMPLES
    return tuple((shares * (value / shares[-1] if shares[-1] > 0 else 0.0)).tolist())


def _samples(rows: NDArray[np.float64], bound: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The same points (count, M) each time in the box between the ideal point and the reference."""
    ideal = rows.min(axis=0)
    return np.asarray(ideal + np.random.Generator(np.random.Philox(0)).random((count, len(bound))) * (bound - ideal))
