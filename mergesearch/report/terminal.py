"""What the command line shows of studies: status, front, candidates, lists. Everything fits 80 columns."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, JustifyMethod, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mergesearch.report.coefficients import coefficients_of
from mergesearch.report.estimate import NOTHING, Estimate, better, duration, mean_unit, unit_of, units_sentence
from mergesearch.report.scatter import scatter
from mergesearch.report.table import mean, name_of
from mergesearch.report.view import StudyView, failures, hypervolume, marks, spent, timing
from mergesearch.results import Results
from mergesearch.space import Settings
from mergesearch.store.base import StudyRecord
from mergesearch.types import Candidate, Failed, Request, Scored, Split, Status

ENDINGS = {
    "evaluations": "the evaluations of its budget are used up",
    "examples": "the examples of its budget are used up",
    "gpu_seconds": "the GPU-seconds of its budget are used up",
    "hours": "the hours of its budget are used up",
    "target": "the target is reached",
    "plateau": "the front no longer grew",
    "strategy": "the strategy had nothing more to propose",
}
STATUS_STYLES = {
    Status.NEW: "dim",
    Status.RUNNING: "bold blue",
    Status.PAUSED: "yellow",
    Status.STOPPED: "yellow",
    Status.FAILED: "bold red",
    Status.DONE: "bold green",
}
FRONT_ROWS = 20
OBJECTIVES_SHOWN = 5
MOST_EXPERTS = 8


def status_text(status: Status) -> Text:
    """A status in its colour."""
    return Text(status.value, style=STATUS_STYLES[status])


def render_show(view: StudyView) -> RenderableType:
    """A panel: where the study stands, its best merge, its front, failures, times and the strategy's figures."""
    results, record = view.results, view.record
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    grid.add_row("status", status_text(record.status) + Text(f"  {record.message}" if record.message else ""))
    told = spent(results.search_told, results.cost_told, view.budget).removesuffix(" evaluations")
    grid.add_row("evaluations", told.replace(" evaluations,", ",") + _running(results))
    if view.ended:
        grid.add_row("search ended", ENDINGS.get(view.ended, view.ended))
    if view.strategy:
        grid.add_row("strategy", view.strategy)
    grid.add_row("best" if view.chosen != results.best else "best, chosen", _best(results, results.best))
    if view.chosen not in (None, results.best):
        grid.add_row("chosen", _best(results, view.chosen))
    if len(results.objectives) > 1:
        volume = hypervolume(results)
        size = f"{len(results.front)} merges"
        grid.add_row("front", size if volume is None else f"{size}, hypervolume {volume:.4g}")
    grid.add_row("failures", _failures(results))
    if view.repeats is not None:
        grid.add_row("repeats", Text(view.repeats.sentence, style="yellow"))
    times = timing(results)
    grid.add_row("time", duration(record.seconds))
    if times is not None:
        parts = f"queue {duration(times.queue)}, build {duration(times.build)}, score {duration(times.score)}"
        grid.add_row("median", parts)
    for name, value in sorted(view.diagnostics.items()):
        grid.add_row(Text(name), f"{value:.4g}")
    for i, note in enumerate(view.notes):
        grid.add_row("" if i else "notes", Text(note))
    return Panel(grid, title=Text(record.name, style="bold"), title_align="left", border_style="dim", expand=False)


def _running(results: Results) -> str:
    pending = len(results.pending)
    return f", {pending} under way or waiting" if pending else ""


def _best(results: Results, number: int | None) -> Text:
    outcome = None if number is None else results.outcome(number)
    if number is None or outcome is None:
        return Text(NOTHING)
    unit, objectives = mean_unit(results.objectives), results.objectives
    text = Text(f"#{number}", style="bold cyan")
    if len(objectives) > 1:
        text.append(f"  mean {unit.estimate(mean(objectives, outcome))}{unit.suffix}", "not bold default")
    scores = [f"{o.name} {unit_of(o).estimate(_estimate(outcome, o.name))}" for o in objectives[:OBJECTIVES_SHOWN]]
    text.append("\n" + "  ".join(scores) + ("  …" if len(objectives) > OBJECTIVES_SHOWN else ""), "not bold default")
    return text


def _estimate(outcome: Scored, name: str) -> Estimate:
    return Estimate(outcome.scores[name].value, outcome.scores[name].stderr)


def _failures(results: Results) -> Text:
    if results.last_failure is None:
        return Text("none")
    last = results.last_failure
    return Text(f"{results.failed}", style="red").append(f", the last: {last.kind}: {last.message}", "default")


def render_front(view: StudyView, limit: int = FRONT_ROWS) -> RenderableType:
    """The front on the search split, best mean first; for two objectives also as a scatter plot of characters."""
    results = view.results
    if not results.front:
        return Text("The front is empty: no evaluation has been scored yet.", style="dim")
    ranked = sorted(results.front, key=lambda n: (results.weighted(n), n))
    table = Table(box=None, pad_edge=False)
    shown = results.objectives[:OBJECTIVES_SHOWN]
    for name in ("merge", *(f"{o.name} {better(o)}" for o in shown), "mean", ""):
        side: JustifyMethod = "left" if name in ("merge", "") else "right"
        table.add_column(Text(name), justify=side, header_style="bold", no_wrap=name == "")
    notes = marks(view)
    for number in ranked[:limit]:
        outcome = results.outcome(number)
        assert outcome is not None
        unit = mean_unit(results.objectives)
        cells = [unit_of(o).estimate(_estimate(outcome, o.name)) for o in shown]
        style = "bold cyan" if number == view.searched else ""
        table.add_row(
            f"#{number}", *cells, unit.estimate(mean(results.objectives, outcome)), notes.get(number, ""), style=style
        )
    caption = f"{len(ranked)} merges on the front, search split; {units_sentence(results.objectives)}"
    caption += f"; the first {limit} shown" if len(ranked) > limit else ""
    caption += f"; the first {len(shown)} objectives shown" if len(shown) < len(results.objectives) else ""
    parts: list[RenderableType] = [table, Text(caption + ".", style="dim")]
    if len(results.objectives) == 2:
        parts += [Text(), scatter(results, view.searched)]
    return Group(*parts)


def render_studies(
    records: Sequence[StudyRecord], now: float, evaluations: Mapping[str, int] | None = None
) -> RenderableType:
    """The studies of a store, one a line; `evaluations` adds how many each has, `now` is seconds since the epoch."""
    if not records:
        return Text("No study yet. Launch one: mergesearch launch STUDY.yaml", style="dim")
    table = Table(box=None, pad_edge=False)
    for name in ("study", "status", "evaluations", "time", "changed"):
        table.add_column(name, header_style="bold", justify="right" if name in ("evaluations", "time") else "left")
    for record in records:
        count = (evaluations or {}).get(record.name)
        table.add_row(
            Text(record.name, style="bold", overflow="fold"),
            status_text(record.status),
            NOTHING if count is None else str(count),
            duration(record.seconds),
            f"{duration(max(now - record.updated, 0.0))} ago",
        )
    return table


def render_candidate(view: StudyView, number: int, settings: Settings | None = None) -> RenderableType:
    """One merge: where it comes from, its scores by split, its settings as tables of groups by experts.

    `settings` (knob -> (G, K)) is needed for a baseline only; another candidate's follow from the view's space.
    """
    candidate, results = view.results.candidates[number], view.results
    head = Text(name_of(results, number, view.chosen), style="bold cyan").append(
        f"  ({candidate.origin})", "not bold dim"
    )
    words = marks(view).get(number, "")
    head.append(f"  {words}", "green")
    parts: list[RenderableType] = [head, Text(), _scores(results, number)]
    if words := wanted(candidate):
        parts.insert(1, Text(words, style="dim"))
    for failure in failures(results):
        if failure.number == number:
            parts.append(Text(f"{failure.split}: {failure.failed.kind}: {failure.failed.message}", style="red"))
    tables = view.settings(number) if settings is None else settings
    start = view.start()
    if tables is not None and view.space is not None:
        for knob, table in tables.items():
            drawn = _settings(table, start.get(knob), view.space.groups, view.space.experts)
            parts += [Text(), Text(knob, style="bold"), drawn]
    return Group(*parts)


def render_coefficients(view: StudyView, number: int) -> RenderableType:
    """The settings of a merge of the search alone, a table of groups by experts for each knob. Raises SpecError."""
    tables, space = coefficients_of(view, number)
    start = view.start()
    parts: list[RenderableType] = []
    for knob, table in tables.items():
        parts += [Text(knob, style="bold"), _settings(table, start.get(knob), space.groups, space.experts), Text()]
    note = "Blue: above where the search started, red: below it."
    return Group(*parts, Text(note, style="dim"))


def wanted(candidate: Candidate) -> str:
    """What of an evaluation was asked for, and its cost; '' for the usual whole one."""
    request = candidate.request
    if request == Request() and candidate.cost == 1.0:
        return ""
    words = "all examples"
    if request.share < 1.0:
        words = f"{request.share:.3g} of the examples" + (f" from {request.offset:.3g} on" if request.offset else "")
    if request.continues is not None:
        words += f", after those of #{request.continues}"
    if request.gradient:
        words += f", with the gradient of {request.gradient!r}"
    return f"asked for {words}; cost {candidate.cost:.3g}"


def _scores(results: Results, number: int) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("objective", header_style="bold")
    splits = [split for split in Split if (number, split) in results.asked]
    for split in splits:
        table.add_column(split.value, justify="right", header_style="bold")
    outcomes = [results.outcomes.get((number, split)) for split in splits]
    for objective in results.objectives:
        unit = unit_of(objective)
        cells = [
            _state(o) if not isinstance(o, Scored) else unit.estimate(_estimate(o, objective.name)) for o in outcomes
        ]
        table.add_row(Text(f"{objective.name}{unit.suffix} {better(objective)}"), *cells)
    if len(results.objectives) > 1:
        unit = mean_unit(results.objectives)
        means = [unit.estimate(mean(results.objectives, o)) if isinstance(o, Scored) else "" for o in outcomes]
        table.add_row(f"mean{unit.suffix}", *means, style="bold")
    return table


def _state(outcome: Failed | None) -> str:
    return "failed" if isinstance(outcome, Failed) else "not yet"


def _settings(
    table: NDArray[np.float64], start: NDArray[np.float64] | None, groups: Sequence[str], experts: Sequence[str]
) -> RenderableType:
    """Groups x experts; blue above the start, red below, stronger the further away. One line where all are equal."""
    if float(np.ptp(table)) == 0.0:
        return Text(f"{table.flat[0]:.4g} everywhere")
    away = table - (table.mean() if start is None else start)
    reach = float(np.abs(away).max()) or 1.0
    drawn = Table(box=None, pad_edge=False, padding=(0, 1))
    drawn.add_column("", no_wrap=True)
    for expert in experts[:MOST_EXPERTS]:
        drawn.add_column(Text(expert), justify="right", header_style="bold", max_width=9)
    for group, row, distances in zip(groups, table, away, strict=True):
        cells = [
            Text(f"{value:.3f}", style=_shade(distance / reach))
            for value, distance in zip(row[:MOST_EXPERTS], distances[:MOST_EXPERTS], strict=True)
        ]
        drawn.add_row(Text(group), *cells)
    if len(experts) > MOST_EXPERTS:
        return Group(drawn, Text(f"… and {len(experts) - MOST_EXPERTS} more experts: see --json.", style="dim"))
    return drawn


def _shade(share: float) -> str:
    """Style for a distance from the start, -1 to 1."""
    if abs(share) < 0.1:
        return "dim"
    return ("bold " if abs(share) > 0.6 else "") + ("blue" if share > 0 else "red")
