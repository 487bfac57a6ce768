"""Two objectives as a scatter plot made of characters."""

import numpy as np
from rich.text import Text

from mergesearch.report.estimate import Unit, better, unit_of
from mergesearch.results import BASE, UNIFORM, Results

WIDTH, HEIGHT = 58, 14
SIGNS = {
    "dominated": ("·", "dim"),
    "front": ("●", "blue"),
    "base": ("B", "bold"),
    "uniform": ("U", "bold green"),
    "lambda": ("λ", "bold yellow"),
    "searched": ("★", "bold red"),
}


def scatter(results: Results, searched: int | None, x: int = 0, y: int = 1) -> Text:
    """The search split's scores of two objectives (indices), better to the upper right, 14 lines of 58 columns.

    Later kinds of `SIGNS` cover earlier ones where they share a cell.
    """
    objectives = (results.objectives[x], results.objectives[y])
    kinds = _kinds(results, searched)
    if not kinds:
        return Text("No evaluation has been scored yet.", style="dim")
    numbers = list(kinds)
    losses = np.array([results.losses(number) for number in numbers])[:, [x, y]]
    low, high = losses.min(axis=0), losses.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    places = np.rint((high - losses) / span * [WIDTH - 1, HEIGHT - 1]).astype(int)
    cells = [[(" ", "")] * WIDTH for _ in range(HEIGHT)]
    order = list(SIGNS)
    for at in sorted(range(len(numbers)), key=lambda i: order.index(kinds[numbers[i]])):
        cells[HEIGHT - 1 - places[at, 1]][places[at, 0]] = SIGNS[kinds[numbers[at]]]
    ends = [[o.score(float(loss)) for loss in (low[i], high[i])] for i, o in enumerate(objectives)]
    units = [unit_of(o) for o in objectives]
    text = Text(f"{objectives[1].name}{units[1].suffix} {better(objectives[1])}\n", style="bold")
    for row, line in enumerate(cells):
        label = {0: units[1].number(ends[1][0]), HEIGHT - 1: units[1].number(ends[1][1])}.get(row, "")
        text.append(f"{label:>8} ", "not bold dim").append("│", "not bold dim")
        for sign, style in line:
            text.append(sign, f"not bold {style}" if "bold" not in style else style)
        text.append("\n")
    text.append(f"{'':9}└{'─' * WIDTH}\n", "not bold dim")
    text.append(_axis(units[0], ends[0], f"{objectives[0].name}{units[0].suffix} {better(objectives[0])}"), "not bold")
    return text.append("\n").append_text(_key(set(kinds.values())))


def _kinds(results: Results, searched: int | None) -> dict[int, str]:
    front = set(results.front)
    kinds = {number: "front" if number in front else "dominated" for number in results.scored}
    named = {"base": results.by_origin(BASE), "uniform": results.by_origin(UNIFORM), "lambda": results.best_lambda()}
    named["searched"] = searched
    kinds |= {n: kind for kind, n in named.items() if n is not None and results.outcome(n) is not None}
    return kinds


def _axis(unit: Unit, ends: list[float], name: str) -> str:
    left, right = unit.number(ends[1]), unit.number(ends[0])
    return f"{'':10}{left}{name:^{WIDTH - len(left) - len(right)}}{right}"


def _key(kinds: set[str]) -> Text:
    words = {"lambda": "best λ"}
    text = Text(" " * 10)
    for kind, (sign, style) in SIGNS.items():
        if kind in kinds:
            text.append(sign, style).append(f" {words.get(kind, kind)}  ", "dim")
    return text
