"""The report of a study as one HTML file: tables and pictures inside, no script, light and dark, phone and desk."""

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from mergesearch.report.curves import convergence_figure
from mergesearch.report.estimate import NOTHING, Estimate, better, duration, mean_unit, unit_of, units_sentence
from mergesearch.report.figure import themed_svg
from mergesearch.report.heat import heatmap_figure
from mergesearch.report.plot import MOST_OBJECTIVES, front_figure
from mergesearch.report.table import Comparison, mean
from mergesearch.report.table_text import TITLES, columns, estimates, gap_sentence, leaders, legend
from mergesearch.report.view import FAILURES_SHOWN, StudyView, failures, hypervolume, marks, spent, timing
from mergesearch.types import Split

FRONT_SHOWN = 50


@dataclass(frozen=True)
class Cell:
    """One cell of a table: its text, its error in smaller type, and whether it is the column's best."""

    text: str
    error: str = ""
    best: bool = False


@dataclass(frozen=True)
class Grid:
    """A table as texts: `marked` is the row (counted from 0) that stands out."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: int = -1


@dataclass(frozen=True)
class Picture:
    """An `<svg>` element with a heading; `wide` ones scroll sideways on a phone instead of shrinking."""

    title: str
    svg: Markup
    caption: str
    wide: bool = False


def write_report(view: StudyView, path: str | Path) -> Path:
    """Write the report of a study, finished or not; missing folders are made."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(report_html(view), encoding="utf-8")
    return target


def report_html(view: StudyView) -> str:
    """The report as HTML text. Whatever comes from a study file or an error message is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("mergesearch.report", package_path="")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    comparison = view.comparison()
    shown, unit = failures(view.results), mean_unit(view.results.objectives)
    return page.get_template("report.html").render(
        name=view.record.name,
        status=view.record.status.value,
        summary=summary_lines(view, comparison),
        tables=comparison_grids(comparison),
        legend=legend(comparison) if comparison.rows else "",
        differences=[(d.verdict.name.lower(), d.sentence(unit)) for d in comparison.differences],
        gap=gap_sentence(comparison),
        pictures=pictures(view),
        front=front_grid(view),
        failures=[(f"#{f.number} on {f.split}", f.failed.kind, f.failed.message) for f in shown[:FAILURES_SHOWN]],
        failures_left=max(len(shown) - FAILURES_SHOWN, 0),
        diagnostics=sorted((name, f"{value:.4g}") for name, value in view.diagnostics.items()),
        strategy=view.strategy,
        notes=view.notes,
        budget=budget_rows(view),
        searched=view.searched,
    )


def summary_lines(view: StudyView, comparison: Comparison) -> list[str]:
    """Three lines: how far the study is, what the searched merge scores, and what that is worth."""
    results = view.results
    first = spent(results.search_told, results.cost_told, view.budget)
    first += f" by strategy {view.strategy}" if view.strategy else ""
    first += f", {results.failed} failed" if results.failed else ""
    first += f"; {len(results.front)} merges on the front" if len(results.objectives) > 1 else ""
    row = next((r for r in comparison.rows if r.kind == "searched"), None)
    if row is None:
        return [first + ".", "No candidate has been scored yet.", view.record.message]
    split = next(s for s in (Split.TEST, Split.CONFIRM, Split.SEARCH) if s in row.cells)
    unit = mean_unit(results.objectives)
    second = f"{row.label.capitalize()} scores {unit.estimate(row.cells[split].mean)}{unit.suffix} on the {split} split"
    second += ", weighted mean" if len(results.objectives) > 1 else ""
    on_test = [d for d in comparison.differences if d.split is Split.TEST]
    third = "; ".join(f"against {d.other} on test: {d.verdict}" for d in on_test)
    fallback = view.record.message or "Not yet compared on the test split."
    return [first + ".", second + ".", third[0].upper() + third[1:] + "." if third else fallback]


def comparison_grids(comparison: Comparison) -> list[Grid]:
    """A table for each split that has scores, test first; means stand before objectives, to be seen on a phone."""
    grids = []
    for split in (Split.TEST, Split.CONFIRM, Split.SEARCH):
        rows = comparison.rows_on(split)
        if not rows:
            continue
        heads, top = columns(comparison), leaders(comparison, split)
        body = []
        for row in rows:
            cells = [
                Cell(NOTHING) if e is None else Cell(unit.value(e), unit.error(e.stderr), row.number in best)
                for e, (_, unit), best in zip(estimates(row.cells[split]), heads, top, strict=True)
            ]
            body.append((Cell(row.label), *cells[-2:], *cells[:-2]))
        names = [head for head, _ in heads]
        marked = next((i for i, row in enumerate(rows) if row.kind == "searched"), -1)
        grids.append(Grid(TITLES[split], ("", *names[-2:], *names[:-2]), tuple(body), marked))
    return grids


def front_grid(view: StudyView) -> Grid | None:
    """The front on the search split, best mean first; None while it is empty or for one objective."""
    results = view.results
    if len(results.objectives) < 2 or not results.front:
        return None
    ranked = sorted(results.front, key=lambda n: (results.weighted(n), n))[:FRONT_SHOWN]
    unit, notes, rows = mean_unit(results.objectives), marks(view), []
    for number in ranked:
        outcome = results.outcome(number)
        assert outcome is not None
        cells = [Cell(f"#{number}")]
        for objective in results.objectives:
            score = outcome.scores[objective.name]
            own = unit_of(objective)
            estimate = Estimate(score.value, score.stderr)
            cells.append(Cell(own.value(estimate), own.error(score.stderr)))
        average = mean(results.objectives, outcome)
        rows.append((*cells, Cell(unit.value(average), unit.error(average.stderr)), Cell(notes.get(number, ""))))
    marked = ranked.index(view.searched) if view.searched in ranked else -1
    count = f"{len(results.front)} merges"
    count += f", the best {FRONT_SHOWN} by mean" if len(results.front) > FRONT_SHOWN else ""
    title = f"The front on the search split: {count}; {units_sentence(results.objectives)}"
    heads = ("", *(f"{o.name} {better(o)}" for o in results.objectives), "mean", "")
    return Grid(title, heads, tuple(rows), marked)


def pictures(view: StudyView) -> list[Picture]:
    """The pictures that there is something to draw for."""
    results, found = view.results, []
    if not results.scored:
        return []
    count = len(results.objectives)
    if count > 1:
        # Of too many objectives for a panel of every pair, the first two.
        x = results.objectives[0].name if count > MOST_OBJECTIVES else None
        figure = front_figure(results, x, chosen=view.chosen)
        caption = "Every merge that the search scored, on the search split; arrows point to better scores."
        found.append(Picture("Front", Markup(themed_svg(figure, "front", "front of the merges")), caption, count > 2))
    svg = Markup(themed_svg(convergence_figure(results), "convergence", "best score and hypervolume over evaluations"))
    caption = "Best weighted mean so far on the search split (line) and each evaluation (dots)."
    caption += " Hypervolume: in units where the base is 0 and the best expert 1."
    found.append(Picture("Convergence", svg, caption))
    number = view.searched
    settings = None if number is None else view.settings(number)
    if settings is not None and view.space is not None:
        for knob, table in settings.items():
            if table.size == 0 or table.max() == table.min():
                continue
            start = view.start()[knob]
            figure = heatmap_figure(table, view.space.groups, view.space.experts, start)
            svg = Markup(themed_svg(figure, f"heat-{len(found)}", "settings of the searched merge"))
            wide = len(view.space.experts) > 6
            found.append(Picture(f"{knob} of #{number}", svg, "White is where the search started.", wide))
    return found


def budget_rows(view: StudyView) -> list[tuple[str, str]]:
    """What the study has cost."""
    told = spent(view.results.search_told, view.results.cost_told, view.budget).removesuffix(" evaluations")
    rows = [("evaluations", told.replace(" evaluations,", ",")), ("time", duration(view.record.seconds))]
    volume, times = hypervolume(view.results), timing(view.results)
    if volume is not None and len(view.results.objectives) > 1:
        rows.append(("hypervolume", f"{volume:.4g}"))
    if times is not None:
        parts = (("waiting", times.queue), ("building", times.build), ("scoring", times.score))
        rows += [(f"median {word}", duration(seconds)) for word, seconds in parts]
    return rows
