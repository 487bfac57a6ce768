"""The report of a study as one HTML file that fetches nothing: tables, pictures, and charts drawn by an inlined script.

Pictures are SVG and there without script and in print; where a script may run, charts to hover and zoom take their
place. A static report has no script at all, and is small.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from markupsafe import Markup

from mergesearch.report.background import Background, export_grid
from mergesearch.report.charts import Chart
from mergesearch.report.curves import convergence_figure
from mergesearch.report.estimate import NOTHING, Estimate, better, duration, mean_unit, unit_of, units_sentence
from mergesearch.report.figure import themed_svg
from mergesearch.report.grid import Cell, Grid
from mergesearch.report.heat import heatmap_figure
from mergesearch.report.interactive import chart, fronts, plotly_script, script_json
from mergesearch.report.methods import cost_grid, normalised_grids
from mergesearch.report.plot import MOST_OBJECTIVES, front_figure
from mergesearch.report.pool import pool_grids
from mergesearch.report.soundness import failure_grid, figures, flip_grid, rung_grid
from mergesearch.report.splits import indicator_grid, picks_grid, split_grid
from mergesearch.report.table import Comparison, mean
from mergesearch.report.table_text import TITLES, columns, estimates, gap_sentence, leaders, legend
from mergesearch.report.view import FAILURES_SHOWN, StudyView, failures, hypervolume, marks, spent, timing
from mergesearch.types import Split

FRONT_SHOWN = 50

ONLY_CHARTS = {
    "hypervolume": ("Hypervolume", "How much of the space between base and experts the front covers."),
    "parallel": ("Parallel coordinates", "Each line is a merge."),
    "differences": ("Against each expert", "The searched merge's difference to each expert, objective by objective."),
    "timing": ("Where the time went", ""),
    "fit": ("Fit of the surrogate", "How well the strategy's model predicts merges that it has not seen."),
}
"""Chart -> its title and what it shows; no picture stands for these."""


@dataclass(frozen=True)
class Picture:
    """A figure with a heading: an `<svg>` element, a chart, or both; `wide` ones scroll sideways on a phone instead of
    shrinking. `charts` says what a menu chooses from."""

    name: str
    title: str
    caption: str
    svg: Markup | None = None
    charts: Mapping[str, Chart] = field(default_factory=dict)
    wide: bool = False


def write_report(view: StudyView, path: str | Path, more: Background | None = None, *, static: bool = False) -> Path:
    """Write the report of a study, finished or not; missing folders are made. See `report_html`."""
    target = Path(path)
    text = report_html(view, more, static=static)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return target


def report_html(view: StudyView, more: Background | None = None, *, static: bool = False) -> str:
    """The report as HTML text. Whatever comes from a study file or an error message is escaped.

    Args:
        more: models, recipe and exports, for the sections about them.
        static: no charts and no script, some hundred kilobytes instead of five megabytes.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("mergesearch.report", package_path="")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    comparison, more = view.comparison(), more or Background()
    shown, unit, results = failures(view.results), mean_unit(view.results.objectives), view.results
    drawn = pictures(view) if static else with_charts(view, pictures(view))
    charts = {picture.name: picture.charts for picture in drawn if picture.charts}
    pool, template = more.pool, page.get_template("report.html")
    return template.render(
        name=view.record.name,
        status=view.record.status.value,
        summary=summary_lines(view, comparison),
        tables=comparison_grids(comparison),
        normalised=normalised_grids(view, comparison),
        costs=cost_grid(view, comparison),
        legend=legend(comparison) if comparison.rows else "",
        differences=[(d.verdict.name.lower(), d.sentence(unit)) for d in comparison.differences],
        gap=gap_sentence(comparison),
        pictures=drawn,
        plotly=Markup(plotly_script()) if charts else "",  # nosec B704  # the script of the installed package
        charts=Markup(script_json(charts)),  # nosec B704  # JSON in which '<' is escaped
        front=front_grid(view),
        splits=[found for found in (split_grid(view), picks_grid(view), indicator_grid(view)) if found],
        pool=pool,
        models=[] if pool is None else pool_grids(pool),
        soundness=[
            found
            for found in (rung_grid(results), flip_grid(view, comparison), failure_grid(results))
            if found is not None
        ],
        figures=figures(view, pool, more.displacement),
        failures=[(f"#{f.number} on {f.split}", f.failed.kind, f.failed.message) for f in shown[:FAILURES_SHOWN]],
        failures_left=max(len(shown) - FAILURES_SHOWN, 0),
        diagnostics=sorted((name, f"{value:.4g}") for name, value in view.diagnostics.items()),
        strategy=view.strategy,
        notes=view.notes,
        budget=budget_rows(view),
        searched=view.searched,
        recipe=more.recipe_text,
        exports=export_grid(more.artifacts),
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
        drawn = themed_svg(front_figure(results, x, chosen=view.chosen), "front", "front of the merges")
        svg = Markup(drawn)  # nosec B704  # matplotlib's SVG, whose texts are escaped
        caption = "Every merge that the search scored, on the search split; arrows point to better scores."
        caption += " The front: the merges that no other merge beats in every objective."
        found.append(Picture("front", "Front", caption, svg, wide=count > 2))
    drawn = themed_svg(convergence_figure(results), "convergence", "best score and hypervolume over evaluations")
    svg = Markup(drawn)  # nosec B704  # matplotlib's SVG, whose texts are escaped
    caption = "Best weighted mean so far on the search split (line) and each evaluation (dots)."
    caption += " Hypervolume: in units where the base is 0 and the best expert 1."
    found.append(Picture("convergence", "Convergence", caption, svg))
    number = view.searched
    settings = None if number is None else view.settings(number)
    if settings is not None and view.space is not None:
        for knob, table in settings.items():
            if table.size == 0 or table.max() == table.min():
                continue
            figure = heatmap_figure(table, view.space.groups, view.space.experts, view.start()[knob])
            drawn = themed_svg(figure, f"heat-{len(found)}", "settings of the searched merge")
            svg = Markup(drawn)  # nosec B704  # matplotlib's SVG, whose texts are escaped
            wide = len(view.space.experts) > 6
            caption = "White is where the search started."
            found.append(Picture(f"heat-{knob}", f"{knob} of #{number}", caption, svg, wide=wide))
    return found


def with_charts(view: StudyView, still: list[Picture]) -> list[Picture]:
    """The pictures with their charts, and the charts that no picture stands for."""
    number = "" if view.searched is None else str(view.searched)
    found = []
    for picture in still:
        if picture.name == "front":
            found.append(replace(picture, charts=fronts(view)))
        elif picture.name.startswith("heat-"):
            made = chart(view, "heat", candidate=number, knob=picture.name.removeprefix("heat-"))
            found.append(replace(picture, charts=_one(made), wide=True))
        else:
            found.append(replace(picture, charts=_one(chart(view, picture.name))))
    after = next((at for at, picture in enumerate(found) if picture.name == "convergence"), -1) + 1
    for name, (title, caption) in ONLY_CHARTS.items():
        made = chart(view, name, **({"candidate": number} if name == "differences" else {}))
        if made is not None:
            made_of = Picture(name, title, f"{caption} {made.summary}", charts=_one(made), wide=name == "parallel")
            found.insert(after if name == "hypervolume" else len(found), made_of)
    return found


def _one(made: Chart | None) -> dict[str, Chart]:
    return {} if made is None else {"": made}


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
