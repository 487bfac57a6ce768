"""The charts of a report as JSON for its script, and Plotly's own script, to be inlined: no page of it is fetched."""

import importlib.util
import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from mergesearch.errors import SpecError
from mergesearch.plugins import load
from mergesearch.report.charts import CHARTS, Chart, Drawn
from mergesearch.report.view import StudyView

MOST_PAIRS: Final = 10


def chart(view: StudyView, name: str, **options: str) -> Chart | None:
    """A chart of CHARTS; None where the study has nothing to draw in it."""
    draw: Drawn = load("chart", CHARTS, name)
    try:
        made = draw(view, options)
    except SpecError:
        return None
    return made if made.data else None


def fronts(view: StudyView) -> dict[str, Chart]:
    """'x against y' -> the front of these two objectives, for each pair, at most ten."""
    names = [o.name for o in view.results.objectives]
    found = {}
    for x, y in itertools.islice(itertools.combinations(names, 2), MOST_PAIRS):
        if (made := chart(view, "front", x=x, y=y)) is not None:
            found[f"{x} against {y}"] = made
    return found


def script_json(charts: Mapping[str, Mapping[str, Chart]]) -> str:
    """Figure -> (what its menu says -> chart) as JSON that may stand inside a `<script>` element."""
    body = {figure: {label: asdict(made) for label, made in of.items()} for figure, of in charts.items()}
    text = json.dumps(body, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def plotly_script() -> str:
    """Plotly's script from the installed package.

    Raises:
        SpecError: it is not there, or cannot stand inside a page.
    """
    spec = importlib.util.find_spec("plotly")  # importing it would take a second
    file = Path(spec.origin or "").parent / "package_data" / "plotly.min.js" if spec else Path("plotly.min.js")
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        raise SpecError("plotly is not installed whole: its plotly.min.js is missing; use --static") from None
    if "</script" in text.lower() or "<!--" in text:
        raise SpecError("the installed plotly.min.js cannot stand inside a page; use --static")
    return text
