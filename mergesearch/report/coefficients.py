"""The coefficients of one merge as a picture for a paper: a heat map of layer groups by experts for each knob."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import SpecError
from mergesearch.report.figure import FAINT, FONT, INK, Axes, Figure, canvas, save
from mergesearch.report.heat import COLOURS, FLAT
from mergesearch.report.view import StudyView
from mergesearch.space import SearchSpace, Settings

UPRIGHT_UP_TO = 36
"""Groups that are rows, one below the other; more of them run from left to right, as data run through a model."""
MOST_BESIDE = 10
"""Columns of an upright picture, of all knobs: more of them would make its fonts too small."""
WIDTH = 7.2
"""Inches: two columns of a paper. Fonts stay above 6 points where it is shrunk to one."""
MOST_LABELS = 48
NUMBERS_UP_TO = 8
"""Experts (upright) or groups (lying) beside each other that have room for numbers in their cells."""


def coefficients_of(view: StudyView, number: int) -> tuple[Settings, SearchSpace]:
    """Knob -> (G, K) of a merge of the search, without the knobs that nothing was searched of.

    Raises:
        SpecError: a baseline, whose recipe is fixed, or a study that merges no layer groups.
    """
    settings, space = view.settings(number), view.space
    if settings is None or space is None or not space.slots:
        raise SpecError(
            f"candidate {number} has no coefficients of layer groups: it is a baseline, or the study merges nothing; "
            "name one of the search"
        )
    start = view.start()
    kept = {k: t for k, t in settings.items() if float(np.ptp(t)) > 0.0 or not np.array_equal(t, start[k])}
    return kept or settings, space


def plot_coefficients(view: StudyView, number: int, path: str | Path, title: str = "") -> Path:
    """Draw to a .png, .svg or .pdf file; see `coefficients_figure`."""
    return save(coefficients_figure(view, number, title), path)


def coefficients_figure(view: StudyView, number: int, title: str = "") -> Figure:
    """A panel for each knob, coloured by the distance from where the search started, in the knob's own units.

    Up to 36 groups of few experts are rows; more of them are columns. As many groups are named
    as there is room for.
    """
    tables, space = coefficients_of(view, number)
    start, groups, experts = view.start(), space.groups, space.experts
    upright = len(groups) <= UPRIGHT_UP_TO and len(tables) * len(experts) <= MOST_BESIDE
    figure = _canvas(len(tables), len(groups), len(experts), upright)
    shape = (1, len(tables)) if upright else (len(tables), 1)
    panels = figure.subplots(*shape, squeeze=False).ravel()
    within, groups = _within(groups)
    for at, (axes, (knob, table)) in enumerate(zip(panels, tables.items(), strict=True)):
        away = table - start[knob]
        _panel(figure, axes, table if upright else table.T, away if upright else away.T)
        rows, columns = (groups, experts) if upright else (experts, groups)
        last, first = upright or at == len(tables) - 1, not upright or at == 0
        _name(axes, rows, columns, f"layer group{within}", upright, last=last, first=first)
        axes.set_title(knob, color=INK, fontsize=FONT, loc="left")
    if title:
        figure.suptitle(title, color=INK, fontsize=FONT + 1, fontweight="bold", x=0.01, ha="left")
    return figure


def _canvas(knobs: int, groups: int, experts: int, upright: bool) -> Figure:
    if upright:
        return canvas(min(1.6 + knobs * (1.1 + 0.55 * max(experts, 2)), 14.0), 1.1 + 0.24 * max(groups, 3))
    return canvas(WIDTH, min(1.2 + knobs * (0.7 + 0.24 * max(experts, 2)), 14.0))


def _within(groups: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """' (within layers)' and the names without what all of them begin with, up to a dot; '' where that is nothing."""
    parts = [name.split(".") for name in groups]
    same = 0
    while all(len(part) > same + 1 for part in parts) and len({part[same] for part in parts}) == 1:
        same += 1
    where = f" (within {'.'.join(parts[0][:same])})" if same else ""
    return where, tuple(".".join(part[same:]) for part in parts)


def _panel(figure: Figure, axes: Axes, table: NDArray[np.float64], away: NDArray[np.float64]) -> None:
    from matplotlib.colors import Normalize

    reach = 1.15 * max(float(np.abs(away).max()), FLAT)
    image = axes.imshow(away, cmap=COLOURS, norm=Normalize(-reach, reach), aspect="auto", interpolation="nearest")
    for spine in axes.spines.values():
        spine.set_visible(False)
    if table.shape[1] <= NUMBERS_UP_TO:
        for (row, column), value in np.ndenumerate(table):
            red, green, blue, _ = image.to_rgba(away[row, column])
            dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
            style = {"fontsize": FONT - 2, "color": "#f6f8fa" if dark else "#1f2328"}
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", **style)
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=max(8, 3 * table.shape[0]), fraction=0.05)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=FONT - 2, color=FAINT, labelcolor=INK)
    bar.set_label("difference from the start", fontsize=FONT - 1, color=INK)


def _name(
    axes: Axes,
    rows: tuple[str, ...],
    columns: tuple[str, ...],
    of_groups: str,
    upright: bool,
    *,
    last: bool,
    first: bool,
) -> None:
    """Name rows and columns, every n-th where all of them have no room."""
    font = FONT - 1.5
    for axis, names, shown in ((axes.yaxis, rows, first), (axes.xaxis, columns, last)):
        step = -(-len(names) // MOST_LABELS)
        places = range(0, len(names), step)
        axis.set_ticks(list(places), [names[i] if shown else "" for i in places])
    slanted = upright and sum(map(len, columns)) > NUMBERS_UP_TO * len(columns)
    axes.tick_params(length=0, labelsize=font, labelcolor=INK)
    axes.tick_params(axis="x", rotation=30 if slanted else 0 if upright else 90)
    if slanted:
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")
    if last:
        axes.set_xlabel("expert" if upright else of_groups, color=INK, fontsize=FONT)
    if first:
        axes.set_ylabel(of_groups if upright else "expert", color=INK, fontsize=FONT)
