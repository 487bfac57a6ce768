"""The picture of a front: every merge that was scored, on one panel for two objectives or one for each pair."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergesearch import pareto
from mergesearch.errors import SpecError
from mergesearch.plugins import did_you_mean
from mergesearch.report.estimate import better, unit_of
from mergesearch.report.figure import BLUE, FONT, INK, MARKS, PAGE, Axes, Figure, canvas, dress, save
from mergesearch.report.labels import Label, place
from mergesearch.report.table import name_of
from mergesearch.results import BASE, EXPERT, UNIFORM, Results
from mergesearch.types import Objective, Split, Vector

MOST_OBJECTIVES = 5
HIDDEN_PERCENT = 10.0
"""Dominated merges among the worst tenth of an objective do not stretch the axes; those cut off are counted."""


@dataclass(frozen=True, eq=False)
class Spots:
    """The search's merges: scores and errors (n, M) as written (percent for shares), `front` (n,) of them all."""

    scores: NDArray[np.float64]
    errors: NDArray[np.float64]
    front: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Named:
    """A merge with a name in the picture and its scores (M,) as written; `own` is the objective of an expert, or -1."""

    kind: str
    text: str
    scores: Vector
    own: int = -1


def plot_front(
    results: Results,
    path: str | Path,
    x: str | None = None,
    y: str | None = None,
    split: Split = Split.SEARCH,
    chosen: int | None = None,
    errors: bool = False,
    title: str = "",
) -> Path:
    """Draw the front to a .png or .svg file; see `front_figure`."""
    return save(front_figure(results, x, y, split, chosen, errors, title), path)


def front_figure(
    results: Results,
    x: str | None = None,
    y: str | None = None,
    split: Split = Split.SEARCH,
    chosen: int | None = None,
    errors: bool = False,
    title: str = "",
) -> Figure:
    """One panel for two objectives, or for `x` against `y`; else a panel for every pair.

    The front is that of all objectives among what was scored on `split`. `errors` adds one standard error to it.
    `chosen` is the searched merge, None the best so far.

    Raises:
        SpecError: one objective only, an unknown one, or more than five without `x` and `y`.
    """
    names = [o.name for o in results.objectives]
    if len(names) < 2:
        raise SpecError(f"a front needs two objectives, the study has {names[0]!r} alone; plot its convergence instead")
    for name in (x, y):
        if name is not None and name not in names:
            raise SpecError(f"no objective is called {name!r}{did_you_mean(name, names)}")
    pair = _pair(names, x, y)
    spots, named = _spots(results, split), _named(results, split, chosen)
    if pair is None:
        return _matrix(results.objectives, spots, named, errors, title)
    figure = canvas(5.2, 4.3)
    axes = figure.subplots()
    shown = [row for row in named if row.own in (-1, *pair)]
    limits = _limits(spots, shown, list(pair), _signs(results.objectives))
    _panel(axes, results.objectives, spots, named, pair, limits, errors)
    axes.set_title(title, color=INK, fontsize=FONT + 1, loc="left", fontweight="bold")
    _legend(figure, [], spots, _outside(spots, limits, list(pair)), loc="outside lower right", ncols=2)
    x_at, y_at = pair
    labels = [Label(row.scores[x_at], row.scores[y_at], row.text, row.kind == "searched") for row in shown]
    place(axes, labels, np.vstack([spots.scores, *(row.scores for row in named)])[:, list(pair)], FONT - 0.5)
    return figure


def _pair(names: list[str], x: str | None, y: str | None) -> tuple[int, int] | None:
    """Indices of the two objectives of a single panel; None for a panel of every pair."""
    if x is None and y is None:
        if len(names) > MOST_OBJECTIVES:
            raise SpecError(f"{len(names)} objectives have too many pairs for one picture; choose two with x and y")
        return (0, 1) if len(names) == 2 else None
    first = names.index(x) if x is not None else int(y == names[0])
    second = names.index(y) if y is not None else int(first == 0)
    if first == second:
        raise SpecError(f"x and y are both {names[first]!r}; choose two objectives")
    return first, second


def _factors(objectives: tuple[Objective, ...]) -> Vector:
    return np.array([100.0 if unit_of(o).percent else 1.0 for o in objectives])


def _spots(results: Results, split: Split) -> Spots:
    outcomes = [o for n in results.scored if (o := results.outcome(n, split)) is not None]
    objectives = results.objectives
    shape = (len(outcomes), len(objectives))
    scores = np.array([[o.scores[t.name].value for t in objectives] for o in outcomes]).reshape(shape)
    errors = np.array([[o.scores[t.name].stderr for t in objectives] for o in outcomes]).reshape(shape)
    front = np.zeros(len(outcomes), dtype=bool)
    front[pareto.front(scores * _signs(objectives))] = True
    return Spots(scores * _factors(objectives), errors * _factors(objectives), front)


def _signs(objectives: tuple[Objective, ...]) -> Vector:
    """Factors (M,) from scores to losses."""
    return np.array([o.loss(1.0) for o in objectives])


def _named(results: Results, split: Split, chosen: int | None) -> list[Named]:
    """The merges with a name that were scored on the split, the most important first."""
    names = [o.name for o in results.objectives]
    best, searched = results.best_lambda(), results.best if chosen is None else chosen
    found = [] if searched is None else [("searched", searched, -1)]
    found += [] if best is None else [("lambda", best, -1)]
    for origin, number in results.baselines().items():
        if origin in (BASE, UNIFORM):
            found.append(("base" if origin == BASE else "uniform", number, -1))
        elif origin.startswith(EXPERT):
            expert = origin.removeprefix(EXPERT)
            found.append(("expert", number, names.index(expert) if expert in names else -1))
    rows = []
    for kind, number, own in found:
        outcome = results.outcome(number, split)
        if outcome is not None:
            scores = np.array([outcome.scores[name].value for name in names]) * _factors(results.objectives)
            text = ("best " if kind == "lambda" else "") + name_of(results, number, searched)
            rows.append(Named(kind, text, scores, own))
    return rows


def _panel(
    axes: Axes,
    objectives: tuple[Objective, ...],
    spots: Spots,
    named: list[Named],
    pair: tuple[int, int],
    limits: tuple[Vector, Vector],
    errors: bool,
    small: bool = False,
) -> None:
    """Draw one pair of objectives within `limits`, without texts beside marks."""
    columns = list(pair)
    points, front = spots.scores[:, columns], spots.front
    other, shrink = MARKS["other"], 0.55 if small else 1.0
    axes.scatter(*points[~front].T, s=other.size * shrink, c=other.colour, alpha=0.55, linewidths=0, zorder=2)
    if errors and front.any():
        x_error, y_error = spots.errors[front][:, columns].T
        axes.errorbar(*points[front].T, y_error, x_error, fmt="none", ecolor=BLUE, elinewidth=0.7, alpha=0.45, zorder=3)
    if len(objectives) == 2 and front.any():
        _staircase(axes, points[front], _signs(objectives)[columns])
    kept = [row for row in named if row.own in (-1, *pair)]
    _scatter(axes, "front", points[front], shrink)
    for row in kept[::-1]:  # the most important on top
        _scatter(axes, row.kind, row.scores[columns][None, :], shrink)
    low, high = limits
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    x, y = (objectives[i] for i in pair)
    dress(axes, _heading(x), _heading(y), FONT - small)


def _heading(objective: Objective) -> str:
    return f"{objective.name}{unit_of(objective).suffix} {better(objective)}"


def _scatter(axes: Axes, kind: str, points: NDArray[np.float64], shrink: float) -> None:
    mark = MARKS[kind]
    axes.scatter(
        *points.T, s=mark.size * shrink, c=mark.colour, marker=mark.shape, edgecolors=PAGE, linewidths=0.8, zorder=5
    )


def _staircase(axes: Axes, points: NDArray[np.float64], signs: Vector) -> None:
    """The edge of what the front reaches, for two objectives."""
    ordered = points[np.argsort(points[:, 0] * signs[0], kind="stable")]
    # From the best x to the worst y improves: the edge stays at a point's y until the next one's x is reached.
    axes.step(*ordered.T, where="post", color=BLUE, linewidth=1.1, alpha=0.5, zorder=3)


def _limits(spots: Spots, rows: list[Named], columns: list[int], signs: Vector) -> tuple[Vector, Vector]:
    """Low and high ends of axes that hold the front, what has a name and most of the rest, for each of `columns`."""
    points, losses = spots.scores[:, columns], (spots.scores * signs)[:, columns]
    near = np.zeros(len(points), dtype=bool)
    if len(points):
        near = np.all(losses <= np.percentile(losses, 100.0 - HIDDEN_PERCENT, axis=0), axis=1)
    shown = np.vstack([points[spots.front | near], *(row.scores[columns] for row in rows)])
    if len(shown) == 0:
        return np.zeros(len(columns)), np.ones(len(columns))
    low, high = shown.min(axis=0), shown.max(axis=0)
    span = np.where(high > low, high - low, np.maximum(np.abs(high), 1.0) * 0.1)
    return low - 0.06 * span, high + 0.06 * span


def _outside(spots: Spots, limits: tuple[Vector, Vector], columns: list[int]) -> int:
    points = spots.scores[:, columns]
    return int(np.sum(np.any((points < limits[0]) | (points > limits[1]), axis=1)))


def _legend(figure: Figure, rows: list[Named], spots: Spots, outside: int, **where: Any) -> None:
    """What the marks are: those of `rows`, each kind once, the front and the rest, of which some are not shown."""
    from matplotlib.lines import Line2D

    kinds = {row.kind: ("experts" if row.kind == "expert" else row.text) for row in rows}
    kinds |= {"front": f"front ({spots.front.sum()})"} if spots.front.any() else {}
    cut = f", {outside} worse ones outside" if outside else ""
    kinds |= {"other": f"dominated ({(~spots.front).sum()}{cut})"} if (~spots.front).any() else {}
    handles = [
        Line2D([], [], linestyle="", marker=MARKS[k].shape, color=MARKS[k].colour, label=text, markersize=7)
        for k, text in kinds.items()
    ]
    if handles:
        figure.legend(handles=handles, frameon=False, fontsize=FONT - 1, labelcolor=INK, **where)


def _matrix(objectives: tuple[Objective, ...], spots: Spots, named: list[Named], errors: bool, title: str) -> Figure:
    """The lower triangle of all pairs, the legend in the empty corner."""
    count = len(objectives) - 1
    figure = canvas(1.0 + 2.5 * count, 0.6 + 2.3 * count)
    grid = figure.subplots(count, count, squeeze=False, sharex="col", sharey="row")
    low, high = _limits(spots, named, list(range(count + 1)), _signs(objectives))
    for row in range(count):
        for column in range(count):
            axes = grid[row][column]
            if column > row:
                axes.set_visible(False)
                continue
            ends = (low[[column, row + 1]], high[[column, row + 1]])
            _panel(axes, objectives, spots, named, (column, row + 1), ends, errors, small=True)
            axes.label_outer()
    if title:
        figure.suptitle(title, color=INK, fontsize=FONT + 1, fontweight="bold", x=0.01, ha="left")
    outside = _outside(spots, (low, high), list(range(count + 1)))
    _legend(figure, named, spots, outside, loc="upper right", bbox_to_anchor=(0.99, 0.99))
    return figure
