"""How a search went: best weighted score and hypervolume over what it cost."""

from pathlib import Path

import numpy as np

from mergesearch import pareto
from mergesearch.report.estimate import Unit, mean_sign, mean_unit
from mergesearch.report.figure import BLUE, FONT, INK, MARKS, Axes, Figure, canvas, dress, save
from mergesearch.results import BASE, MARGIN, UNIFORM, Results
from mergesearch.types import Vector

SHOWN_PERCENT = 10.0
"""The worst tenth of the evaluations does not stretch the axis."""


def plot_convergence(results: Results, path: str | Path, title: str = "") -> Path:
    """Draw the curves to a .png or .svg file; see `convergence_figure`."""
    return save(convergence_figure(results, title), path)


def convergence_figure(results: Results, title: str = "") -> Figure:
    """Best weighted mean on the search split so far; below it, where it is known, the front's normalised hypervolume.

    The baselines' levels are drawn across. An empty study gives empty axes.
    """
    volumes = hypervolumes(results)
    figure = canvas(5.2, 4.3 if volumes is not None else 3.0)
    rows = figure.subplots(1 if volumes is None else 2, 1, sharex=True, squeeze=False)[:, 0]
    _best(rows[0], results)
    rows[0].set_title(title, color=INK, fontsize=FONT + 1, loc="left", fontweight="bold")
    if volumes is not None:
        rows[1].step(results.costs, volumes, where="post", color=BLUE, linewidth=1.8)
        rows[1].set_ylim(0.0, 1.08 * float(volumes.max()) or 1.0)
        dress(rows[1], ylabel="hypervolume")
    whole = all(cost == i for i, cost in enumerate(results.costs, start=1))
    rows[-1].set_xlabel("evaluations" if whole else "cost, in evaluations", color=INK, fontsize=FONT)
    figure.align_ylabels(rows)
    return figure


def weighted_scores(results: Results) -> Vector:
    """Weighted mean (n,) of every scored candidate of the search, in order; see `mean_sign` for its direction."""
    losses = [results.weighted(n) for n in results.scored]
    return mean_sign(results.objectives) * np.array(losses, dtype=np.float64)


def best_so_far(results: Results) -> Vector:
    """Best of `weighted_scores` up to each evaluation (n,)."""
    sign = mean_sign(results.objectives)
    return np.asarray(sign * np.minimum.accumulate(sign * weighted_scores(results)), dtype=np.float64)


def hypervolumes(results: Results) -> Vector | None:
    """Normalised hypervolume (n,) after each scored candidate of the search; None without baselines, for a single
    objective, and above the objectives it is exact for."""
    normalisation = results.normalisation()
    if normalisation is None or not results.scored or not 2 <= len(results.objectives) <= pareto.EXACT_UP_TO:
        return None
    tracker = pareto.HypervolumeTracker(np.full(len(results.objectives), MARGIN))
    values = []
    for number in results.scored:
        losses = results.losses(number)
        assert losses is not None
        tracker = tracker.add(normalisation.scaled(losses))
        values.append(tracker.value)
    return np.array(values)


def _best(axes: Axes, results: Results) -> None:
    unit = mean_unit(results.objectives)
    factor = 100.0 if unit.percent else 1.0
    sign, values, best = mean_sign(results.objectives), weighted_scores(results) * factor, best_so_far(results) * factor
    other = MARKS["other"]
    axes.scatter(results.costs, values, s=other.size, c=other.colour, alpha=0.6, linewidths=0, zorder=2)
    axes.step(results.costs, best, where="post", color=BLUE, linewidth=1.8, zorder=4)
    arrow = "↓" if sign > 0 else "↑"
    dress(axes, ylabel=f"{'mean' if len(results.objectives) > 1 else results.objectives[0].name}{unit.suffix} {arrow}")
    levels = _levels(results, factor)
    shown = [level for _, level in levels]
    if len(values):
        losses = sign * values
        kept = values[losses <= np.percentile(losses, 100.0 - SHOWN_PERCENT)]
        shown += [*kept.tolist(), *best.tolist()]
    if shown:
        span = max(shown) - min(shown) or abs(shown[0]) * 0.1 or 1.0
        axes.set_ylim(min(shown) - 0.06 * span, max(shown) + 0.06 * span)
    _level_lines(axes, levels, unit)


def _levels(results: Results, factor: float) -> list[tuple[str, float]]:
    """Kind and height of the base, the uniform average and the best λ, those that are scored."""
    found = []
    for kind, number in (
        ("base", results.by_origin(BASE)),
        ("uniform", results.by_origin(UNIFORM)),
        ("lambda", results.best_lambda()),
    ):
        loss = None if number is None else results.weighted(number)
        if loss is not None:
            found.append((kind, mean_sign(results.objectives) * loss * factor))
    return found


def _level_lines(axes: Axes, levels: list[tuple[str, float]], unit: Unit) -> None:
    texts = {"base": "base", "uniform": "uniform average", "lambda": "best λ"}
    styles = {"base": ":", "uniform": "--", "lambda": "-."}
    handles = [
        axes.axhline(
            height,
            color=MARKS[kind].colour,
            linestyle=styles[kind],
            linewidth=1.5,
            zorder=3,
            label=f"{texts[kind]} {height:.1f}" if unit.percent else f"{texts[kind]} {height:.4g}",
        )
        for kind, height in levels
    ]
    if handles:
        axes.figure.legend(
            handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=FONT - 1, labelcolor=INK
        )
