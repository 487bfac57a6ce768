"""The page that shows several studies side by side."""

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from mergesearch.errors import MergesearchError
from mergesearch.report.charts.curves import AGAINST
from mergesearch.report.compare import INDICATORS as COLUMNS
from mergesearch.report.compare import Compared, Row
from mergesearch.report.comparing import Group, Sketch, aligned, grouped
from mergesearch.types import Split
from mergesearch.web.api.compare import LONGEST, MOST, Groups, Name, SplitOf, sketches
from mergesearch.web.api.compare import compared as made_once
from mergesearch.web.pages.rendering import page
from mergesearch.web.service import ServiceOf

router = APIRouter()

WAYS: Final = {"seeds": "studies that differ only in seed", "strategy": "the same strategy", "none": "nothing"}
Text = Annotated[str, Query(max_length=LONGEST)]


@router.get("/compare")
def show(
    request: Request,
    service: ServiceOf,
    study: Annotated[list[Name], Query(max_length=MOST)] = [],  # noqa: B006
    group: Groups = [],  # noqa: B006
    split: SplitOf = None,
    against: Text = "evaluations",
    x: Text = "",
    y: Text = "",
) -> HTMLResponse:
    """Fronts, curves and indicators of the studies that are named; a picker of studies where none is."""
    asked = [("study", name) for name in dict.fromkeys(study)] + [("group", way) for way in group]
    asked += [("split", split.value)] if split else []
    more = [(key, value) for key, value in (("x", x), ("y", y)) if value]
    known = [record.name for record in service.store.studies()]
    found: list[Sketch] = []
    groups: list[Group] = []
    compared: Compared | None = None
    problem = ""
    try:
        found = aligned(sketches(service, study)) if study else []
        groups = grouped(found, group) if found else []
        compared = made_once(service, study, group, split) if found and len(found[0].objectives) > 1 else None
    except MergesearchError as error:
        problem = request.app.state.security.cut(str(error))
    return page(
        request,
        "compare.html",
        known=known,
        picked=list(dict.fromkeys(study)),
        found=found,
        objectives=[o.name for o in found[0].objectives] if found else [],
        groups=groups,
        group_text=group[0] if len(group) == 1 and group[0] in WAYS else "seeds" if not group else "hand",
        by_hand=[way for way in group if ":" in way],
        ways=WAYS,
        splits=[s.value for s in Split if any(s in one.fronts for one in found)],
        asked_split=split.value if split else "",
        compared=compared,
        columns=[c for c in COLUMNS if compared and any(r.values[c.key] is not None for r in compared.rows)],
        best=best_of(compared.rows) if compared else {},
        problem=problem,
        against=against if against in AGAINST else "evaluations",
        words=AGAINST,
        x=x,
        y=y,
        query=urlencode(asked),
        axes=urlencode(more),
        number=number,
    )


def best_of(rows: tuple[Row, ...]) -> dict[str, float]:
    """Indicator -> its best value among the studies, where there are two that differ."""
    found = {}
    for column in COLUMNS:
        values = [value for row in rows if (value := row.values[column.key]) is not None]
        if len(set(values)) > 1:
            found[column.key] = max(values) if column.higher else min(values)
    return found


def number(value: float | None) -> str:
    """Four digits, a dash for None."""
    return "–" if value is None else f"{value:.4g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.1e}"
