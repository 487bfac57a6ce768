"""The front: two objectives against each other, or three to turn around."""

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
    MOST_FRONT,
    MOST_OTHERS,
    ORANGE,
    PURPLE,
    RED,
    SLATE,
    Named,
    Points,
    factors,
    flag,
    heading,
    limits,
    named,
    numbers,
    objective_at,
    plain,
    points,
    signs,
    split_of,
    texts,
    thinned,
)
from mergesearch.report.view import StudyView
from mergesearch.types import Objective, Split

AXES = ("x", "y", "z")
HIDDEN_PERCENT = 10.0
"""Dominated merges among the worst tenth of an objective do not stretch the axes."""

MARKS: dict[str, tuple[str, str, str, float]] = {
    "base": ("base", "square", SLATE, 11),
    "expert": ("experts", "triangle-up", PURPLE, 12),
    "uniform": ("uniform average", "diamond", GREEN, 11),
    "lambda": ("best single λ", "cross", ORANGE, 12),
    "knee": ("knee", "circle-open", RED, 17),
    "chosen": ("chosen", "star", RED, 16),
}
"""Kind -> (what the legend says, shape, colour, size in pixels)."""


def front(view: StudyView, options: Mapping[str, str]) -> Chart:
    """Scores of every merge; `x`, `y` and `z` (names of objectives), `split`, `errors` as options.

    Raises:
        SpecError: one objective only, an unknown objective or split, or the same one twice.
    """
    objectives = view.results.objectives
    axes = chosen_axes(objectives, options)
    split = split_of(options)
    found = points(view, split)
    rows = np.arange(len(found.numbers))
    shown = found.only(thinned(rows[found.front], MOST_FRONT))
    others = found.only(thinned(rows[~found.front], MOST_OTHERS))
    marked = named(view, split)
    errors = flag(options, "errors")
    data = [
        _cloud(objectives, others, axes, _count("dominated", len(others.numbers), int((~found.front).sum()))),
        *_edge(objectives, shown, axes),
        _front(objectives, shown, axes, _count("front", len(shown.numbers), int(found.front.sum())), errors),
        *_marks(objectives, marked, axes, errors),
    ]
    return Chart(
        [trace for trace in data if trace["x"]],
        _layout(objectives, axes, found, marked),
        _summary(objectives, axes, split, found, marked),
    )


def chosen_axes(objectives: tuple[Objective, ...], options: Mapping[str, str]) -> list[int]:
    """Indices of two objectives, three with `z`. What is not given is the first that is free. Raises SpecError."""
    if len(objectives) < 2:
        raise SpecError(f"a front needs two objectives, the study has {objectives[0].name!r} alone")
    given = {axis: objective_at(objectives, options[axis]) for axis in AXES if options.get(axis)}
    found: list[int] = []
    for axis in AXES if "z" in given else AXES[:2]:
        free = (i for i in range(len(objectives)) if i not in found and i not in given.values())
        at = given[axis] if axis in given else next(free)
        if at in found:
            raise SpecError(f"{axis} is {objectives[at].name!r}, which another axis has already; choose another")
        found.append(at)
    return found


def _count(word: str, shown: int, all_: int) -> str:
    return f"{word} ({all_:,})" if shown == all_ else f"{word} ({shown:,} of {all_:,} shown)"


def _places(objectives: tuple[Objective, ...], scores: NDArray[np.float64], axes: list[int]) -> dict[str, Any]:
    scaled = scores * factors(objectives)
    return {axis: numbers(scaled[:, i]) for axis, i in zip(AXES, axes, strict=False)}


def _trace(
    objectives: tuple[Objective, ...], found: Points, axes: list[int], name: str, marker: dict[str, Any]
) -> dict[str, Any]:
    return {
        "type": "scatter3d" if len(axes) == 3 else "scatter",
        "mode": "markers",
        "name": name,
        **_places(objectives, found.scores, axes),
        "customdata": found.numbers.tolist(),
        "text": texts(objectives, [f"#{n}" for n in found.numbers.tolist()], found),
        "hovertemplate": "%{text}<extra></extra>",
        "marker": marker,
    }


def _cloud(objectives: tuple[Objective, ...], found: Points, axes: list[int], name: str) -> dict[str, Any]:
    return _trace(objectives, found, axes, name, {"color": GREY, "size": 3 if len(axes) == 3 else 5, "opacity": 0.4})


def _front(
    objectives: tuple[Objective, ...], found: Points, axes: list[int], name: str, errors: bool
) -> dict[str, Any]:
    trace = _trace(objectives, found, axes, name, {"color": BLUE, "size": 4 if len(axes) == 3 else 8})
    return trace | (_errors(objectives, found.errors, axes, BLUE) if errors else {})


def _errors(
    objectives: tuple[Objective, ...], errors: NDArray[np.float64], axes: list[int], colour: str
) -> dict[str, Any]:
    """One standard error in each direction."""
    scaled = errors * factors(objectives)
    return {
        f"error_{axis}": {
            "type": "data",
            "array": numbers(scaled[:, i]),
            "thickness": 1,
            "width": 0,
            "color": colour + "88",
        }
        for axis, i in zip(AXES, axes, strict=False)
    }


def _edge(objectives: tuple[Objective, ...], found: Points, axes: list[int]) -> list[dict[str, Any]]:
    """The edge of what the front reaches, where the study has these two objectives and no other."""
    if len(objectives) != 2:
        return []
    ordered = np.argsort(found.losses[:, axes[0]], kind="stable")
    return [
        {
            "type": "scatter",
            "mode": "lines",
            **_places(objectives, found.scores[ordered], axes),
            # From the best x on, y improves: the edge stays at a point's y until the next one's x is reached.
            "line": {"color": BLUE, "width": 1.5, "shape": "hv"},
            "opacity": 0.5,
            "hoverinfo": "skip",
            "showlegend": False,
        }
    ]


def _marks(
    objectives: tuple[Objective, ...], marked: list[Named], axes: list[int], errors: bool
) -> list[dict[str, Any]]:
    traces = []
    for kind, (legend, symbol, colour, size) in MARKS.items():
        own = [m for m in marked if m.kind == kind]
        if not own:
            continue
        scores, spreads = np.array([m.scores for m in own]), np.array([m.errors for m in own])
        solid = len(axes) == 3
        trace = {
            "type": "scatter3d" if solid else "scatter",
            "mode": "markers",
            "name": own[0].text.partition(" #")[0] if kind == "chosen" else legend,
            **_places(objectives, scores, axes),
            "customdata": [m.number for m in own],
            "text": [texts(objectives, [m.text], m)[0] for m in own],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"symbol": _solid(symbol) if solid else symbol, "color": colour, "size": size / (1 + solid)}
            | {"line": {"width": 2 if kind == "knee" else 1, "color": colour if kind == "knee" else "#ffffff"}},
        }
        traces.append(trace | (_errors(objectives, spreads, axes, colour) if errors and kind != "knee" else {}))
    return traces


def _solid(symbol: str) -> str:
    """The nearest of the few shapes that there are in three dimensions."""
    return {"triangle-up": "diamond-open", "star": "diamond"}.get(symbol, symbol)


def _layout(objectives: tuple[Objective, ...], axes: list[int], found: Points, marked: list[Named]) -> dict[str, Any]:
    ends = {axis: {"title": {"text": heading(objectives[i])}} for axis, i in zip(AXES, axes, strict=False)}
    if len(axes) == 3:
        return {"scene": {f"{axis}axis": end for axis, end in ends.items()}}
    near = found.front.copy()
    if len(found.numbers):
        bound = np.percentile(found.losses, 100.0 - HIDDEN_PERCENT, axis=0)
        near |= np.all(found.losses <= bound, axis=1)
    shown = np.vstack([found.scores[near], *(m.scores[None, :] for m in marked)]) * factors(objectives)
    return {
        f"{axis}axis": end | {"range": limits(shown[:, i])} for (axis, end), i in zip(ends.items(), axes, strict=True)
    }


def _summary(
    objectives: tuple[Objective, ...], axes: list[int], split: Split, found: Points, marked: list[Named]
) -> str:
    names = [plain(objectives[i].name) for i in axes]
    if not len(found.numbers):
        return f"No merge of the search has been scored on the {split.value} split yet."
    best = [
        f"{plain(objectives[i].name)} up to {float(found.scores[at, i] * factors(objectives)[i]):.4g}"
        for i in axes
        if (at := int(np.argmin(found.losses[:, i]))) >= 0 and signs(objectives)[i] < 0
    ]
    whole = "" if len(axes) == len(objectives) else f" of all {len(objectives)} objectives"
    return (
        f"{' against '.join(names)} on the {split.value} split: {int(found.front.sum()):,} of {len(found.numbers):,} "
        f"merges are on the front{whole}" + (f"; {', '.join(best)}" if best else "") + "."
    ) + (f" Marked: {plain(', '.join(m.text for m in marked), 400)}." if marked else "")
