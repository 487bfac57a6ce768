"""How well the strategy's surrogate predicts scores it has not seen: R² of each objective."""

from collections.abc import Mapping

from mergesearch.report.charts import Chart
from mergesearch.report.charts.points import BLUE, GREY, ORANGE, plain
from mergesearch.report.view import StudyView

GOOD, FAIR = 0.8, 0.4


def qualities(view: StudyView) -> dict[str, float]:
    """Objective -> R² of the surrogate, those that the strategy reports."""
    known = {o.name for o in view.results.objectives}
    found = {key.partition(".")[2]: value for key, value in view.diagnostics.items() if key.startswith("r2.")}
    return {name: value for name, value in found.items() if name in known}


def figures(view: StudyView) -> dict[str, float]:
    """The strategy's other figures."""
    shown = {f"r2.{name}" for name in qualities(view)}
    return {key: value for key, value in sorted(view.diagnostics.items()) if key not in shown}


def fit(view: StudyView, _: Mapping[str, str]) -> Chart:
    """A bar for each objective; empty where the strategy has no surrogate."""
    found = qualities(view)
    layout = {"xaxis": {"title": {"text": "R²"}, "range": [min([0.0, *found.values()]), 1.0]}}
    if not found:
        return Chart([], layout, "This strategy reports no surrogate's fit.")
    colours = [BLUE if value >= GOOD else ORANGE if value >= FAIR else GREY for value in found.values()]
    bar = {
        "type": "bar",
        "orientation": "h",
        "x": [round(value, 4) for value in found.values()],
        "y": [plain(name) for name in found],
        "text": [f"{value:.2f}" for value in found.values()],
        "hovertemplate": "%{y}: R² %{x:.3f}<extra></extra>",
        "marker": {"color": colours},
        "showlegend": False,
    }
    said = ", ".join(f"{plain(name)} {value:.2f}" for name, value in found.items())
    return Chart([bar], layout, f"R² of the surrogate: {said}.")
