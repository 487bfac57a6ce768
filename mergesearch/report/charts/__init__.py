"""Interactive charts as plain JSON values that Plotly draws, the same in the web pages and in the report.

One chart per file: a function (view, options) -> Chart, `options` as texts, such as a page's query. A new chart is a
new file and a line in CHARTS. Nothing here imports Plotly.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mergesearch.report.view import StudyView


@dataclass(frozen=True)
class Chart:
    """`data` and `layout` as Plotly takes them, JSON values only. Colours of text, grid and page are left to the page,
    which knows whether it is light or dark. `summary` says in a sentence what is to be seen, for those who cannot.

    A trace's `customdata` holds the candidate's number of each point, where a click shall open it.
    """

    data: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    summary: str = ""


Drawn: TypeAlias = Callable[[StudyView, Mapping[str, str]], Chart]
"""A chart of one study. Raises SpecError for an option that cannot be."""

CHARTS = {
    "front": "mergesearch.report.charts.front:front",
    "convergence": "mergesearch.report.charts.curves:convergence",
    "hypervolume": "mergesearch.report.charts.curves:hypervolume",
    "parallel": "mergesearch.report.charts.parallel:parallel",
    "timing": "mergesearch.report.charts.timing:timing",
    "fit": "mergesearch.report.charts.fit:fit",
    "heat": "mergesearch.report.charts.heat:heat",
    "differences": "mergesearch.report.charts.differences:differences",
}
"""Chart -> 'module:function'. 'heat' and 'differences' take the option 'candidate'."""
