"""One candidate against every expert: the difference in each objective with its 95 % interval."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mergesearch.errors import SpecError
from mergesearch.report.charts import Chart
from mergesearch.report.charts.heat import candidate_of
from mergesearch.report.charts.points import SLATE, plain
from mergesearch.report.estimate import unit_of
from mergesearch.report.tasks import TaskDifference, pairings, task_differences
from mergesearch.report.view import StudyView
from mergesearch.types import Split

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b", "#999999")
"""Okabe and Ito's, for experts in their order; the shapes of marks tell them apart too."""
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "hexagon")
ROW, HEAD = 20, 130
SEED = 0


def differences(view: StudyView, options: Mapping[str, str]) -> Chart:
    """Options: 'candidate', its number; 'split', else the last of search, confirm and test that it was scored on.

    Raises:
        SpecError: no such candidate or split, not scored there, or no expert was.
    """
    number = candidate_of(view, options)
    split = split_of(view, number, options.get("split", ""))
    pairs = pairings(view.results, number, split)
    if not pairs:
        raise SpecError(
            f"no expert beside candidate {number} is scored on the {split} split, so there is nothing to show"
        )
    generator = np.random.Generator(np.random.Philox(SEED))
    return chart_of(view, number, split, task_differences(pairs, view.examples, generator))


def splits_of(view: StudyView, number: int) -> list[Split]:
    """The splits that a candidate was scored on."""
    return [split for split in Split if view.results.outcome(number, split) is not None]


def split_of(view: StudyView, number: int, named: str) -> Split:
    """The split that is `named`; for '' the last one that has an expert to compare with, else the last one."""
    known = splits_of(view, number)
    if not known:
        raise SpecError(f"candidate {number} is not scored on any split yet")
    if not named:
        return next((s for s in reversed(known) if pairings(view.results, number, s)), known[-1])
    if named not in [s.value for s in known]:
        raise SpecError(f"candidate {number} is not scored on the split {named!r}, only on {', '.join(known)}")
    return Split(named)


def chart_of(view: StudyView, number: int, split: Split, found: list[TaskDifference]) -> Chart:
    """The chart of differences that were made before."""
    units = {o.name: unit_of(o) for o in view.results.objectives}
    mixed = len({unit.percent for unit in units.values()}) > 1
    factor = {name: 100.0 if unit.percent and not mixed else 1.0 for name, unit in units.items()}
    experts = list(dict.fromkeys(d.name for d in found))
    objectives = list(dict.fromkeys(d.objective for d in found))
    rows = {(o, e): i * (len(experts) + 1) + k for i, o in enumerate(objectives) for k, e in enumerate(experts)}
    data = [_trace(e, at, [d for d in found if d.name == e], rows, factor) for at, e in enumerate(experts)]
    ticks = [i * (len(experts) + 1) + (len(experts) - 1) / 2 for i in range(len(objectives))]
    points = "in points" if all(f == 100.0 for f in factor.values()) else "score units"
    layout = {
        "height": chart_height(len(objectives), len(experts)),
        "margin": {"l": 8, "r": 16, "t": 12, "b": 8},
        "xaxis": {
            "title": {"text": f"better than the expert →  ({points})"},
            "zeroline": True,
            "zerolinewidth": 2,
            "zerolinecolor": SLATE,
        },
        "yaxis": {
            "tickvals": ticks,
            "ticktext": [plain(o) for o in objectives],
            "range": [len(objectives) * (len(experts) + 1) - 1.4, -0.9],
            "showgrid": False,
            "zeroline": False,
        },
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom"},
    }
    better = sum(d.clear and d.gain.value > 0 for d in found)
    worse = sum(d.clear and d.gain.value < 0 for d in found)
    summary = (
        f"Candidate {number} against {len(experts)} experts on the {split} split in {len(objectives)} objectives: "
        f"clearly better in {better} of {len(found)} comparisons, clearly worse in {worse}; in the others the 95 % "
        "interval includes no difference, or no error is known."
    )
    return Chart(data, layout, summary)


def chart_height(objectives: int, experts: int) -> int:
    """Pixels."""
    return HEAD + ROW * objectives * (experts + 1)


def _trace(
    expert: str,
    at: int,
    found: list[TaskDifference],
    rows: Mapping[tuple[str, str], int],
    factor: Mapping[str, float],
) -> dict[str, Any]:
    colour, shape = COLOURS[at % len(COLOURS)], SHAPES[at % len(SHAPES)]
    values = [d.gain.value * factor[d.objective] for d in found]
    ends = [
        (0.0, 0.0) if d.low is None or d.high is None else (d.low * factor[d.objective], d.high * factor[d.objective])
        for d in found
    ]
    known = [d.low is not None for d in found]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(expert),
        "x": values,
        "y": [rows[d.objective, d.name] for d in found],
        "customdata": [d.expert for d in found],
        "text": [_hover(d, factor[d.objective]) for d in found],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": colour,
            "size": 9,
            "symbol": [shape if d.paired else f"{shape}-open" for d in found],
        },
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, high - v) if k else 0.0 for v, (_, high), k in zip(values, ends, known, strict=True)],
            "arrayminus": [max(0.0, v - low) if k else 0.0 for v, (low, _), k in zip(values, ends, known, strict=True)],
            "color": colour,
            "thickness": 1.6,
            "width": 4,
        },
    }


def _hover(d: TaskDifference, factor: float) -> str:
    text = f"<b>{plain(d.objective)}</b> against expert {plain(d.name)}: {d.gain.value * factor:+.4g}"
    if d.low is not None and d.high is not None:
        text += f"<br>95 % interval {d.low * factor:+.4g} to {d.high * factor:+.4g}"
    return text + (f"<br>paired, {d.examples} examples" if d.paired else "<br>not paired: no per-example values")
