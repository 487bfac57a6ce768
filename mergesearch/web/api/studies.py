"""The list of studies, and one of them."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from mergesearch.report.holding import holder
from mergesearch.report.view import StudyView
from mergesearch.store.base import StudyRecord
from mergesearch.types import Direction, Status
from mergesearch.web.figures import Figures, finite, seconds_left
from mergesearch.web.names import StudyName
from mergesearch.web.service import ServiceOf
from mergesearch.web.summaries import figures

router = APIRouter(tags=["studies"])


class Aim(BaseModel):
    """An objective: what is improved, and which way is better."""

    name: str = Field(examples=["accuracy"])
    direction: Direction


class BestAnswer(BaseModel):
    """The candidate with the best weighted mean of the objectives on the search split."""

    number: int
    mean: float | None = Field(description="Higher is better, unless all objectives are minimised.")
    mean_stderr: float | None = Field(description="Standard error of the mean.")
    scores: dict[str, float] = Field(description="Objective -> score, in its own direction.")


class StudyRow(BaseModel):
    """A study in a list. Figures are null while its log is being read for the first time (`reading`)."""

    name: str
    status: Status
    message: str = Field(description="Why it stopped, if it did.")
    created: float = Field(description="Seconds since the epoch, UTC.")
    updated: float = Field(description="When it was last written, seconds since the epoch, UTC.")
    seconds: float = Field(description="Time that controllers have spent on it.")
    by: str = Field(default="", description="Who launched it; '' where that was not kept.", examples=["ada@node7"])
    owner: str | None = Field(description="host:pid of the controller that holds it.", examples=["node7:4242"])
    alive: bool = Field(description="Whether that controller still lives, as far as this machine can see.")
    reading: bool = Field(description="Whether the figures are not known yet.")
    version: int | None = Field(default=None, description="Grows whenever something of the study changes.")
    strategy: str | None = None
    objectives: list[Aim] = []
    evaluations: int | None = Field(default=None, description="Evaluations of the search that ended, baselines aside.")
    cost: float | None = Field(default=None, description="What they cost, in evaluations of all examples.")
    budget: float | None = Field(default=None, description="What the search may cost, in evaluations of all examples.")
    seconds_left: float | None = Field(description="Estimate to the end of the search; null where nobody runs it.")
    best: BestAnswer | None = None
    front_size: int | None = None
    hypervolume: float | None = Field(
        default=None, description="Normalised: the base is 0, the best expert 1 in each objective."
    )
    hypervolume_stderr: float | None = Field(default=None, description="Above 0 where it was estimated by sampling.")
    sparkline: list[float] = Field(
        default=[], description="Hypervolume as it grew, from the first evaluation to the last."
    )
    failures: int | None = None
    control_of: str | None = Field(description="The study that this one is a control of.")


class StudyList(BaseModel):
    """A page of studies."""

    total: int = Field(description="How many fit the filter.")
    reading: int = Field(description="How many of all studies are being read for the first time: ask again soon.")
    by_status: dict[Status, int] = Field(description="How many of all studies have each status.")
    studies: list[StudyRow]


class StudyAnswer(StudyRow):
    """One study."""

    spec: str = Field(description="Its study file.")
    chosen: int | None = Field(description="The candidate chosen on the confirm split.")
    knee: int | None = Field(description="The front's knee: giving up one objective buys least of another there.")
    candidates: int
    pending: int = Field(description="Evaluations that were asked and have not ended.")
    baselines: dict[str, int] = Field(description="Baseline -> its candidate's number.")
    experts: list[str]
    groups: list[str]
    operator: str | None
    dimensions: int
    notes: list[str] = Field(description="What the strategy decided, in sentences.")
    diagnostics: dict[str, float | None]
    controls: dict[str, str] = Field(description="Label -> study of each control.")
    ended: str = Field(description="Which limit ended the search; empty while none did.")
    asked_for: list[str] = Field(description="Wishes that the controller has not obeyed yet: pause, cancel.")


class StudySort(StrEnum):
    """By what studies can be sorted."""

    NAME = "name"
    STATUS = "status"
    STRATEGY = "strategy"
    EVALUATIONS = "evaluations"
    BUDGET = "budget"
    SECONDS = "seconds"
    SECONDS_LEFT = "seconds_left"
    BEST = "best"
    HYPERVOLUME = "hypervolume"
    FAILURES = "failures"
    CREATED = "created"
    UPDATED = "updated"


class Order(StrEnum):
    """Which way."""

    ASC = "asc"
    DESC = "desc"


@router.get("/studies", summary="List studies", operation_id="studies")
def studies(
    service: ServiceOf,
    search: Annotated[str, Query(max_length=200, description="Part of the name or the strategy.")] = "",
    status: Annotated[list[Status] | None, Query(description="Only studies of these statuses.")] = None,
    sort: StudySort = StudySort.CREATED,
    order: Order = Order.DESC,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
) -> StudyList:
    """Studies with what one wants to know at a glance. What is not known sorts last."""
    found = service.summaries.read()
    now = service.store.clock()
    parents = {control: s.record.name for s in found if s.figures for control in s.figures.controls.values()}
    rows = [row_of(s.record, s.figures, now, parents.get(s.record.name)) for s in found]
    statuses = [row.status for row in rows]
    word = search.lower()
    kept = [
        row
        for row in rows
        if (not status or row.status in status) and (word in row.name.lower() or word in (row.strategy or "").lower())
    ]
    kept = _sorted(kept, sort, order)
    return StudyList(
        total=len(kept),
        reading=sum(row.reading for row in rows),
        by_status={one: statuses.count(one) for one in Status if one in statuses},
        studies=kept[offset : offset + limit],
    )


def _sorted(rows: list[StudyRow], sort: StudySort, order: Order) -> list[StudyRow]:
    def value(row: StudyRow) -> Any:
        if sort is StudySort.BEST:
            return row.best and row.best.mean
        return getattr(row, sort.value)

    known = sorted((row for row in rows if value(row) is not None), key=value, reverse=order is Order.DESC)
    return known + [row for row in rows if value(row) is None]


@router.get("/studies/{name}", summary="One study", operation_id="study")
def study(service: ServiceOf, name: StudyName) -> StudyAnswer:
    """Everything about a study but its candidates."""
    with service.feeds.reading(name) as feed:
        view, found = feed.view, figures(feed)
        results = view.results
        more: dict[str, Any] = {
            "candidates": len(results.candidates),
            "pending": results.pending_count,
            "baselines": results.baselines(),
        }
        merge = feed.facts.get("merge")
    record = view.record
    row = row_of(record, found, service.store.clock(), service.summaries.control_of(name))
    return StudyAnswer(
        **row.model_dump(),
        **more,
        **_parts(view, found),
        spec=record.spec,
        controls=dict(found.controls),
        operator=str(merge["operator"]) if isinstance(merge, Mapping) and "operator" in merge else None,
        asked_for=[command.action for command in service.store.open_commands(name)],
    )


def _parts(view: StudyView, found: Figures) -> dict[str, Any]:
    space = view.space
    return {
        "chosen": found.chosen,
        "knee": found.knee,
        "experts": list(space.experts) if space is not None else [],
        "groups": list(space.groups) if space is not None else [],
        "dimensions": space.dim if space is not None else 0,
        "notes": list(view.notes),
        "diagnostics": {name: finite(value) for name, value in view.diagnostics.items()},
        "ended": view.ended,
    }


def row_of(record: StudyRecord, figures: Figures | None, now: float, control_of: str | None = None) -> StudyRow:
    """A study's row. `now` is the store's clock."""
    held = holder(record, now)
    return StudyRow(
        name=record.name,
        status=record.status,
        message=record.message,
        created=record.created,
        updated=record.updated,
        seconds=record.seconds,
        owner=held.where if held else None,
        alive=bool(held and held.alive),
        reading=figures is None,
        control_of=control_of,
        **(_figures(figures) if figures else {}),
        seconds_left=seconds_left(record, figures, now) if figures else None,
    )


def _figures(figures: Figures) -> dict[str, Any]:
    best = figures.best
    scored = best and BestAnswer(
        number=best.number, mean=finite(best.mean), mean_stderr=finite(best.mean_stderr), scores=best.scores
    )
    return {
        "version": figures.version,
        "strategy": figures.strategy,
        "objectives": [Aim(name=name, direction=way) for name, way in figures.objectives],
        "evaluations": figures.evaluations,
        "cost": figures.cost,
        "budget": figures.budget,
        "best": scored,
        "front_size": figures.front_size,
        "by": figures.by,
        "hypervolume": figures.volume.value,
        "hypervolume_stderr": figures.volume.stderr,
        "sparkline": list(figures.volume.curve),
        "failures": figures.failures,
    }
