"""What did not work in a study."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from mergesearch.report.view import failures as all_failures
from mergesearch.types import Split
from mergesearch.web.names import StudyName
from mergesearch.web.service import ServiceOf

router = APIRouter(tags=["studies"])


class FailureRow(BaseModel):
    """One evaluation that did not work."""

    number: int
    split: Split
    kind: str = Field(examples=["timeout"], description="The error's class, or not_finite, worker_lost, timeout.")
    message: str
    worker: str


class FailureKind(BaseModel):
    """How many failures are of a kind."""

    kind: str
    count: int


class FailurePage(BaseModel):
    """Failures, the latest first."""

    version: int
    total: int
    kinds: list[FailureKind] = Field(description="All failures by kind, the most frequent first.")
    failures: list[FailureRow]


@router.get("/studies/{name}/failures", summary="Failures", operation_id="failures")
def failures(
    service: ServiceOf,
    name: StudyName,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> FailurePage:
    """Evaluations that failed, with what they said."""
    with service.feeds.reading(name) as feed:
        found, version = feed.kept("failures", lambda view: all_failures(view.results)), feed.version
    counts: dict[str, int] = {}
    for failure in found:
        counts[failure.failed.kind] = counts.get(failure.failed.kind, 0) + 1
    kinds = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return FailurePage(
        version=version,
        total=len(found),
        kinds=[FailureKind(kind=kind, count=count) for kind, count in kinds],
        failures=[
            FailureRow(
                number=f.number, split=f.split, kind=f.failed.kind, message=f.failed.message, worker=f.failed.worker
            )
            for f in found[offset : offset + limit]
        ],
    )
