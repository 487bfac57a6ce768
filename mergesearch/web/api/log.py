"""The ordered log of a study."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from mergesearch.types import Split
from mergesearch.web.api.studies import Order
from mergesearch.web.lines import log_line
from mergesearch.web.names import StudyName
from mergesearch.web.service import ServiceOf

router = APIRouter(tags=["studies"])


class LogLine(BaseModel):
    """One entry: an evaluation was asked for, or ended."""

    seq: int = Field(description="Its place in the study's one sequence.")
    number: int = Field(description="The candidate.")
    split: Split
    kind: Literal["asked", "scored", "failed"]
    text: str = Field(examples=["accuracy 73.8±1.2 %"])


class LogPage(BaseModel):
    """A page of the log."""

    version: int
    total: int
    lines: list[LogLine]


@router.get("/studies/{name}/log", summary="A page of the log", operation_id="log")
def log(
    service: ServiceOf,
    name: StudyName,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    order: Annotated[Order, Query(description="`desc`: the latest first.")] = Order.DESC,
) -> LogPage:
    """What was asked and what was told, in the order in which it was recorded."""
    with service.feeds.reading(name) as feed:
        entries, total = feed.log, len(feed.log)
        places = range(min(offset, total), min(offset + limit, total))
        if order is Order.DESC:
            places = range(total - 1 - places.start, total - 1 - places.stop, -1)
        lines = [LogLine(**log_line(feed.view.results, entries[place])) for place in places]
        return LogPage(version=feed.version, total=total, lines=lines)
