"""The page of one study."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response

from mergesearch.report.charts import fit, timing
from mergesearch.report.estimate import better, mean_sign, mean_unit, unit_of, units_sentence
from mergesearch.report.holding import holder
from mergesearch.report.html import report_html
from mergesearch.report.terminal import ENDINGS
from mergesearch.report.view import Failure, StudyView, marks
from mergesearch.types import Failed, Split, Status
from mergesearch.web.answers import as_json
from mergesearch.web.feeds import Feed
from mergesearch.web.folding import Log
from mergesearch.web.jobs import JobsOf
from mergesearch.web.lines import log_line
from mergesearch.web.names import StudyName, check_name
from mergesearch.web.pages.candidates_table import OBJECTIVES_SHOWN, PAGE_ROWS, Choice, Order, Shown, page_of, split_of
from mergesearch.web.pages.overview import row, who
from mergesearch.web.pages.preference import pick, preference
from mergesearch.web.pages.rendering import page
from mergesearch.web.service import Service, ServiceOf
from mergesearch.web.summaries import figures
from mergesearch.web.table import Table, table_of

router = APIRouter()

OVER: Final = frozenset(Status) - {Status.NEW, Status.RUNNING}
FAILURES_SHOWN: Final = 20
LINES_SHOWN: Final = 40
UNREAD: Final = 5000.0
"""A study with a larger budget that was not read yet gets a page that says so, and is read behind it."""


@router.get("/studies/{name}")
def study(
    request: Request,
    service: ServiceOf,
    jobs: JobsOf,
    name: StudyName,
    show: Shown | None = None,
    sort: Annotated[str, Query(max_length=40)] = "mean",
    order: Order | None = None,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    split: Annotated[str, Query(max_length=20)] = "search",
) -> HTMLResponse:
    """Everything about a study: numbers and tables at once, its charts follow."""
    check_name(name)
    if name not in service.feeds:
        record, facts = service.store.study(name), service.store.facts(name)
        budget = facts.get("budget")
        if isinstance(budget, int | float) and budget > UNREAD:
            return page(request, "reading.html", name=name, status=record.status.value, budget=budget)
    with service.feeds.reading(name) as feed:
        values = _page(service, feed)
        values |= _table(feed, Choice(show or _first_shown(feed.view), sort, order, offset), split_of(split))
    values["ending"] = values["over"] and (values["held_alive"] or jobs.working_on(name))
    return page(request, "study.html", **values)


@router.get("/studies/{name}/table")
def table(
    request: Request,
    service: ServiceOf,
    name: StudyName,
    show: Shown | None = None,
    sort: Annotated[str, Query(max_length=40)] = "mean",
    order: Order | None = None,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    split: Annotated[str, Query(max_length=20)] = "search",
) -> HTMLResponse:
    """A page of the candidates' table alone."""
    with service.feeds.reading(name) as feed:
        choice = Choice(show or _first_shown(feed.view), sort, order, offset)
        values = _table(feed, choice, split_of(split)) | {"name": name} | _words(feed.view)
    return page(request, "_candidates.html", **values)


@router.get("/studies/{name}/preference.json")
def preference_json(service: ServiceOf, name: StudyName) -> Response:
    """What the sliders move along, anew after the front has changed."""
    with service.feeds.reading(name) as feed:
        body = feed.kept("preference", lambda view: as_json(preference(view)))
    return Response(body, media_type="application/json")


@router.get("/studies/{name}/report.html")
def report(service: ServiceOf, name: StudyName) -> Response:
    """The study's report, one file without anything from elsewhere, to keep."""
    with service.feeds.reading(name) as feed:
        text = feed.kept("report", report_html)
    return Response(
        text, media_type="text/html", headers={"Content-Disposition": f'attachment; filename="{name}-report.html"'}
    )


def _first_shown(view: StudyView) -> Shown:
    return "front" if len(view.results.objectives) > 1 and view.results.front else "all"


def _words(view: StudyView) -> dict[str, Any]:
    objectives = view.results.objectives
    shown = objectives[:OBJECTIVES_SHOWN]
    return {
        "heads": [f"{o.name}{unit_of(o).suffix} {better(o)}" for o in shown],
        "mean_head": f"mean{mean_unit(objectives).suffix} {'↑' if mean_sign(objectives) < 0 else '↓'}",
        "objectives": [o.name for o in objectives],
        "units": units_sentence(objectives),
    }


def _page(service: Service, feed: Feed) -> dict[str, Any]:
    view, record = feed.view, feed.view.record
    results, found = view.results, figures(feed)
    now = service.store.clock()
    held = holder(record, now)
    over = record.status in OVER
    chosen = feed.kept("pick", pick)
    failed = feed.kept("failed", _failures)
    return _words(view) | {
        "name": record.name,
        "record": record,
        "view": view,
        "row": row(record, found, now),
        "figures": found,
        "held": held,
        "by": who(record.owner),
        "ended": ENDINGS.get(view.ended, view.ended),
        "pending": results.pending_count,
        "parts": feed.kept("parts", timing.parts),
        "part_words": timing.PARTS,
        "fit": fit.qualities(view),
        "diagnostics": fit.figures(view),
        "failures": failed[:FAILURES_SHOWN],
        "failed": len(failed),
        "kinds": _kinds(failed),
        "lines": _lines(view, feed.log),
        "pick": chosen,
        "multi": len(results.objectives) > 1,
        "scored": results.scored_count,
        "splits": [s.value for s in Split if s is Split.SEARCH or len(results.columns(s).numbers)],
        "axes": view.space.dim if view.space is not None else 0,
        "controls": view.controls,
        "can_pause": held is not None and held.alive and not over,
        "over": over,
        "held_alive": held is not None and held.alive,
        "is_done": record.status is Status.DONE,
    }


def _table(feed: Feed, choice: Choice, split: Split) -> dict[str, Any]:
    made: Table = feed.kept(f"table {split.value}", lambda view: table_of(view, split))
    notes = feed.kept("marks", marks)
    found = page_of(feed.view, made, choice, notes)
    return {"table": found, "choice": choice, "page_rows": PAGE_ROWS, "table_split": split.value}


def _failures(view: StudyView) -> list[Failure]:
    """Every failed evaluation, the latest of the last split first."""
    results = view.results
    places = [(int(number), split) for split in Split for number in results.failed_on(split)]
    found = [(number, split, results.outcomes[number, split]) for number, split in places[::-1]]
    return [Failure(number, split, outcome) for number, split, outcome in found if isinstance(outcome, Failed)]


def _kinds(failed: list[Failure]) -> list[tuple[str, int]]:
    """Kind of failure -> how many, the most frequent first."""
    counted: dict[str, int] = {}
    for failure in failed:
        counted[failure.failed.kind] = counted.get(failure.failed.kind, 0) + 1
    return sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))


def _lines(view: StudyView, log: Log) -> list[dict[str, Any]]:
    """The log's last lines, the newest first."""
    made = [log_line(view.results, log[i]) for i in range(max(0, len(log) - 2 * LINES_SHOWN), len(log))]
    return [line for line in made if line["kind"] != "asked"][: -LINES_SHOWN - 1 : -1]
