"""The front of a study for chosen objectives."""

from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from mergesearch import pareto
from mergesearch.errors import SpecError
from mergesearch.export.select import by_preference, parse_preference
from mergesearch.growing import GrowingFront
from mergesearch.plugins import did_you_mean
from mergesearch.report.view import StudyView
from mergesearch.results import BASELINE, Results
from mergesearch.types import Objective, Split
from mergesearch.web.answers import answer, as_json
from mergesearch.web.api.candidates import table
from mergesearch.web.api.studies import Aim
from mergesearch.web.feeds import Feed
from mergesearch.web.figures import finite
from mergesearch.web.names import StudyName
from mergesearch.web.service import ServiceOf
from mergesearch.web.table import SCORED, Table

router = APIRouter(tags=["candidates"])
MOST: Final = 2000


class FrontPoint(BaseModel):
    """A candidate of the front: scores and standard errors in the order of `objectives`."""

    number: int
    origin: str
    mean: float | None = Field(description="Weighted mean of all objectives.")
    scores: list[float | None]
    stderrs: list[float | None]


class FrontAnswer(BaseModel):
    """The candidates that nothing beats in all of the chosen objectives at once, best first in the first of them."""

    version: int
    objectives: list[Aim]
    split: Split
    total: int = Field(description="How many are on the front.")
    points: list[FrontPoint] = Field(description="All of them, or an even sample with the marked ones in it.")
    knee: int | None = Field(description="Where giving up one objective buys least of another.")
    chosen: int | None = Field(description="The candidate chosen on the confirm split.")
    preferred: int | None = Field(description="What `prefer` picks from the front of all objectives.")
    preferred_point: FrontPoint | None
    baselines: list[FrontPoint] = Field(description="Base, experts, averages that were scored on the split.")


@router.get(
    "/studies/{name}/front",
    summary="The front",
    operation_id="front",
    response_model=FrontAnswer,
)
def front(
    service: ServiceOf,
    name: StudyName,
    objectives: Annotated[
        list[str] | None, Query(description="Two or more objectives; all by default.", max_length=64)
    ] = None,
    split: Split = Split.SEARCH,
    prefer: Annotated[
        str,
        Query(max_length=2000, description="Weights of objectives, which pick a candidate.", examples=["a=0.7,b=1"]),
    ] = "",
    limit: Annotated[int, Query(ge=1, le=MOST)] = MOST,
) -> Any:
    """The front of the search's candidates that were scored on a split."""
    with service.feeds.reading(name) as feed:
        wanted = _wanted(feed.view.results.objectives, objectives)
        preferred = _preferred(feed, prefer)
        key = f"front {wanted} {split} {limit} {preferred}"
        body = feed.kept(key, lambda view: as_json(_front(feed, view, wanted, split, limit, preferred)))
    return answer(body)


def _wanted(objectives: tuple[Objective, ...], names: list[str] | None) -> tuple[int, ...]:
    """Places of the chosen objectives. Raises SpecError for an unknown one, and one that is named twice."""
    known = [o.name for o in objectives]
    for name in names or ():
        if name not in known:
            raise SpecError(f"the study has no objective {name!r}{did_you_mean(name, known)}")
    if names and len(set(names)) < len(names):
        raise SpecError("an objective is named twice; name each once")
    return tuple(known.index(name) for name in names or known)


def _preferred(feed: Feed, prefer: str) -> int | None:
    """Raises SpecError for a preference that cannot be read, and while there is no front."""
    return by_preference(feed.view.results, parse_preference(prefer)) if prefer else None


def _front(
    feed: Feed, view: StudyView, wanted: tuple[int, ...], split: Split, limit: int, preferred: int | None
) -> dict[str, Any]:
    results, columns = view.results, table(feed, split)
    rows = feed.kept(f"front rows {wanted} {split}", lambda _: _rows(results, columns, wanted, split))
    losses = _losses(columns, results.objectives, wanted)
    order = rows[np.argsort(losses[rows, 0], kind="stable")]
    knee = int(order[pareto.knee(losses[order], is_front=True)]) if len(order) and len(wanted) > 1 else None
    marked = [row for row in (knee, _place(columns, view.chosen), _place(columns, preferred)) if row is not None]
    known = [row for number in results.baselines().values() if (row := _place(columns, number)) is not None]

    def point(row: int) -> dict[str, Any]:
        return _point(columns, row, wanted)

    return {
        "version": feed.version,
        "objectives": [
            {"name": o.name, "direction": o.direction} for o in (results.objectives[place] for place in wanted)
        ],
        "split": split,
        "total": len(order),
        "points": [point(row) for row in _sample(order, marked, limit)],
        "knee": None if knee is None else int(columns.numbers[knee]),
        "chosen": view.chosen,
        "preferred": preferred,
        "preferred_point": None if (at := _place(columns, preferred)) is None else point(at),
        "baselines": [point(row) for row in known if columns.state[row] == SCORED],
    }


def _rows(results: Results, columns: Table, wanted: tuple[int, ...], split: Split) -> NDArray[np.int64]:
    """The front's rows. Each merge that is best in some of the objectives has its equal on the front of them all, so
    that on the search split only that front is looked through."""
    losses = _losses(columns, results.objectives, wanted)
    if split is Split.SEARCH:
        rows = np.flatnonzero(columns.on_front)
    else:
        searched = [not columns.origins[origin].startswith(BASELINE) for origin in columns.origin]
        rows = np.flatnonzero((columns.state == SCORED) & np.isfinite(losses).all(axis=1) & searched)
    if len(wanted) == len(results.objectives) and split is Split.SEARCH:
        return rows
    found = GrowingFront(len(wanted))
    found.add(rows, losses[rows])
    return np.sort(found.numbers)


def _losses(columns: Table, objectives: tuple[Objective, ...], wanted: tuple[int, ...]) -> NDArray[np.float64]:
    signs = np.array([objectives[place].loss(1.0) for place in wanted])
    return np.asarray(columns.scores[:, list(wanted)] * signs)


def _place(columns: Table, number: int | None) -> int | None:
    """The row of a candidate; None where it is not in the table, or not scored."""
    if number is None:
        return None
    row = int(np.searchsorted(columns.numbers, number))
    found = row < len(columns.numbers) and columns.numbers[row] == number and columns.state[row] == SCORED
    return row if found else None


def _sample(rows: NDArray[np.int64], marked: list[int], limit: int) -> list[int]:
    """At most `limit` rows at even distances, in their order; the marked ones among them."""
    if len(rows) <= limit:
        return [int(row) for row in rows]
    kept = np.zeros(len(rows), dtype=np.bool_)
    kept[np.linspace(0, len(rows) - 1, max(1, limit - len(marked))).astype(np.int64)] = True
    kept |= np.isin(rows, marked)
    return [int(row) for row in rows[kept]][:limit]


def _point(columns: Table, row: int, wanted: tuple[int, ...]) -> dict[str, Any]:
    return {
        "number": int(columns.numbers[row]),
        "origin": columns.origins[columns.origin[row]],
        "mean": finite(float(columns.mean[row])),
        "scores": [finite(float(columns.scores[row, place])) for place in wanted],
        "stderrs": [finite(float(columns.errors[row, place])) for place in wanted],
    }
