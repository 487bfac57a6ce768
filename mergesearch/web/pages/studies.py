"""The list of studies."""

from collections.abc import Callable
from typing import Annotated, Final, Literal, TypeAlias

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from mergesearch.types import Status
from mergesearch.web.names import StudyName
from mergesearch.web.pages.overview import Row, row
from mergesearch.web.pages.rendering import page
from mergesearch.web.service import ServiceOf
from mergesearch.web.summaries import figures

router = APIRouter()

Key: TypeAlias = Literal["name", "status", "strategy", "done", "best", "hypervolume", "failures", "started", "by"]
Value: TypeAlias = Callable[[Row], float | str | None]

COLUMNS: Final[dict[str, tuple[str, str, Value]]] = {
    "name": ("study", "asc", lambda r: r.answer.name.lower()),
    "status": ("status", "asc", lambda r: r.answer.status.value),
    "strategy": ("strategy", "asc", lambda r: r.answer.strategy),
    "done": ("progress", "desc", lambda r: None if r.answer.reading else r.done),
    "best": ("best", "desc", lambda r: r.answer.best.mean if r.answer.best else None),
    "hypervolume": ("hypervolume", "desc", lambda r: r.answer.hypervolume),
    "failures": ("failures", "desc", lambda r: r.answer.failures),
    "started": ("started", "desc", lambda r: r.answer.created),
    "by": ("by", "asc", lambda r: r.by or None),
}
"""Column -> (its head, the order of a first click, what it is sorted by; None comes last)."""


@router.get("/")
def studies(
    request: Request,
    service: ServiceOf,
    sort: Key = "started",
    order: Literal["asc", "desc"] | None = None,
    status: Status | None = None,
    q: Annotated[str, Query(max_length=200)] = "",
) -> HTMLResponse:
    """Every study of the store, with what is known of it so far."""
    found, now = service.summaries.read(), service.store.clock()
    rows = [row(summary.record, summary.figures, now) for summary in found]
    shown = [r for r in rows if status in (None, r.answer.status) and q.strip().lower() in _words(r)]
    way = order or COLUMNS[sort][1]
    return page(
        request,
        "studies.html",
        rows=_sorted(shown, COLUMNS[sort][2], way == "desc"),
        total=len(rows),
        counts={s.value: n for s in Status if (n := sum(r.answer.status is s for r in rows))},
        columns=COLUMNS,
        sort=sort,
        order=way,
        status=status.value if status else "",
        q=q,
    )


@router.get("/studies/{name}/row")
def one_row(request: Request, service: ServiceOf, name: StudyName) -> HTMLResponse:
    """One study's line of the table, its log read to the end."""
    with service.feeds.reading(name) as feed:
        made = row(feed.view.record, figures(feed), service.store.clock())
    return page(request, "_row.html", row=made)


def _words(found: Row) -> str:
    return f"{found.answer.name} {found.answer.strategy or ''} {found.by}".lower()


def _sorted(rows: list[Row], value: Value, descending: bool) -> list[Row]:
    known = [r for r in rows if value(r) is not None]
    known.sort(key=lambda r: value(r), reverse=descending)  # type: ignore[arg-type,return-value]
    return known + [r for r in rows if value(r) is None]
