"""Charts of several studies at once: their fronts, their hypervolume and their best so far, bands for groups."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mergesearch import pareto
from mergesearch.errors import SpecError
from mergesearch.report.charts import Chart
from mergesearch.report.charts.curves import AGAINST
from mergesearch.report.charts.front import chosen_axes
from mergesearch.report.charts.points import factors, heading, limits, numbers, plain, thinned
from mergesearch.report.charts.volumes import EXACT_ENTRIES, SAMPLES
from mergesearch.report.compare import Table, split_for, units_for
from mergesearch.report.comparing import Group, Sketch, aligned, grouped
from mergesearch.report.estimate import mean_sign, mean_unit
from mergesearch.report.reached import first_reached
from mergesearch.results import MARGIN, Normalisation
from mergesearch.types import Direction, Split, Vector

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b", "#8c959f")
"""Okabe and Ito's; shapes and dashes tell groups apart too."""
SHAPES: Final = ("circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "hexagon")
DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MOST_POINTS: Final = 400
MOST_TEXTS: Final = 8

Curve = tuple[Vector, Vector]
"""Where a curve turns (k,), ascending, and its heights from there on (k,)."""


def front_chart(found: Sequence[Sketch], options: Mapping[str, str], groups: Sequence[str] = ()) -> Chart:
    """The fronts of all studies; options `x` and `y` (names of objectives) and `split`.

    A point's customdata is 'STUDY/candidates/NUMBER'. Raises SpecError.
    """
    sketches = aligned(found)
    objectives = sketches[0].objectives
    if len(objectives) < 2:
        raise SpecError(f"a front needs two objectives, these studies have {objectives[0].name!r} alone")
    x, y = chosen_axes(objectives, {k: v for k, v in options.items() if k in ("x", "y")})
    split, _ = split_for(sketches, Split(options["split"]) if options.get("split") else None)
    by_name, scale, data = {s.name: s for s in sketches}, factors(objectives), []
    share = max(50, 3000 // len(sketches))
    signs = np.array([o.score(1.0) for o in objectives])
    for at, group in enumerate(grouped(sketches, groups)):
        for name in group.studies:
            front = by_name[name].fronts.get(split)
            if front is None:
                continue
            rows = thinned(np.lexsort(front.losses.T[::-1]), share)
            scores = front.losses[rows] * signs * scale
            order = np.argsort(scores[:, x], kind="stable")
            own = scores[order]
            flat = len(objectives) == 2
            shape = "vh" if objectives[x].direction is Direction.MAX else "hv"
            data.append(
                _named(group, name == group.studies[0])
                | {
                    "mode": "lines+markers" if flat else "markers",
                    "x": numbers(own[:, x]),
                    "y": numbers(own[:, y]),
                    "customdata": [f"{name}/candidates/{n}" for n in front.numbers[rows][order].tolist()],
                    "text": [
                        _text(name, n, values, objectives)
                        for n, values in zip(front.numbers[rows][order].tolist(), own, strict=True)
                    ],
                    "hovertemplate": "%{text}<extra></extra>",
                    "marker": {
                        "color": _colour(at),
                        "symbol": SHAPES[at % len(SHAPES)],
                        "size": 8 if len(rows) < 200 else 5,
                    },
                    "line": {"color": _colour(at), "width": 1.2, "shape": shape, "dash": DASHES[at % len(DASHES)]},
                }
            )
    layout = {
        "xaxis": {"title": {"text": heading(objectives[x])}},
        "yaxis": {"title": {"text": heading(objectives[y])}},
    }
    sizes = [f"{s.name} {len(f.numbers):,}" for s in sketches if (f := s.fronts.get(split)) is not None]
    return Chart(
        data,
        layout,
        f"Fronts of {len(sizes)} studies on the {split.value} split, {plain(objectives[x].name)} against "
        f"{plain(objectives[y].name)}. Merges on each front: {plain(', '.join(sizes), 300) or 'none yet'}.",
    )


def hypervolume_chart(found: Sequence[Sketch], options: Mapping[str, str], groups: Sequence[str] = ()) -> Chart:
    """Hypervolume on the search split, all in one unit; option `against`: 'evaluations' or 'cost'. Raises SpecError."""
    sketches = aligned(found)
    if len(sketches[0].objectives) < 2:
        raise SpecError("hypervolume needs two objectives, these studies have one; see their convergence instead")
    losses = [s.entering.losses for s in sketches if len(s.entering.losses)]
    against = _against(options)
    if not losses:
        return Chart([], _layout(against, "hypervolume ↑"), "No merge of these studies has been scored yet.")
    normalisation, _ = units_for(sketches, np.vstack(losses))

    def curve(one: Sketch) -> Curve | None:
        if not len(one.entering.losses):
            return None
        return one.entering.x(against), grown(normalisation, one.entering.losses)

    return _curves(sketches, groups, against, curve, "hypervolume ↑", "hypervolume")


def convergence_chart(found: Sequence[Sketch], options: Mapping[str, str], groups: Sequence[str] = ()) -> Chart:
    """The best weighted mean so far on the search split; option `against` as above. Raises SpecError."""
    sketches = aligned(found)
    objectives = sketches[0].objectives
    unit, sign = mean_unit(objectives), mean_sign(objectives)
    weights = np.array([o.weight for o in objectives])
    factor = sign * (100.0 if unit.percent else 1.0) / weights.sum()
    against = _against(options)

    def curve(one: Sketch) -> Curve | None:
        if not len(one.improving.losses):
            return None
        return one.improving.x(against), factor * np.minimum.accumulate(one.improving.losses @ weights)

    title = f"weighted mean{unit.suffix} {'↓' if sign > 0 else '↑'}" if len(objectives) > 1 else heading(objectives[0])
    return _curves(sketches, groups, against, curve, title, "best so far")


def grown(normalisation: Normalisation, losses: Table) -> Vector:
    """Hypervolume (k,) after each of the merges that entered the front, losses (k, M), in units that are given.

    Exact for few of them, else the share of random points of the box between ideal and reference that they reach.
    """
    scaled, count = normalisation.scaled(losses), losses.shape[1]
    reference = np.full(count, MARGIN)
    if len(scaled) <= EXACT_ENTRIES.get(count, 0):
        tracker, values = pareto.HypervolumeTracker(reference), []
        for row in scaled:
            tracker = tracker.add(row)
            values.append(tracker.value)
        return np.array(values)
    inside = np.flatnonzero((scaled < reference).all(axis=1))
    if len(inside) == 0:
        return np.zeros(len(scaled))
    ideal = scaled[inside].min(axis=0)
    drawn = ideal + np.random.Generator(np.random.Philox(0)).random((SAMPLES, count)) * (reference - ideal)
    first = first_reached(scaled[inside], drawn)
    reached = np.zeros(len(scaled))
    reached[inside] = np.bincount(first[first < len(inside)], minlength=len(inside))
    return np.asarray(np.cumsum(reached) / SAMPLES * float(np.prod(reference - ideal)), dtype=np.float64)


CHARTS: Final[dict[str, Callable[[Sequence[Sketch], Mapping[str, str], Sequence[str]], Chart]]] = {
    "front": front_chart,
    "hypervolume": hypervolume_chart,
    "convergence": convergence_chart,
}


def _against(options: Mapping[str, str]) -> str:
    against = options.get("against") or "evaluations"
    if against not in AGAINST:
        raise SpecError(f"a curve runs against {' or '.join(AGAINST)}, not {against!r}")
    return against


def _layout(against: str, title: str) -> dict[str, Any]:
    return {"xaxis": {"title": {"text": AGAINST[against]}, "rangemode": "tozero"}, "yaxis": {"title": {"text": title}}}


def _curves(
    sketches: Sequence[Sketch],
    groups: Sequence[str],
    against: str,
    curve: Callable[[Sketch], Curve | None],
    title: str,
    word: str,
) -> Chart:
    """A line for each group: of one study its own, of several their median with a band between the quartiles."""
    by_name = {s.name: s for s in sketches}
    data: list[dict[str, Any]] = []
    said = []
    heights: list[float] = []
    for at, group in enumerate(grouped(sketches, groups)):
        own = [
            (made, by_name[name].end(against)) for name in group.studies if (made := curve(by_name[name])) is not None
        ]
        if not own:
            continue
        x, low, median, high = band([made for made, _ in own], [end for _, end in own])
        if len(own) > 1:
            data += _band(x, low, high, _colour(at), group.label)
        line = _named(group, True)
        line |= {
            "mode": "lines",
            "x": numbers(x),
            "y": numbers(median),
            "hovertemplate": f"{plain(group.label)}: %{{y:.4g}}<extra></extra>",
            "line": {"color": _colour(at), "width": 2.5, "shape": "hv", "dash": DASHES[at % len(DASHES)]},
        }
        data.append(line)
        said.append(f"{plain(group.label)} {median[-1]:.4g}")
        skipped = int(0.1 * len(median))
        heights += [*low[skipped:].tolist(), *high[skipped:].tolist()]
    layout = _layout(against, title)
    layout["yaxis"] |= {"range": limits(np.array(heights))} if heights else {}
    bands = " Bands are the quartiles, lines the median of a group, up to where its shortest study ends."
    return Chart(data, layout, f"At the end, {word}: {', '.join(said) or 'nothing is scored yet'}." + bands)


def band(curves: Sequence[Curve], ends: Sequence[float]) -> tuple[Vector, Vector, Vector, Vector]:
    """Where steps turn (k,), and the lower quartile, the median and the upper quartile of the curves from there on.

    From where all have begun to where the first of them ends, so that every place counts the same studies.
    """
    first, last = max(float(x[0]) for x, _ in curves), min(ends)
    turns = np.unique(np.concatenate([x for x, _ in curves]))
    turns = turns[(turns >= first) & (turns <= last)]
    if len(turns) == 0:  # one ends before another begins
        turns = np.array([first])
    if turns[-1] < last:
        turns = np.append(turns, last)
    grid = turns[thinned(np.arange(len(turns)), MOST_POINTS)]
    table = np.stack([y[np.searchsorted(x, grid, side="right") - 1] for x, y in curves])
    low, median, high = np.percentile(table, [25.0, 50.0, 75.0], axis=0)
    return grid, low, median, high


def _band(x: Vector, low: Vector, high: Vector, colour: str, label: str) -> list[dict[str, Any]]:
    shared = {
        "type": "scatter",
        "mode": "lines",
        "legendgroup": plain(label),
        "showlegend": False,
        "hoverinfo": "skip",
        "x": numbers(x),
        "line": {"width": 0, "shape": "hv", "color": colour},
    }
    return [shared | {"y": numbers(low)}, shared | {"y": numbers(high), "fill": "tonexty", "fillcolor": colour + "33"}]


def _named(group: Group, first: bool) -> dict[str, Any]:
    return {"type": "scatter", "name": plain(group.label), "legendgroup": plain(group.label), "showlegend": first}


def _colour(at: int) -> str:
    return COLOURS[at % len(COLOURS)]


def _text(study: str, number: int, values: NDArray[np.float64], objectives: Sequence[Any]) -> str:
    lines = [f"{heading(o)}: {v:.4g}" for o, v in zip(objectives[:MOST_TEXTS], values.tolist(), strict=False)]
    return "<br>".join([f"<b>{plain(study)} #{number}</b>", *lines])
