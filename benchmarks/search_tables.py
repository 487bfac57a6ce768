"""The benchmark's numbers as Markdown, from its lines alone: medians over seeds, least and greatest behind them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Row = dict[str, Any]
Runs = Mapping[tuple[str, str], list[Row]]


def by_run(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Lines of each (problem, method), the seeds together. Runs planned for less than the method's greatest budget on
    that problem come under '<method>@<budget>'."""
    rows = list(rows)
    most: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        pair = row["problem"], row["method"]
        most[pair] = max(most[pair], row["budget"])
    found = defaultdict(list)
    for row in rows:
        pair = row["problem"], row["method"]
        short = "" if row["budget"] == most[pair] else f"@{row['budget']}"
        found[row["problem"], row["method"] + short].append(row)
    return dict(found)


def is_real(problem: str) -> bool:
    """Whether the problem is a real merge."""
    return problem.count("-") == 2


def is_ours(method: str) -> bool:
    """Whether the method is one of mergesearch."""
    return method.startswith("ours/")


def shown(method: str) -> str:
    """A method's name for people."""
    method, _, budget = method.partition("@")
    if budget:
        return f"{shown(method)}, planned for {budget}"
    if is_ours(method):
        return method.removeprefix("ours/").replace("+gradients", " with gradients")
    name, begin = method.split(":")
    return name if begin == "start" else f"{name}, cold"


def figure_of(problem: str) -> str:
    """The name of the figure that counts most on a problem."""
    if is_real(problem):
        return "hv_search"
    return "chosen" if problem[-4] == "1" and not problem.startswith("zdt") else "hv"


def values(rows: Iterable[Row], figure: str, cost: float) -> list[float]:
    """A figure at a checkpoint, one for each seed that got there."""
    return [f[figure] for row in rows for f in row["figures"] if f["cost"] == cost and figure in f]


def median(rows: Iterable[Row], figure: str, cost: float) -> float | None:
    """Median over seeds; None where no run got there."""
    found = values(rows, figure, cost)
    return float(np.median(found)) if found else None


def cell(rows: list[Row], figure: str, cost: float, scale: float = 1.0, digits: int = 3) -> str:
    """'median (least-greatest)' for several seeds, '-' where there is none."""
    found = [scale * v for v in values(rows, figure, cost)]
    if not found:
        return ""
    middle = f"{np.median(found):.{digits}f}"
    return middle if len(found) == 1 else f"{middle} ({min(found):.{digits}f} to {max(found):.{digits}f})"


def table(head: list[str], body: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def methods_of(runs: Runs, problem: str) -> list[str]:
    """Methods that have lines on a problem: ours first, each side from the best at the end to the worst."""
    figure = figure_of(problem)
    sign = 1.0 if figure == "chosen" else -1.0

    def worth(method: str) -> tuple[bool, float]:
        last = [row["figures"][-1].get(figure, np.nan) for row in runs[problem, method] if row["figures"]]
        return not is_ours(method), sign * float(np.median(last)) if last else np.inf

    return sorted((m for p, m in runs if p == problem), key=worth)


def real_table(runs: Runs, problem: str) -> str:
    """Hypervolumes and mean accuracies of every method on a real merge."""
    head = ["method", "seeds", *(f"HV search, {c}" for c in (60, 125, 300, 1000)), "HV test, 125", "HV test, 1000"]
    head += [*(f"mean test %, {c}" for c in (60, 125, 1000)), "thinking, CPU s"]
    body = []
    for method in methods_of(runs, problem):
        rows = runs[problem, method]
        line = [shown(method), str(len(rows)), *(cell(rows, "hv_search", c, 100, 2) for c in (60, 125, 300, 1000))]
        line += [cell(rows, "hv_test", c, 100, 2) for c in (125, 1000)]
        line += [cell(rows, "mean_test", c, 100, 1) for c in (60, 125, 1000)]
        body.append([*line, f"{np.median([row['cpu_method'] for row in rows]):.0f}"])
    return table(head, body)


def black_box_table(runs: Runs, problems: list[str]) -> str:
    """One row a method, one column a problem, 'after 30 / 100 / 300 / 1000' in each cell (medians)."""
    methods: list[str] = []
    for problem in problems:
        methods += [m for m in methods_of(runs, problem) if m not in methods]
    body = []
    for method in sorted(methods, key=lambda m: not is_ours(m)):
        line = [shown(method)]
        for problem in problems:
            rows = runs.get((problem, method), [])
            found = [median(rows, figure_of(problem), c) for c in (30, 100, 300, 1000)]
            text = " / ".join("–" if v is None else f"{v:.3f}".lstrip("0") for v in found)
            line.append(text if rows else "")
        body.append(line)
    return table(["method", *problems], body)


def ratio(ours: list[Row], peer: list[Row], figure: str, cost: float, peers_cost: float) -> float | None:
    """Median over common seeds of ours at a cost over the peer's at its cost; pools may differ from seed to seed."""
    found = []
    for mine in ours:
        for theirs in (row for row in peer if row["seed"] == mine["seed"]):
            above, below = values([mine], figure, cost), values([theirs], figure, peers_cost)
            if above and below and below[0] > 0:
                found.append(above[0] / below[0])
    return float(np.median(found)) if found else None


def gradient_bar(runs: Runs) -> str:
    """Cost at which `auto` with gradients has the best peer's hypervolume after 1,000, on every real merge."""
    body = []
    for problem in sorted({p for p, _ in runs if is_real(p)}):
        best = best_peer(runs, problem, 1000)
        longer = runs.get((problem, "ours/auto+gradients"), [])
        ours = runs.get((problem, "ours/auto+gradients@125"), longer)
        if best is None or not ours:
            continue
        row, peer = [problem, shown(best)], runs[problem, best]
        for figure in ("hv_search", "hv_confirm", "hv_test", "hv_above_.3", "mean_test"):
            found = {c: ratio(ours if c <= 125 else longer, peer, figure, c, 1000) for c in (30, 60, 125, 300, 500)}
            reached = [f"{c}" for c, value in found.items() if value is not None and value >= 1.0]
            at = found[125]
            row.append(f"{'–' if at is None else f'{at:.3f}'}, level at {reached[0] if reached else '–'}")
        body.append(row)
    head = ["problem", "best peer at 1,000", "HV search", "HV confirm", "HV test", "raw HV search", "mean test"]
    return table(head, body) if body else "No run of `auto` with gradients yet.\n"


def value_bar(runs: Runs) -> str:
    """`auto` without gradients against the best peer at equal cost."""
    body = []
    for problem in sorted({p for p, _ in runs}):
        longer = runs.get((problem, "ours/auto"), [])
        row, figure = [problem], figure_of(problem)
        for cost in (125, 300, 1000):
            ours = runs.get((problem, "ours/auto@125"), longer) if cost == 125 else longer
            best, mine = best_peer(runs, problem, cost), median(ours, figure, cost)
            if best is None or mine is None:
                row.append("")
                continue
            theirs, digits = median(runs[problem, best], figure, cost) or 0.0, 4 if is_real(problem) else 3
            share = ratio(ours, runs[problem, best], figure, cost, cost)
            text = f"{mine:.{digits}f} against {theirs:.{digits}f} of {shown(best)}"
            row.append(text if share is None else f"{text}: ×{share:.2f}")
        if any(row[1:]):
            body.append(row)
    return table(["problem", "cost 125", "cost 300", "cost 1,000"], body) if body else "No run of `auto` yet.\n"


def best_peer(runs: Runs, problem: str, cost: float) -> str | None:
    """The peer with the best median at a cost."""
    figure = figure_of(problem)
    found = {m: median(rows, figure, cost) for (p, m), rows in runs.items() if p == problem and not is_ours(m)}
    there = {m: v for m, v in found.items() if v is not None}
    if not there:
        return None
    return min(there, key=lambda m: there[m] if figure == "chosen" else -there[m])


def overhead_table(rows: list[Row]) -> str:
    """CPU milliseconds an ask and tell, mean (greatest)."""
    body = []
    for row in rows:
        found = {m["after"]: f"{1000 * m['mean']:.1f} ({1000 * m['max']:.1f})" for m in row.get("marks", ())}
        note = row.get("error", "")
        body.append([row["strategy"], str(row["dim"]), *(found.get(n, note) for n in (100, 1000, 3000))])
    return table(["strategy", "axes", "after 100", "after 1,000", "after 3,000"], body)


def bias_table(rows: list[Row]) -> str:
    """Inflation of the winner's score in points."""
    body = [
        f"{r['candidates']:.0f} {r['examples']:.0f} {r['correlation']:g} "
        f"{r['expected']:.1f} {r['search']:.1f} {r['confirm']:+.1f}".split()
        for r in rows
    ]
    head = ["candidates", "examples", "correlation", "expected", "winner on search", "winner on confirm"]
    return table(head, body)
