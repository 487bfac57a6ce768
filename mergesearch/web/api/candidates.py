"""Pages of a study's candidates."""

from enum import StrEnum
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from mergesearch.errors import SpecError
from mergesearch.plugins import did_you_mean
from mergesearch.report.view import marks
from mergesearch.types import Objective, Split
from mergesearch.web.api.studies import Order
from mergesearch.web.feeds import Feed
from mergesearch.web.figures import finite
from mergesearch.web.names import StudyName
from mergesearch.web.service import ServiceOf
from mergesearch.web.table import STATES, Table, table_of

router = APIRouter(tags=["candidates"])

SORTS = ("number", "mean", "cost", "seconds", "origin", "status")


class ScoreAnswer(BaseModel):
    """A score with its standard error; null where it is not a finite number."""

    value: float | None
    stderr: float | None


class CandidateRow(BaseModel):
    """A candidate in a list, as it did on one split."""

    number: int
    origin: str = Field(examples=["sample"], description="Who proposed it; 'baseline:…' for baselines.")
    status: Literal["open", "scored", "failed"]
    cost: float = Field(description="What it takes from the budget, in evaluations of all examples.")
    seconds: float | None = Field(description="Time to build and score it.")
    mean: float | None = Field(description="Weighted mean; higher is better unless all objectives are minimised.")
    scores: dict[str, ScoreAnswer] = Field(description="Objective -> its score, in its own direction.")
    on_front: bool = Field(description="Whether nothing on the search split is better in every objective.")
    marks: str = Field(description="What it is called: best, knee, chosen, or several of them.")


class CandidatePage(BaseModel):
    """A page of candidates."""

    version: int
    total: int = Field(description="How many fit the filter.")
    offset: int
    candidates: list[CandidateRow]


class CandidateState(StrEnum):
    """How an evaluation stands."""

    OPEN = "open"
    SCORED = "scored"
    FAILED = "failed"


@router.get("/studies/{name}/candidates", summary="A page of candidates", operation_id="candidates")
def candidates(
    service: ServiceOf,
    name: StudyName,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    sort: Annotated[
        str,
        Query(max_length=200, description=f"{', '.join(SORTS)}, or an objective's name.", examples=["mean"]),
    ] = "number",
    order: Order = Order.ASC,
    split: Split = Split.SEARCH,
    origin: Annotated[str, Query(max_length=200, description="Only this origin; `baseline` for all baselines.")] = "",
    status: Annotated[CandidateState | None, Query(description="Only evaluations that stand so.")] = None,
    front: Annotated[bool, Query(description="Only the front of the search split.")] = False,
) -> CandidatePage:
    """Candidates that were asked on a split. What has no value in the column of `sort` comes last either way."""
    with service.feeds.reading(name) as feed:
        table = feed.kept(f"table {split}", lambda view: table_of(view, split))
        objectives = feed.view.results.objectives
        if sort not in SORTS and sort not in [o.name for o in objectives]:
            known = [*SORTS, *(o.name for o in objectives)]
            raise SpecError(f"candidates cannot be sorted by {sort!r}{did_you_mean(sort, known)}")
        ranked = feed.kept(f"sorted {split} {sort} {order}", lambda _: _sorted(table, objectives, sort, order))
        rows = ranked[_kept(table, origin, status, front)[ranked]]
        called = feed.kept("marks", marks)
        version = feed.version
    page = rows[offset : offset + limit].tolist()
    return CandidatePage(
        version=version,
        total=len(rows),
        offset=offset,
        candidates=[_row(table, row, objectives, called) for row in page],
    )


def _sorted(table: Table, objectives: tuple[Objective, ...], sort: str, order: Order) -> NDArray[np.int64]:
    """Rows in that order; without a value last, equals by number."""
    values = _column(table, objectives, sort)
    known = np.isfinite(values)
    keys = values[known] if order is Order.ASC else -values[known]
    rows = np.flatnonzero(known)
    return np.concatenate([rows[np.argsort(keys, kind="stable")], np.flatnonzero(~known)])


def _column(table: Table, objectives: tuple[Objective, ...], sort: str) -> NDArray[np.float64]:
    if sort == "origin":
        ranks = np.argsort(np.argsort(np.array(table.origins))) if table.origins else np.zeros(0)
        return ranks[table.origin].astype(np.float64)
    if sort == "status":
        return table.state.astype(np.float64)
    plain = {"number": table.numbers, "mean": table.mean, "cost": table.cost, "seconds": table.seconds}
    names = [o.name for o in objectives]
    return (table.scores[:, names.index(sort)] if sort in names else plain[sort]).astype(np.float64)


def _kept(table: Table, origin: str, status: CandidateState | None, front: bool) -> NDArray[np.bool_]:
    kept = np.ones(len(table.numbers), dtype=np.bool_)
    if origin:
        codes = [i for i, o in enumerate(table.origins) if o == origin or o.startswith(f"{origin}:")]
        kept &= np.isin(table.origin, codes)
    if status is not None:
        kept &= table.state == STATES.index(status.value)
    if front:
        kept &= table.on_front
    return kept


def _row(table: Table, row: int, objectives: tuple[Objective, ...], called: dict[int, str]) -> CandidateRow:
    number = int(table.numbers[row])
    state = STATES[table.state[row]]
    return CandidateRow(
        number=number,
        origin=table.origins[table.origin[row]],
        status=state,  # type: ignore[arg-type]  # 'absent' is never in a table
        cost=float(table.cost[row]),
        seconds=finite(float(table.seconds[row])),
        mean=finite(float(table.mean[row])),
        scores=scores_of(table, row, objectives) if state == "scored" else {},
        on_front=bool(table.on_front[row]),
        marks=called.get(number, ""),
    )


def scores_of(table: Table, row: int, objectives: tuple[Objective, ...]) -> dict[str, Any]:
    """Objective -> score of one row of a table."""
    pairs = zip(objectives, table.scores[row].tolist(), table.errors[row].tolist(), strict=True)
    return {o.name: ScoreAnswer(value=finite(value), stderr=finite(error)) for o, value, error in pairs}


def table(feed: Feed, split: Split) -> Table:
    """The table of the study that is being read."""
    return feed.kept(f"table {split}", lambda view: table_of(view, split))
