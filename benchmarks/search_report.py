"""docs/benchmarks.md and its pictures, made from the results alone."""

import json
from pathlib import Path
from typing import Any

from search_plots import draw
from search_tables import (
    Row,
    Runs,
    bias_table,
    black_box_table,
    by_run,
    figure_of,
    gradient_bar,
    is_real,
    overhead_table,
    real_table,
    value_bar,
)
from service_report import section

HEAD = """# Benchmarks

First the search strategies; [the service under load](#the-service-under-load) stands at the end.

This page is made by `make bench-search` (`python benchmarks/search.py --only-report` writes it again from
`benchmarks/results/`); do not edit it. Every method pays alike: an evaluation of all search examples costs 1, with
gradients of every objective 3, and costs are what the columns and axes count. Peers are called through their own
packages and begin at the uniform merge wherever they can be told to (*cold*: where the package begins by itself).
Numbers are medians over seeds, with the least and the greatest in brackets.
"""
REAL = """## Real merges

- `gentle`, `strong`: the demo's vision transformers, four tasks, 150 search, 250 confirm and 400 test examples a task;
  `digits`: smaller ones on four transforms of the 8x8 digits, 200 / 300 / 597 a task, other experts for every seed.
- `block`, `module`: what an axis is, one expert's coefficient in one such group. The last number: objectives, either
  the accuracy of every task, or the mean accuracies of two pairs of tasks.
- HV: hypervolume in % where the base is 0 and every task's own expert is 1, above -0.1: of all that looks non-dominated
  on the search split; on test, of the 16 points of that front that add most on search. *mean test*: accuracy of the one
  merge that the method hands over, its recommendation or else the best seen on search.
- *thinking*: CPU seconds of the method itself over the whole run.
"""
RATIO = "- A gradient is charged 3; its measured CPU time over that of a plain evaluation: {}.\n"
BOXES = """## Black boxes with known fronts

`quad`: shifted, rotated quadratics of condition 100 with noise of .02; `sat`: the same through 1 - exp(-3 f) with a
ripple; `dtlz3`: DTLZ2 with three objectives; then the number of objectives and of axes. Cells: after 30 / 100 / 300 /
1,000. One objective: true loss of the point handed over, lower is better. Several: share of the true front's
hypervolume that the true values of the points that look non-dominated have, higher is better.
"""
BARS = """## Bars

With gradients at hand, `auto` should have the best peer's hypervolume after 1,000 at a cost of 125. Cells: ours at 125
over the peer at 1,000 (median over seeds, paired), and the first checkpoint at which ours is level. *HV* counts what
beats the base in every objective, in units of the experts' gains; *raw HV* accuracies above .3. The search split
flatters whoever drew more noisy samples on it, confirm and test do not; where a pool's gains are small against 150
images a task (`gentle` and `strong` with four objectives) HV is mostly noise:

{gradients}

Without them, `auto` against the best peer at equal cost (losses for problems of one objective, lower is better, else
hypervolume; × is ours over theirs, paired by seed):

{values}
"""
OVERHEAD = """## Time to ask and tell

CPU milliseconds, mean and (greatest) of five asks with their tells; two objectives, one thread. A row ends where one
ask took more than 5 s.
"""
BIAS = """## Choosing the best of many noisy scores

The winner of N equally good candidates (accuracy .6) looks better than it is by so many points; scored again on the
confirm split it does not. *Expected*: standard error times the mean maximum of N normals.
"""


def write_report(rows: list[Row], results: Path, docs: Path) -> Path:
    """Write the page and its pictures from the lines and the two small tables beside them."""
    docs.mkdir(parents=True, exist_ok=True)
    runs = by_run(rows)
    pictures = {path.stem: path.name for path in draw(runs, docs / "benchmarks")}
    ratios = results / "search-gradients.json"
    parts = [HEAD, BARS.format(gradients=gradient_bar(runs), values=value_bar(runs)), REAL.rstrip()]
    if ratios.exists():
        parts.append(RATIO.format(", ".join(f"{v:.1f} ({k})" for k, v in json.loads(ratios.read_text()).items())))
    parts.append("")
    for problem in sorted({p for p, _ in runs if is_real(p)}):
        parts += [f"### {problem}\n", _picture(pictures, f"search-{problem}"), real_table(runs, problem) + "\n"]
    if any(not is_real(p) for p, _ in runs):
        parts += [BOXES, _picture(pictures, "search-black-boxes"), *_boxes(runs)]
    for name, head, make in (("overhead", OVERHEAD, overhead_table), ("bias", BIAS, bias_table)):
        found = _read(results / f"search-{name}.json")
        if found:
            parts += [head, make(found) + "\n"]
    if (results / "service.json").exists():
        parts.append(section(json.loads((results / "service.json").read_text())))
    page = docs / "benchmarks.md"
    page.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    return page


def _boxes(runs: Runs) -> list[str]:
    names = sorted({p for p, _ in runs if not is_real(p)})
    groups = [[p for p in names if (figure_of(p) == "chosen") is one] for one in (True, False)]
    return [black_box_table(runs, group) + "\n" for group in groups if group]


def _picture(pictures: dict[str, str], stem: str) -> str:
    return f"![{stem.replace('-', ' ')}: curves of figures against cost](benchmarks/{pictures[stem]})\n"


def _read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text()) if path.exists() else []
