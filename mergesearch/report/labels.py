"""Places text labels beside marks so that they cover neither each other nor the marks."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergesearch.report.figure import FAINT, INK, PAGE, Axes

RADII = (9.0, 16.0, 26.0, 40.0, 58.0)
ANGLES = tuple(range(0, 360, 30))


@dataclass(frozen=True)
class Label:
    """Text for the mark at data coordinates (x, y)."""

    x: float
    y: float
    text: str
    bold: bool = False


def place(axes: Axes, labels: list[Label], marks: NDArray[np.float64], font: float) -> None:
    """Draw labels, the first ones first, each where it covers least.

    `marks` (n, 2) are data coordinates that should stay visible; the limits of `axes` must be final. Distances are
    in points; a label far from its mark gets a thin line to it.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # the layout must be known before pixels mean anything
    renderer = figure.canvas.get_renderer()
    scale = figure.dpi / 72.0
    frame = axes.get_window_extent(renderer).padded(-2.0 * scale)
    pixels = axes.transData.transform(marks) if len(marks) else np.zeros((0, 2))
    taken: list[NDArray[np.float64]] = []
    for label in labels:
        style = {"fontsize": font, "color": INK, "fontweight": "bold" if label.bold else "normal"}
        probe = axes.text(0, 0, label.text, **style)
        box = probe.get_window_extent(renderer)
        probe.remove()
        size = np.array([box.width, box.height])
        anchor = axes.transData.transform((label.x, label.y))
        corner, radius = _best_corner(anchor, size, scale, frame, pixels, taken)
        taken.append(np.concatenate([corner, corner + size]))
        _draw(axes, label, (corner - anchor) / scale, size / scale, radius, style)


def _best_corner(
    anchor: NDArray[np.float64],
    size: NDArray[np.float64],
    scale: float,
    frame: object,
    pixels: NDArray[np.float64],
    taken: list[NDArray[np.float64]],
) -> tuple[NDArray[np.float64], float]:
    """Lower left corner in pixels of the cheapest place, and its distance from the mark in points."""
    best, cheapest, distance = anchor, math.inf, RADII[0]
    bounds = np.array([frame.x0, frame.y0, frame.x1, frame.y1])  # type: ignore[attr-defined]
    for radius in RADII:
        for angle in ANGLES:
            way = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
            centre = anchor + way * (radius * scale + np.abs(way) * size / 2.0)
            corner = centre - size / 2.0
            box = np.concatenate([corner, corner + size])
            cost = 0.15 * radius + _cost(box, bounds, pixels, taken, scale)
            if cost < cheapest - 1e-9:
                best, cheapest, distance = corner, cost, radius
    return best, distance


def _cost(
    box: NDArray[np.float64],
    bounds: NDArray[np.float64],
    pixels: NDArray[np.float64],
    taken: list[NDArray[np.float64]],
    scale: float,
) -> float:
    """0 for a free place: outside the frame costs most, then other labels, then marks."""
    outside = np.maximum(bounds[:2] - box[:2], 0).sum() + np.maximum(box[2:] - bounds[2:], 0).sum()
    cost = 1000.0 * float(outside > 0) + float(outside)
    for other in taken:
        overlap = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
        cost += 500.0 * float(np.all(overlap > 0))
    pad = 4.0 * scale
    inside = np.all((pixels > box[:2] - pad) & (pixels < box[2:] + pad), axis=1)
    return cost + 4.0 * float(inside.sum())


def _draw(
    axes: Axes,
    label: Label,
    offset: NDArray[np.float64],
    size: NDArray[np.float64],
    radius: float,
    style: dict[str, object],
) -> None:
    from matplotlib.patheffects import withStroke

    centre = offset + size / 2.0
    line = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "shrinkA": 1.0, "shrinkB": 4.0}
    text = axes.annotate(
        label.text,
        (label.x, label.y),
        xytext=tuple(centre),
        textcoords="offset points",
        ha="center",
        va="center",
        arrowprops=line if radius > RADII[1] else None,
        zorder=9,
        **style,
    )
    text.set_path_effects([withStroke(linewidth=2.2, foreground=PAGE)])
    text.set_in_layout(False)
