"""How a search went: the best merge so far and the front's hypervolume, against evaluations or against cost."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import SpecError
from mergesearch.report.charts import Chart
from mergesearch.report.charts.points import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SLATE,
    heading,
    limits,
    numbers,
    points,
    thinned,
)
from mergesearch.report.charts.volumes import Volumes, volumes
from mergesearch.report.estimate import mean_sign, mean_unit
from mergesearch.report.view import StudyView
from mergesearch.results import BASE, UNIFORM, Results
from mergesearch.types import Vector

MOST_POINTS = 1500
SHOWN_PERCENT = 10.0
"""The worst tenth of the evaluations does not stretch the axis."""

AGAINST = {"evaluations": "evaluations scored", "cost": "cost, in evaluations of all examples"}
LEVELS = {
    "base": ("base", SLATE, "dot"),
    "uniform": ("uniform average", GREEN, "dash"),
    "lambda": ("best single λ", ORANGE, "dashdot"),
}


def convergence(view: StudyView, options: Mapping[str, str]) -> Chart:
    """The best weighted mean on the search split so far, each evaluation's own, the levels of the baselines.

    Option `against`: 'evaluations' (default) or 'cost'. Raises SpecError.
    """
    results, found = view.results, points(view)
    against, x = _against(options, results, len(found.numbers))
    unit, sign = mean_unit(results.objectives), mean_sign(results.objectives)
    factor = 100.0 if unit.percent else 1.0
    weighted = weighted_losses(results, found.losses)
    values, best = sign * weighted * factor, sign * np.minimum.accumulate(weighted) * factor
    better = np.flatnonzero(np.diff(best, prepend=np.nan) != 0)
    turns = np.unique(np.append(better, len(best) - 1)) if len(best) else better
    rows = thinned(np.arange(len(values)), MOST_POINTS)
    levels = _levels(results, factor)
    data = [
        _dots(x[rows], values[rows], found.numbers[rows], len(values)),
        *(_level(kind, height, x) for kind, height in levels),
        _steps(
            "best so far", x[turns], best[turns], found.numbers[better[np.searchsorted(better, turns, "right") - 1]]
        ),
    ]
    title = "weighted mean" if len(results.objectives) > 1 else ""
    arrow = "↓" if sign > 0 else "↑"
    y_title = f"{title}{unit.suffix} {arrow}" if title else heading(results.objectives[0])
    shown = np.array([height for _, height in levels])
    if len(values):
        kept = values[weighted <= np.percentile(weighted, 100.0 - SHOWN_PERCENT)]
        shown = np.concatenate([shown, kept, best])
    layout = {"xaxis": _x_axis(against), "yaxis": {"title": {"text": y_title}, "range": limits(shown)}}
    return Chart([t for t in data if t["x"]], layout, _convergence_words(values, best, len(better), unit.suffix))


def hypervolume(view: StudyView, options: Mapping[str, str]) -> Chart:
    """The hypervolume of the front on the search split, normalised: base 0, best expert 1 of each objective.

    Option `against`: 'evaluations' (default) or 'cost'. Raises SpecError, also for a single objective.
    """
    results, found = view.results, points(view)
    if len(results.objectives) < 2:
        raise SpecError("hypervolume needs two objectives, the study has one; see its convergence instead")
    against, x = _against(options, results, len(found.numbers))
    curve = volumes(results)
    y_axis = {"title": {"text": "hypervolume ↑"}, "rangemode": "tozero"}
    layout = {"xaxis": _x_axis(against), "yaxis": y_axis}
    if curve is None:
        why = "no merge has been scored yet" if results.normalisation() is not None else "it needs base and experts"
        return Chart([], layout, f"There is no hypervolume yet: {why}.")
    at, values = ends(curve, len(x))
    name = "hypervolume" if not curve.error else f"hypervolume (estimated, ±{curve.error:.2g})"
    trace = _steps(name, x[at], values, found.numbers[at])
    trace |= {"fill": "tozeroy", "fillcolor": BLUE + "1f", "showlegend": bool(curve.error)}
    said = f"The front's hypervolume rose to {values[-1]:.4g} over {len(x):,} evaluations, in {len(curve.at):,} steps"
    return Chart([trace], layout, said + (f"; estimated, ±{curve.error:.2g}." if curve.error else "."))


def ends(curve: Volumes, count: int) -> tuple[NDArray[np.int64], Vector]:
    """Where a curve of `count` merges turns and its heights there, at most 1,500, with its last merge."""
    rows = thinned(np.arange(len(curve.at)), MOST_POINTS)
    at, values = curve.at[rows], curve.values[rows]
    if at[-1] < count - 1:
        at, values = np.append(at, count - 1), np.append(values, values[-1])
    return at, values


def weighted_losses(results: Results, losses: NDArray[np.float64]) -> Vector:
    """Weighted mean (n,) of losses (n, M), the weights scaled to sum to 1."""
    weights = np.array([o.weight for o in results.objectives])
    return np.asarray(losses @ weights / weights.sum(), dtype=np.float64)


def _against(options: Mapping[str, str], results: Results, count: int) -> tuple[str, Vector]:
    """What the x axis counts, and where on it each scored merge stands."""
    against = options.get("against") or "evaluations"
    if against not in AGAINST:
        raise SpecError(f"a curve runs against {' or '.join(AGAINST)}, not {against!r}")
    if against == "cost" and len(results.costs) == count:
        return against, np.array(results.costs)
    return against, np.arange(1.0, count + 1.0)


def _x_axis(against: str) -> dict[str, Any]:
    return {"title": {"text": AGAINST[against]}, "rangemode": "tozero"}


def _dots(x: Vector, y: Vector, numbers_: NDArray[np.int64], count: int) -> dict[str, Any]:
    name = "each merge" if len(x) == count else f"merges ({len(x):,} of {count:,} shown)"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": numbers(x),
        "y": numbers(y),
        "customdata": numbers_.tolist(),
        "hovertemplate": "#%{customdata}: %{y:.4g}<extra></extra>",
        "marker": {"color": GREY, "size": 4, "opacity": 0.5},
    }


def _steps(name: str, x: Vector, y: Vector, numbers_: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": numbers(x),
        "y": numbers(y),
        "customdata": numbers_.tolist(),
        "hovertemplate": "%{y:.4g} with #%{customdata}<extra></extra>",
        "line": {"color": BLUE, "width": 2.5, "shape": "hv"},
    }


def _levels(results: Results, factor: float) -> list[tuple[str, float]]:
    """Kind and height of the base, the uniform average and the best λ, those that are scored."""
    found = []
    for kind, number in (
        ("base", results.by_origin(BASE)),
        ("uniform", results.by_origin(UNIFORM)),
        ("lambda", results.best_lambda()),
    ):
        loss = None if number is None else results.weighted(number)
        if loss is not None:
            found.append((kind, mean_sign(results.objectives) * loss * factor))
    return found


def _level(kind: str, height: float, x: Vector) -> dict[str, Any]:
    name, colour, dash = LEVELS[kind]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [0.0, float(x[-1]) if len(x) else 1.0],
        "y": [float(f"{height:.6g}")] * 2,
        "hovertemplate": f"{name}: %{{y:.4g}}<extra></extra>",
        "line": {"color": colour, "width": 1.5, "dash": dash},
    }


def _convergence_words(values: Vector, best: Vector, steps: int, suffix: str) -> str:
    if not len(values):
        return "No merge of the search has been scored yet."
    return (
        f"Over {len(values):,} evaluations the best went from {best[0]:.4g}{suffix} to {best[-1]:.4g}{suffix}, "
        f"in {steps:,} steps."
    )
