"""What the front's merges are made of: one line for each across the axes of the search space.

Lines are plain ones in a few colours, since Plotly's own parallel coordinates compile code in the browser, which the
pages forbid.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import SpecError
from mergesearch.report.charts import Chart
from mergesearch.report.charts.points import factors, heading, numbers, objective_at, plain, points, texts, thinned
from mergesearch.report.view import StudyView
from mergesearch.space import SearchSpace

MOST_AXES: Final = 12
MOST_LINES: Final = 300
VIRIDIS: Final = ("#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725")
"""Seen with any colour vision, dark to light; its ends are left out where lines must be seen on any page."""

COLOURS: Final = VIRIDIS[1:7]


def parallel(view: StudyView, options: Mapping[str, str]) -> Chart:
    """Lines of the front's merges; option `colour`: the objective that colours them, the first by default.

    At most 12 axes: those over which the front's merges spread most. Raises SpecError.
    """
    objectives, space = view.results.objectives, view.space
    aim = objective_at(objectives, options["colour"]) if options.get("colour") else 0
    if space is None:
        raise SpecError("the axes of this study's search space are not known")
    found = points(view)
    single = len(objectives) < 2
    rows = np.argsort(found.losses[:, 0], kind="stable")[:20] if single else np.flatnonzero(found.front)
    found = found.only(np.sort(thinned(rows[np.argsort(found.losses[rows, aim], kind="stable")], MOST_LINES)))
    kind = "the best merges" if single else "the front's merges"
    if not len(found.numbers):
        return Chart([], {}, "No merge of the search has been scored yet.")
    cube = np.array([view.results.candidates[n].point for n in found.numbers.tolist()])
    axes = spread(cube)
    scores = found.scores[:, aim] * factors(objectives)[aim]
    names = [f"#{n}" for n in found.numbers.tolist()]
    hover = texts(objectives, names, found)
    data = [*_lines(cube[:, axes], scores, found.numbers, hover), _scale(scores, heading(objectives[aim]))]
    shown = (
        f"{len(axes)} of {space.dim} axes, those over which they spread most" if len(axes) < space.dim else "all axes"
    )
    lines = f"{len(rows):,}" if len(rows) == len(names) else f"{len(names):,} of {len(rows):,}"
    summary = f"{lines} of {kind} across {shown}, coloured by {plain(objectives[aim].name)}."
    return Chart(data, _layout(space, axes), summary)


def spread(cube: NDArray[np.float64], most: int = MOST_AXES) -> NDArray[np.int64]:
    """The at most `most` columns of points (n, D) with the largest standard deviation, in their order."""
    if cube.shape[1] <= most:
        return np.arange(cube.shape[1])
    return np.sort(np.argsort(-cube.std(axis=0), kind="stable")[:most])


def _lines(
    cube: NDArray[np.float64], scores: NDArray[np.float64], candidates: NDArray[np.int64], hover: list[str]
) -> list[dict[str, Any]]:
    """One trace for each colour, its lines apart by a gap."""
    low, span = scores.min(), float(np.ptp(scores)) or 1.0
    shades = np.minimum(((scores - low) / span * len(COLOURS)).astype(int), len(COLOURS) - 1)
    places = [*range(cube.shape[1]), None]
    traces: list[dict[str, Any]] = []
    for shade in sorted(set(shades.tolist())):
        rows = np.flatnonzero(shades == shade).tolist()
        heights = [value for row in rows for value in [*numbers(cube[row]), None]]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": places * len(rows),
                "y": heights,
                "customdata": [int(candidates[row]) for row in rows for _ in places],
                "text": [hover[row] for row in rows for _ in places] if len(rows) * len(places) < 6000 else "",
                "hovertemplate": "%{text}<extra></extra>",
                "line": {"color": COLOURS[shade], "width": 1.5},
                "marker": {"color": COLOURS[shade], "size": 4},
                "opacity": 0.75,
                "showlegend": False,
            }
        )
    return traces


def _scale(scores: NDArray[np.float64], title: str) -> dict[str, Any]:
    """A mark that is not seen, but brings the bar of colours."""
    ends = [float(scores.min()), float(scores.max())]
    steps = [[i / (len(COLOURS) - 1), colour] for i, colour in enumerate(COLOURS)]
    bar = {"title": {"text": title, "side": "right", "font": {"size": 12}}, "thickness": 12, "outlinewidth": 0}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [0, 0],
        "y": [0, 0],
        "hoverinfo": "skip",
        "showlegend": False,
        "marker": {"color": ends, "colorscale": steps, "showscale": True, "colorbar": bar, "size": 1, "opacity": 0},
    }


def _layout(space: SearchSpace, axes: NDArray[np.int64]) -> dict[str, Any]:
    """An upright line for each axis, its name below, its ends' values at it."""
    chosen = [space.axes[i] for i in axes.tolist()]
    first = {axis.name.partition(".")[0] for axis in space.axes}
    skipped = len(first.pop()) + 1 if len(first) == 1 and len(space.axes) > 1 else 0
    notes = [
        {"x": i, "y": y, "text": f"{value:.3g}", "showarrow": False, "yanchor": anchor, "font": {"size": 11}}
        for i, axis in enumerate(chosen)
        for y, value, anchor in ((0, axis.low, "top"), (1, axis.high, "bottom"))
    ]
    return {
        "xaxis": {
            "tickvals": list(range(len(chosen))),
            "ticktext": [plain(_short(axis.name[skipped:])) for axis in chosen],
            "range": [-0.25, len(chosen) - 0.75],
            "showgrid": True,
            "zeroline": False,
            "tickangle": -30 if len(chosen) > 4 else 0,
            "ticklabelstandoff": 14,
        },
        "yaxis": {"visible": False, "range": [-0.08, 1.08], "fixedrange": True},
        "annotations": notes,
    }


def _short(name: str, longest: int = 20) -> str:
    """The end of a name, which tells axes apart: they begin with their knob, left out where it is the same for all."""
    return name if len(name) <= longest else f"…{name[1 - longest :]}"
