"""A study's candidates as columns: pages, filters and sorts of 100,000 of them take milliseconds."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mergesearch.folded import Columns
from mergesearch.report.estimate import mean_sign
from mergesearch.report.view import StudyView
from mergesearch.types import Split

OPEN, SCORED, FAILED, ABSENT = range(4)
STATES: Final = ("open", "scored", "failed", "absent")
"""How a candidate's evaluation on a split stands; 'absent': it was not asked there."""


@dataclass(frozen=True, eq=False)
class Table:
    """Candidates of a study on one split, in the order of their numbers.

    `numbers`, `state`, `cost`, `mean`, `on_front` and `origin` (n,); `scores` and `errors` (n, M), NaN where there are
    none. `mean` is the weighted mean that is shown: higher is better unless all objectives are minimised. `origin` is a
    place in `origins`.
    """

    numbers: NDArray[np.int64]
    origin: NDArray[np.int64]
    origins: tuple[str, ...]
    cost: NDArray[np.float64]
    state: NDArray[np.int64]
    scores: NDArray[np.float64]
    errors: NDArray[np.float64]
    seconds: NDArray[np.float64]
    mean: NDArray[np.float64]
    on_front: NDArray[np.bool_]


def table_of(view: StudyView, split: Split) -> Table:
    """The candidates that were asked on `split`; all of them for the search split."""
    results = view.results
    listed = results.listed()
    order = np.argsort(listed.numbers, kind="stable")
    numbers = listed.numbers[order]
    columns = results.columns(split)
    state = np.full(len(numbers), ABSENT)
    for kind, found in ((OPEN, results.asked.numbers(split)), (FAILED, results.failed_on(split))):
        state[np.searchsorted(numbers, found)] = kind
    rows = np.searchsorted(numbers, columns.numbers)
    state[rows] = SCORED
    scores, errors = _spread(columns, rows, len(numbers))
    seconds = np.full(len(numbers), np.nan)
    seconds[rows] = columns.timing[:, 1] + columns.timing[:, 2]
    on_front = np.zeros(len(numbers), dtype=np.bool_)
    on_front[np.searchsorted(numbers, np.array(results.front, dtype=np.int64))] = True
    kept = state != ABSENT
    return Table(
        numbers[kept],
        listed.origin[order][kept],
        listed.origins,
        listed.cost[order][kept],
        state[kept],
        scores[kept],
        errors[kept],
        seconds[kept],
        _mean(view, scores)[kept],
        on_front[kept],
    )


def _spread(columns: Columns, rows: NDArray[np.int64], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    shape = (count, columns.scores.shape[1])
    scores, errors = np.full(shape, np.nan), np.full(shape, np.nan)
    scores[rows], errors[rows] = columns.scores, columns.errors
    return scores, errors


def _mean(view: StudyView, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    objectives = view.results.objectives
    weights = np.array([o.weight for o in objectives])
    signs = np.array([o.loss(1.0) for o in objectives])
    return np.asarray(mean_sign(objectives) * (scores * signs) @ (weights / weights.sum()))
