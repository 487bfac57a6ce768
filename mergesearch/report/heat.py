"""The coefficients of one merge as a heat map, layer groups by experts, coloured by how far they are from the start."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import SpecError
from mergesearch.report.figure import FAINT, FONT, INK, Figure, canvas, save

COLOURS = "PuOr_r"
"""Purple below the start, orange above: told apart with any colour vision."""
MOST_NUMBERS = 400
FLAT = 1e-9


def plot_heatmap(
    table: NDArray[np.float64],
    groups: Sequence[str],
    experts: Sequence[str],
    path: str | Path,
    start: NDArray[np.float64] | float = 0.0,
    title: str = "",
) -> Path:
    """Draw coefficients to a .png or .svg file; see `heatmap_figure`."""
    return save(heatmap_figure(table, groups, experts, start, title), path)


def heatmap_figure(
    table: NDArray[np.float64],
    groups: Sequence[str],
    experts: Sequence[str],
    start: NDArray[np.float64] | float = 0.0,
    title: str = "",
) -> Figure:
    """Coefficients (G, K), one row for each layer group; white is where the search started, (G, K) or one number.

    Raises:
        SpecError: the table does not have one row for each group and one column for each expert.
    """
    if table.shape != (len(groups), len(experts)) or table.size == 0:
        raise SpecError(
            f"a heat map of {len(groups)} groups and {len(experts)} experts cannot show {table.shape} numbers"
        )
    from matplotlib.colors import Normalize

    away = table - np.broadcast_to(start, table.shape)
    reach = 1.15 * max(float(np.abs(away).max()), FLAT)
    figure = canvas(min(2.4 + 0.78 * len(experts), 12.0), min(1.3 + 0.27 * len(groups), 16.0))
    axes = figure.subplots()
    image = axes.imshow(away, cmap=COLOURS, norm=Normalize(-reach, reach), aspect="auto", interpolation="nearest")
    font = FONT - 1 if len(groups) <= 60 else FONT - 4
    axes.set_xticks(range(len(experts)), experts, rotation=30 if len(experts) > 4 else 0, fontsize=font, color=INK)
    axes.set_yticks(range(len(groups)), groups, fontsize=font, color=INK)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if table.size <= MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(table):
            red, green, blue, _ = image.to_rgba(away[row, column])
            dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
            style = {"fontsize": font - 0.5, "color": "#f6f8fa" if dark else "#1f2328"}
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", **style)
    bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02, aspect=22)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=font - 1, color=FAINT, labelcolor=INK)
    bar.set_label("from the start", fontsize=font, color=INK)
    axes.set_title(title, color=INK, fontsize=FONT + 1, loc="left", fontweight="bold")
    return figure
