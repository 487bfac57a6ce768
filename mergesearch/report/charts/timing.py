"""Where the seconds of a study's evaluations went."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mergesearch.report.charts import Chart
from mergesearch.report.charts.points import BLUE, GREEN, GREY, ORANGE
from mergesearch.report.estimate import duration
from mergesearch.report.view import StudyView
from mergesearch.types import Split

PARTS: Final = {
    "queue": ("waiting for a worker", GREY),
    "build": ("building the merge", ORANGE),
    "score": ("scoring it", BLUE),
    "record": ("writing it down", GREEN),
}
"""Part of an evaluation -> (what it is, colour)."""


@dataclass(frozen=True)
class Part:
    """Seconds spent on one part by all scored evaluations of all splits; `share` of all parts' total."""

    name: str
    total: float
    median: float
    p95: float
    share: float


def parts(view: StudyView) -> tuple[Part, ...]:
    """The parts of the evaluations' time; empty while nothing is scored."""
    seconds = _seconds(view)
    if len(seconds) == 0:
        return ()
    totals = seconds.sum(axis=0)
    whole = float(totals.sum()) or 1.0
    medians, tails = np.quantile(seconds, [0.5, 0.95], axis=0)
    return tuple(
        Part(name, float(totals[i]), float(medians[i]), float(tails[i]), float(totals[i]) / whole)
        for i, name in enumerate(PARTS)
    )


def timing(view: StudyView, _: Mapping[str, str]) -> Chart:
    """One bar, split into waiting, building, scoring and recording."""
    found = parts(view)
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": PARTS[part.name][0],
            "x": [round(100.0 * part.share, 3)],
            "y": ["time"],
            "text": [f"{part.name} {part.share:.0%}" if part.share > 0.06 else ""],
            "textposition": "inside",
            "insidetextanchor": "middle",
            "insidetextfont": {"color": "#ffffff" if part.name in ("score", "record") else "#1f2328"},
            "hovertemplate": f"{PARTS[part.name][0]}: {duration(part.total)} in all, median {duration(part.median)}"
            "<extra></extra>",
            "marker": {"color": PARTS[part.name][1]},
        }
        for part in found
    ]
    layout = {
        "barmode": "stack",
        "xaxis": {"visible": False, "range": [0, 100], "fixedrange": True},
        "yaxis": {"visible": False, "fixedrange": True},
        "showlegend": False,
        "margin": {"l": 0, "r": 0, "t": 4, "b": 4},
    }
    if not found:
        return Chart([], layout, "No evaluation has been scored yet.")
    shares = ", ".join(f"{PARTS[p.name][0]} {p.share:.1%}" for p in found)
    return Chart(data, layout, f"Of the evaluations' seconds: {shares}.")


def _seconds(view: StudyView) -> NDArray[np.float64]:
    columns = [view.results.columns(split).timing[:, : len(PARTS)] for split in Split]
    return np.concatenate(columns)
