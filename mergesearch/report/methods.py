"""Beside the final table: scores in shares of each task's own expert, 95 % intervals, and what each method cost."""

from mergesearch.report.estimate import NOTHING, PERCENT, duration, mean_unit
from mergesearch.report.grid import Cell, Grid, grid
from mergesearch.report.table import Comparison, Control, Row, own_experts
from mergesearch.report.tasks import NORMAL_95
from mergesearch.report.view import StudyView
from mergesearch.results import BASELINE, LAMBDA, Results
from mergesearch.types import Direction, Split

SPLITS = (Split.TEST, Split.CONFIRM)


def normalised_grids(view: StudyView, comparison: Comparison) -> list[Grid]:
    """For test and confirm: each score in percent of the task's own expert, the mean, and its 95 % interval."""
    own, results, unit = own_experts(view.results, view.heads), view.results, mean_unit(view.results.objectives)
    grids = []
    for split in SPLITS:
        rows = []
        for row in comparison.rows_on(split):
            cells = row.cells[split]
            ratios = [
                _ratio(results, own.get(o.name), split, at, score.value)
                for at, (o, score) in enumerate(zip(results.objectives, cells.scores, strict=True))
            ]
            mean = cells.mean
            reach = NORMAL_95 * mean.stderr
            interval = f"{unit.number(mean.value - reach)} to {unit.number(mean.value + reach)}"
            shown = [Cell(NOTHING if r is None else PERCENT.number(r)) for r in ratios]
            rows.append((Cell(row.label), Cell(interval if mean.stderr > 0 else NOTHING), *shown))
        if rows:
            heads = ("", f"mean{unit.suffix}, 95 %", *(o.name for o in results.objectives))
            note = "Each task in % of its own expert on the same split, 100 is as good as the expert. "
            note += "The interval of the weighted mean is 1.96 standard errors to each side."
            marked = next((i for i, r in enumerate(comparison.rows_on(split)) if r.kind == "searched"), -1)
            grids.append(Grid(f"normalised, {split.value}", heads, tuple(rows), marked, note))
    return grids


def _ratio(results: Results, expert: int | None, split: Split, at: int, value: float) -> float | None:
    objective = results.objectives[at]
    outcome = None if expert is None else results.outcome(expert, split)
    unit = 0.0 if outcome is None else outcome.scores[objective.name].value
    if unit <= 0.0 or value < 0.0 or (objective.direction is Direction.MIN and value == 0.0):
        return None
    return value / unit if objective.direction is Direction.MAX else unit / value


def cost_grid(view: StudyView, comparison: Comparison) -> Grid | None:
    """What it took to find each row of the table, and which labels that saw; None for an empty study."""
    results, rows = view.results, []
    for row in comparison.rows:
        if row.kind in ("base", "expert", "uniform"):
            rows.append([row.label, "none", "0", NOTHING, NOTHING])
        elif row.kind == "lambda":
            tried = [n for origin, n in results.baselines().items() if origin.startswith(LAMBDA)]
            rows.append([row.label, "search", str(len(tried)), *_seconds(results, tried)])
        elif row.kind == "searched":
            rows.append(_searched(row, view.results, view.chosen))
        elif control := next((c for c in view.controls if row.label.endswith(f": {c.label}")), None):
            rows.append(_control(row, control))
    if not rows:
        return None
    heads = ("method", "labels it saw", "evaluations", "building and scoring", "GPU-seconds")
    note = "Evaluations made to choose the merge, in evaluations of all examples of the search split. "
    note += "The test split chose nothing."
    return grid("What each method cost", heads, rows, note)


def _searched(row: Row, results: Results, chosen: int | None) -> list[str]:
    tried = [n for n, candidate in results.candidates.items() if not candidate.origin.startswith(BASELINE)]
    labels = "search" if chosen is None else "search; confirm for finalists"
    return [row.label, labels, f"{results.cost_told:.4g}", *_seconds(results, tried)]


def _control(row: Row, control: Control) -> list[str]:
    return _searched(row, control.results, control.chosen)


def _seconds(results: Results, numbers: list[int]) -> list[str]:
    told = [o for n in numbers if (o := results.outcomes.get((n, Split.SEARCH))) is not None]
    spent, gpu = sum(o.timing.build + o.timing.score for o in told), sum(o.timing.gpu for o in told)
    return [duration(spent) if told else NOTHING, f"{gpu:.4g}" if gpu > 0 else NOTHING]
