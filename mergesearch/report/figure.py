"""What every picture shares: the palette, a canvas without global state, writing PNG, SVG and PDF.

matplotlib is imported where it is used, so that commands which draw nothing start fast. Colours are those of Okabe and
Ito ("Color Universal Design", 2008), told apart with any colour vision; marks differ in shape as well.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mergesearch.errors import SpecError

Figure: TypeAlias = Any
"""matplotlib.figure.Figure"""
Axes: TypeAlias = Any
"""matplotlib.axes.Axes"""

INK, FAINT, GRID, PAGE = "#24292f", "#8c959f", "#d8dee4", "#ffffff"
BLUE, ORANGE, GREEN, PURPLE, RED = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00"
FONT = 10.0
DPI = 190
SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Mark:
    """How a kind of merge is drawn: matplotlib's marker, colour and area in points²."""

    shape: str
    colour: str
    size: float


MARKS = {
    "base": Mark("s", INK, 52),
    "expert": Mark("^", PURPLE, 64),
    "uniform": Mark("D", GREEN, 48),
    "lambda": Mark("P", ORANGE, 74),
    "searched": Mark("*", RED, 190),
    "front": Mark("o", BLUE, 30),
    "other": Mark("o", FAINT, 12),
}


def canvas(width: float, height: float) -> Figure:
    """An empty figure, inches, with an Agg canvas of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MatplotlibFigure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = MatplotlibFigure(figsize=(width, height), dpi=DPI, facecolor=PAGE, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, xlabel: str = "", ylabel: str = "", font: float = FONT) -> None:
    """Quiet axes: a light grid, no frame on top and right."""
    axes.set_facecolor(PAGE)
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=font - 1, length=3, color=FAINT)
    axes.set_xlabel(xlabel, color=INK, fontsize=font)
    axes.set_ylabel(ylabel, color=INK, fontsize=font)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, SVG or PDF, by the path's ending; missing folders are made.

    Raises:
        SpecError: another ending.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise SpecError(f"cannot draw {target.name!r}: a picture ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix.lower() == ".svg":
        target.write_text(svg(figure, target.stem), encoding="utf-8")
    elif target.suffix.lower() == ".pdf":
        import matplotlib

        with matplotlib.rc_context({"pdf.fonttype": 42}):  # TrueType: text that one can select, and journals take
            figure.savefig(target, format="pdf", facecolor=PAGE, metadata={"CreationDate": None})
    else:
        figure.savefig(target, format="png", dpi=DPI, facecolor=PAGE)
    return target


def svg(figure: Figure, salt: str) -> str:
    """A figure as SVG text; the same figure and salt give the same text, and other salts other ids inside."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def themed_svg(figure: Figure, name: str, title: str) -> str:
    """A figure as an `<svg>` element for a page, light or dark, whose CSS sets --ink, --faint, --grid, --page, --blue.

    `name` is unique on the page, `title` is read by screen readers and must hold no markup.
    """
    text = svg(figure, name)
    text = text[text.index("<svg") :]
    for colour, variable in ((INK, "--ink"), (FAINT, "--faint"), (GRID, "--grid"), (PAGE, "--page"), (BLUE, "--blue")):
        text = text.replace(colour, f"var({variable})")
    # Width and height come from CSS; the viewBox keeps the shape.
    head, _, rest = text.partition(">")
    kept = [part for part in head.split(" ") if not part.startswith(("width=", "height="))]
    return " ".join(kept) + f' role="img" aria-label="{title}">' + rest
