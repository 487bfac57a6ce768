"""Curves of the benchmark: median over seeds with the range behind it, cost on x. Colours are Okabe and Ito's."""

import zlib
from pathlib import Path

import matplotlib as mpl
import numpy as np
from search_tables import Row, Runs, figure_of, is_ours, is_real, methods_of, shown, values

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

FAMILIAR = (
    "auto+gradients",
    "auto",
    "gradient_map+gradients",
    "quadratic",
    "cma_es",
    "nsga2",
    "map",
    "qlog_nehvi",
    "gp",
)
PEER_ORDER = ("pycma_mean", "pymoo_nsga2", "optuna_tpe", "lambda", "random", "optuna_nsga2", "pymoo_nsga3")
PEER_ORDER += ("nevergrad_de", "nevergrad_ngopt", "pycma", "optuna_cmaes", "optuna_gp")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = "osD^vPX"
LIMIT = 5  # methods of each side in one picture
LABELS = {
    "hv_search": "hypervolume on search, % of the unit cube",
    "hv_test": "hypervolume on test, % of the unit cube",
    "mean_test": "mean test accuracy of the chosen merge, %",
    "hv": "share of the true hypervolume",
    "chosen": "true loss of the chosen point",
}


def draw(runs: Runs, folder: Path) -> list[Path]:
    """Write one picture for each real merge and one of all black boxes; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    problems = sorted({problem for problem, _ in runs})
    with mpl.rc_context(
        {"svg.hashsalt": "mergesearch", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False}
    ):
        for problem in filter(is_real, problems):
            paths.append(_real(runs, problem, folder / f"search-{problem}.svg"))
        boxes = [problem for problem in problems if not is_real(problem)]
        if boxes:
            paths.append(_black_boxes(runs, boxes, folder / "search-black-boxes.svg"))
    return paths


def selected(runs: Runs, problem: str) -> list[str]:
    """The best few of ours and the best few peers."""
    methods = methods_of(runs, problem)
    return [m for side in (True, False) for m in [m for m in methods if is_ours(m) is side][:LIMIT]]


def _real(runs: Runs, problem: str, path: Path) -> Path:
    figure, panels = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    methods = selected(runs, problem)
    for panel, name in zip(panels, ("hv_search", "hv_test", "mean_test"), strict=True):
        for method in methods:
            _curve(panel, runs[problem, method], name, method, _style(method), 100.0)
        panel.set_ylabel(LABELS[name])
        _axis(panel)
    figure.suptitle(problem)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return _saved(figure, path)


def _black_boxes(runs: Runs, problems: list[str], path: Path) -> Path:
    wide = 3
    deep = -(-len(problems) // wide)
    figure, panels = plt.subplots(deep, wide, figsize=(12, 3.1 * deep), layout="constrained", squeeze=False)
    named: dict[str, object] = {}
    for panel, problem in zip(panels.flat, problems, strict=False):
        for method in selected(runs, problem):
            _curve(panel, runs[problem, method], figure_of(problem), method, _style(method), 1.0)
        panel.set_title(problem)
        panel.set_ylabel(LABELS[figure_of(problem)])
        if figure_of(problem) == "chosen":
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            panel.yaxis.set_major_formatter("{x:g}")
        _axis(panel)
        named |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    for panel in panels.flat[len(problems) :]:
        panel.set_visible(False)
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=5, frameon=False)
    return _saved(figure, path)


def _style(method: str) -> dict[str, object]:
    """The same in every picture: ours full lines, peers dashed; no two methods share colour, marker and line."""
    name = method.split("@")[0].removeprefix("ours/").split(":")[0]
    order = FAMILIAR if is_ours(method) else PEER_ORDER
    index = order.index(name) if name in order else len(order) + zlib.crc32(name.encode()) % 20
    marker = MARKERS[(index + 3 * (not is_ours(method))) % len(MARKERS)]
    line = ("-" if is_ours(method) else "--") if method.count("@") == 0 else ":"
    return {"color": COLOURS[index % len(COLOURS)], "marker": marker, "ls": line}


def _curve(panel: Axes, rows: list[Row], name: str, method: str, style: dict[str, object], scale: float) -> None:
    costs = sorted({f["cost"] for row in rows for f in row["figures"] if name in f})
    found = [[scale * v for v in values(rows, name, cost)] for cost in costs]
    if not costs:
        return
    panel.plot(costs, [np.median(v) for v in found], label=shown(method), ms=4, lw=1.4, **style)  # type: ignore[arg-type]
    panel.fill_between(
        costs, [min(v) for v in found], [max(v) for v in found], color=str(style["color"]), alpha=0.12, lw=0
    )


def _axis(panel: Axes) -> None:
    panel.set_xscale("log")
    panel.set_xlabel("cost, evaluations of all search examples")
    panel.set_xticks([30, 100, 300, 1000], ["30", "100", "300", "1,000"])
    panel.minorticks_off()


def _saved(figure: plt.Figure, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
