"""The coefficients of one candidate as heat maps, experts by layer groups, coloured by how far they are from the start.

Layer groups run from left to right, as data run through a model: hundreds of them stay readable, and experts, which are
few, are the rows. One panel for each knob that is searched.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import SpecError
from mergesearch.plugins import did_you_mean
from mergesearch.report.charts import Chart
from mergesearch.report.charts.points import plain
from mergesearch.report.view import StudyView
from mergesearch.space import KnobSlots, SearchSpace

COLOURS = [
    [0.0, "#542788"],
    [0.25, "#998ec3"],
    [0.5, "#f7f7f7"],
    [0.75, "#f1a340"],
    [1.0, "#b35806"],
]
"""Purple below the start, orange above (ColorBrewer's PuOr): told apart with any colour vision."""
NUMBERS_UP_TO = 16
"""Groups up to which the values are written into the cells."""
ROW, FOOT, LEAST = 34, 96, 190
"""Pixels of an expert's row, of what stands under a panel, of the least panel."""
FLAT = 1e-9


def heat(view: StudyView, options: Mapping[str, str]) -> Chart:
    """Options: 'candidate', its number; 'knob', one of the searched ones, else all of them, one under the other.

    Raises:
        SpecError: no such candidate or knob, or a candidate without coefficients.
    """
    number = candidate_of(view, options)
    settings = view.settings(number)
    if not settings or view.space is None:
        raise SpecError(f"candidate {number} has no coefficients of layer groups to draw; pick one of the search")
    knobs = chosen_knobs(view, options.get("knob", ""))
    panels = [panel(view.space, slot, settings[slot.knob], view.start()[slot.knob]) for slot in _slots(view, knobs)]
    heights = [panel_height(len(one.rows)) for one in panels]
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"height": sum(heights), "margin": {"l": 8, "r": 8, "t": 34, "b": 8}, "annotations": []}
    top = 1.0
    for at, (one, height) in enumerate(zip(panels, heights, strict=True)):
        suffix, share = "" if at == 0 else str(at + 1), height / sum(heights)
        # One panel fills its chart, whose margins make room for labels; of several each keeps its own below it.
        domain = [0.0, 1.0] if len(panels) == 1 else [top - share * (1.0 - FOOT / height), top]
        data.append(_trace(one, suffix, domain, height - FOOT))
        layout[f"xaxis{suffix}"] = _groups_axis(one.columns, suffix)
        layout[f"yaxis{suffix}"] = {"type": "category", "autorange": "reversed", "domain": domain, "showgrid": False}
        if len(panels) > 1:
            layout["annotations"].append(_title(one.knob, top))
        top -= share
    sentences = " ".join(_summary(one) for one in panels)
    return Chart(data, layout, f"Heat map of candidate {number}. {sentences}")


@dataclass(frozen=True, eq=False)
class Panel:
    """One knob's cells: `values` and `start` (rows, columns), of experts by layer groups. A knob that is one number for
    all experts has one row, one that is the same in all layer groups one column."""

    knob: str
    rows: list[str]
    columns: list[str]
    values: NDArray[np.float64]
    start: NDArray[np.float64]


def panel(space: SearchSpace, slot: KnobSlots, values: NDArray[np.float64], start: NDArray[np.float64]) -> Panel:
    """What to draw of a knob with `values` and `start` (G, K)."""
    rows, columns = list(space.experts), list(space.groups)
    same = [np.where(slot.axis >= 0, slot.axis, -1), slot.value * (slot.axis < 0)]
    if len(rows) > 1 and all((table == table[:, :1]).all() for table in same):
        rows, values, start = ["all experts"], values[:, :1], start[:, :1]
    if len(columns) > 1 and all((table == table[:1]).all() for table in same):
        columns, values, start = ["all layer groups"], values[:1], start[:1]
    return Panel(slot.knob, rows, columns, values.T, start.T)


def heights(view: StudyView) -> dict[str, int]:
    """Knob -> pixels of its panel alone."""
    if view.space is None:
        return {}
    start = view.start()
    return {
        slot.knob: panel_height(len(panel(view.space, slot, start[slot.knob], start[slot.knob]).rows))
        for slot in _slots(view, searched_knobs(view))
    }


def panel_height(rows: int) -> int:
    """Pixels of one panel."""
    return max(LEAST, ROW * rows + FOOT)


def candidate_of(view: StudyView, options: Mapping[str, str]) -> int:
    """The option 'candidate'. Raises SpecError where it is missing or there is no such candidate."""
    text = options.get("candidate", "")
    if not text.isdecimal() or len(text) > 12 or int(text) not in view.results.candidates:
        raise SpecError(
            f"study {view.record.name!r} has no candidate {text[:20]!r}; "
            f"it has {len(view.results.candidates)}, numbered from 0"
        )
    return int(text)


def searched_knobs(view: StudyView) -> list[str]:
    """Knobs of which at least one cell is an axis of the search."""
    slots: tuple[KnobSlots, ...] = () if view.space is None else view.space.slots
    return [slot.knob for slot in slots if bool((slot.axis >= 0).any())]


def chosen_knobs(view: StudyView, named: str) -> list[str]:
    """The knob that is `named`, all searched ones for ''. Raises SpecError for another."""
    known = searched_knobs(view)
    if named and named not in known:
        raise SpecError(f"knob {named!r} is not searched in this study{did_you_mean(named, known)}")
    return [named] if named else known


def _slots(view: StudyView, knobs: list[str]) -> list[KnobSlots]:
    slots: tuple[KnobSlots, ...] = () if view.space is None else view.space.slots
    return [slot for slot in slots if slot.knob in knobs]


def _trace(one: Panel, suffix: str, domain: list[float], pixels: int) -> dict[str, Any]:
    away = one.values - one.start
    reach = max(float(np.abs(away).max()), FLAT)
    few = len(one.columns) <= NUMBERS_UP_TO
    knob = plain(one.knob)
    return {
        "type": "heatmap",
        "name": knob,
        "x": [plain(group) for group in one.columns],
        "y": [plain(expert) for expert in one.rows],
        "z": np.round(away, 6).tolist(),
        "customdata": np.round(np.stack([one.values, one.start], axis=2), 6).tolist(),
        **({"text": [[f"{v:.2f}" for v in row] for row in one.values], "texttemplate": "%{text}"} if few else {}),
        "hovertemplate": f"<b>%{{customdata[0]:.4f}}</b> {knob} of %{{y}} in %{{x}}<br>"
        "start %{customdata[1]:.4f}, %{z:+.4f} from it<extra></extra>",
        "colorscale": COLOURS,
        "zmin": -reach,
        "zmax": reach,
        "xgap": 1 if len(one.columns) <= 150 else 0,
        "ygap": 1,
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "colorbar": {
            "thickness": 12,
            "lenmode": "pixels",
            "len": max(LEAST - 60, pixels),
            "y": domain[1],
            "yanchor": "top",
            "tickvals": [-reach, 0.0, reach],
            "ticktext": [f"{-reach:+.2g}", "start", f"{reach:+.2g}"],
        },
    }


def _groups_axis(groups: list[str], suffix: str) -> dict[str, Any]:
    axis: dict[str, Any] = {"type": "category", "showgrid": False, "anchor": f"y{suffix}", "tickangle": "auto"}
    if len(groups) > 40:
        axis |= {"nticks": 24, "tickangle": 90}
    axis["tickfont"] = {"size": 11}
    return axis


def _title(knob: str, top: float) -> dict[str, Any]:
    return {
        "text": f"<b>{plain(knob)}</b>",
        "xref": "paper",
        "yref": "paper",
        "x": 0,
        "y": top,
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
    }


def _summary(one: Panel) -> str:
    """The range, and the cell that is furthest from the start."""
    away = np.abs(one.values - one.start)
    row, column = np.unravel_index(int(np.argmax(away)), away.shape)
    return (
        f"{one.knob}: {len(one.columns)} columns of layer groups and {len(one.rows)} rows of experts, values from "
        f"{one.values.min():.3g} to {one.values.max():.3g}; furthest from the start is {one.rows[row]} in "
        f"{one.columns[column]} with {one.values[row, column]:.3g}."
    )
