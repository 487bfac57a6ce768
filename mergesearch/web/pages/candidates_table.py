"""A page of a study's candidates, as the study's page shows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from mergesearch.report.estimate import Estimate, mean_sign, mean_unit, unit_of
from mergesearch.report.view import StudyView
from mergesearch.types import Split
from mergesearch.web.table import STATES, Table

PAGE_ROWS: Final = 25
OBJECTIVES_SHOWN: Final = 8
Shown: TypeAlias = Literal["front", "all", "baselines", "failed"]
Order: TypeAlias = Literal["asc", "desc"]


@dataclass(frozen=True)
class Choice:
    """What part of the table is wanted. `sort`: 'number', 'origin', 'mean' or 'score:<place of the objective>'."""

    show: Shown = "front"
    sort: str = "mean"
    order: Order | None = None
    offset: int = 0

    def query(self, **changed: object) -> str:
        """The same choice with some of it changed, as an address' query."""
        values: dict[str, object] = {"show": self.show, "sort": self.sort, "offset": self.offset}
        values |= {"order": self.order} if self.order else {}
        values |= changed
        return urlencode({k: v for k, v in values.items() if v is not None})


@dataclass(frozen=True)
class Line:
    """One candidate; `scores` as written, '' where there are none."""

    number: int
    origin: str
    state: str
    scores: tuple[str, ...]
    mean: str
    note: str


@dataclass(frozen=True)
class TablePage:
    """Lines of a page, how many there are in all, how they are sorted."""

    lines: tuple[Line, ...]
    total: int
    counts: Mapping[str, int]
    sort: str
    order: Order
    offset: int


def page_of(view: StudyView, table: Table, choice: Choice, notes: Mapping[int, str]) -> TablePage:
    """One page of the table. An unknown column sorts by the mean, a page after the end is the last one."""
    baseline = np.array([origin.startswith("baseline:") for origin in table.origins], dtype=bool)
    is_baseline = baseline[table.origin] if len(table.origin) else np.zeros(0, dtype=bool)
    failed = table.state == STATES.index("failed")
    masks = {"front": table.on_front, "all": np.ones(len(failed), dtype=bool), "baselines": is_baseline}
    masks["failed"] = failed
    rows = np.flatnonzero(masks[choice.show])
    sort, order, keys = _keys(view, table, choice)
    ranked = rows[_ranked(keys[rows], order == "desc")]
    offset = min(max(choice.offset, 0), max(0, (len(ranked) - 1) // PAGE_ROWS * PAGE_ROWS)) // PAGE_ROWS * PAGE_ROWS
    lines = tuple(_line(view, table, int(at), notes) for at in ranked[offset : offset + PAGE_ROWS])
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    return TablePage(lines, len(ranked), counts, sort, order, offset)


def _keys(view: StudyView, table: Table, choice: Choice) -> tuple[str, Order, NDArray[np.float64]]:
    objectives = view.results.objectives
    if choice.sort.startswith("score:") and choice.sort[6:].isdecimal() and int(choice.sort[6:]) < len(objectives):
        place = int(choice.sort[6:])
        return choice.sort, choice.order or _best_first(objectives[place].loss(1.0)), table.scores[:, place]
    if choice.sort == "number":
        return "number", choice.order or "asc", table.numbers.astype(np.float64)
    if choice.sort == "origin":
        places = np.argsort(np.argsort(np.array(table.origins, dtype=str))) if table.origins else np.zeros(0)
        keys = places[table.origin] if len(table.origin) else np.zeros(0)
        return "origin", choice.order or "asc", keys.astype(np.float64)
    return "mean", choice.order or _best_first(mean_sign(objectives)), table.mean


def _best_first(sign: float) -> Order:
    return "desc" if sign < 0 else "asc"


def _ranked(keys: NDArray[np.float64], descending: bool) -> NDArray[np.int64]:
    """Order of the keys; of equals the first, what is not known last."""
    return np.argsort(np.where(np.isnan(keys), np.inf, -keys if descending else keys), kind="stable")


def _line(view: StudyView, table: Table, at: int, notes: Mapping[int, str]) -> Line:
    number, objectives = int(table.numbers[at]), view.results.objectives
    scores = []
    for place, objective in enumerate(objectives[:OBJECTIVES_SHOWN]):
        value, error = float(table.scores[at, place]), float(table.errors[at, place])
        scores.append("" if np.isnan(value) else unit_of(objective).estimate(Estimate(value, np.nan_to_num(error))))
    mean = float(table.mean[at])
    unit = mean_unit(objectives)
    words = [w for w in ("front" if table.on_front[at] else "", notes.get(number, "")) if w]
    origin = table.origins[int(table.origin[at])]
    return Line(
        number,
        origin,
        STATES[int(table.state[at])],
        tuple(scores),
        "" if np.isnan(mean) else unit.number(mean),
        " ".join(words),
    )


def split_of(given: str) -> Split:
    """The split of that name, search for anything else."""
    return Split(given) if given in {s.value for s in Split} else Split.SEARCH
