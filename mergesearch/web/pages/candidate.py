"""The page of one candidate."""

from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from mergesearch.report.charts.differences import chart_height
from mergesearch.report.estimate import NOTHING, Estimate, Unit, better, duration, mean_unit, unit_of
from mergesearch.types import Direction, Objective, Split
from mergesearch.web.api.candidate import Number, SplitQuery, detail
from mergesearch.web.api.candidate_model import DifferenceOf, ScoreOf
from mergesearch.web.names import StudyName
from mergesearch.web.pages.rendering import page
from mergesearch.web.service import ServiceOf

router = APIRouter()

SPLIT_MEANING: Final = {
    Split.SEARCH.value: "what the search was guided by, so a little too good",
    Split.CONFIRM.value: "fresh examples that finalists are chosen on",
    Split.TEST.value: "read once at the end: the number to report",
}
WIDE_GROUPS: Final = 60
"""Layer groups above which a heat map gets a width of its own, in which one scrolls on a small screen."""


@router.get("/studies/{name}/candidates/{number}")
def show(
    request: Request, service: ServiceOf, name: StudyName, number: Number, split: SplitQuery = None
) -> HTMLResponse:
    """Everything about one candidate, and what can be done with it."""
    found = detail(service, name, number, split)
    bounds = {o.name: (0.0, 1.0) if o.percent else (None, None) for o in found.objectives}
    objectives = [Objective(o.name, Direction(o.direction), o.weight, *bounds[o.name]) for o in found.objectives]
    return page(
        request,
        "candidate.html",
        found=found,
        words=Words(tuple(objectives)),
        splits=[e for e in found.evaluations if e.status == "scored"],
        meaning=SPLIT_MEANING,
        failures=[e for e in found.evaluations if e.failure],
        heat_wide=len(found.groups) > WIDE_GROUPS,
        differences_height=chart_height(len(found.objectives), len({d.expert for d in found.differences})),
        searched=[k for k in found.knobs if k.searched],
        held=[k for k in found.knobs if not k.searched],
        unpaired=[d for d in found.differences if not d.paired],
        folder=f"{name}-{number}",
    )


class Words:
    """How numbers of a candidate are written."""

    def __init__(self, objectives: tuple[Objective, ...]) -> None:
        self.units: dict[str, Unit] = {o.name: unit_of(o) for o in objectives}
        self.arrows = {o.name: better(o) for o in objectives}
        self.mean = mean_unit(objectives)

    def unit(self, objective: str) -> Unit:
        """How an objective's numbers are written; 'mean' is the weighted mean."""
        return self.units.get(objective, self.mean)

    def score(self, score: ScoreOf | None) -> str:
        """'73.8±1.2'."""
        if score is None or score.value is None:
            return NOTHING
        return self.unit(score.objective).estimate(Estimate(score.value, score.stderr or 0.0))

    def number(self, objective: str, value: float, signed: bool = False) -> str:
        """A bare number."""
        return self.unit(objective).number(value, signed)

    def gain(self, d: DifferenceOf) -> str:
        """'+2.8±1.4'."""
        return self.unit(d.objective).estimate(Estimate(d.gain, d.stderr), signed=True)

    def interval(self, d: DifferenceOf) -> str:
        """'+0.1 to +5.6'."""
        if d.low is None or d.high is None:
            return "not known"
        unit = self.unit(d.objective)
        return f"{unit.number(d.low, True)} to {unit.number(d.high, True)}"

    def verdict(self, d: DifferenceOf) -> str:
        """What an interval says."""
        if d.low is None:
            return "error not known"
        if not d.clear:
            return "within the noise"
        return "better" if d.gain > 0 else "worse"

    def seconds(self, value: float) -> str:
        """'850 ms'."""
        return duration(value)

    def day(self, seconds: float) -> str:
        """'2026-11-22 20:07 UTC'."""
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")

    def coefficient(self, value: float) -> str:
        """Four decimals, fewer digits for large ones."""
        return f"{value:.4f}" if abs(value) < 1000 else f"{value:.6g}"
