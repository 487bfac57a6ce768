"""Time to prepare every operator and to build one candidate with it, against copies, mergekit and its own prepare.

    python benchmarks/operators.py [--json FILE] [--experts 3] [--repeats 5] [--threads 2] [--only ties,sce]
                                   [--mergekit-python PATH | --skip-mergekit]

Model: benchmarks/llama.py, bfloat16. Two ways of asking for a candidate, each repetition with new values:

- coefficients: the knobs that a study searches by default, for every layer group and expert;
- all knobs: every knob of the operator, densities and ranks too, so that whatever depends on them is made anew.

Both are compared with the time to copy the bytes that must move: base and what is read of each expert (its weights, or
the components that stand for it, and its masks) are read once and the result is written once. Copies are timed in the
same round, as torch copies of whole tensors. `peak` is the growth of the process's resident memory while a candidate is
built. mergekit 0.1.5 (benchmarks/mergekit_side.py) merges the same files with the same numbers in every layer.
"""

import argparse
import gc
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from llama import load_models, make_adapters, make_models
from mergekit_side import METHODS, Mergekit

from mergesearch.checkpoints.groups import layer_groups
from mergesearch.merging import make_operator
from mergesearch.operators import OPERATORS
from mergesearch.operators.base import Layout

NEEDS_FILES = {"fisher", "regmean"}
"""Operators that need statistics of data, which random weights do not have."""


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def settings_of(operator: Any, layout: Layout, rng: np.random.Generator, every: bool) -> dict[str, np.ndarray]:
    """Random values of the knobs that a study searches, or of all; the others at their start."""
    shape = (len(layout.groups), len(layout.experts))
    tables = {}
    for knob in operator.KNOBS:
        value: Any = knob.start(shape[1])
        if knob.searched or every:
            free = {"study": (1, 1), "expert": (1, shape[1]), "group": (shape[0], 1), "expert_group": shape}
            low, high = knob.low, knob.top(shape[1])
            value = rng.uniform(low + 0.1 * (high - low), high - 0.1 * (high - low), free[knob.per.value])
            value = np.round(value) if knob.whole else value
        tables[knob.name] = np.broadcast_to(value, shape).astype(float)
    return tables


def peak_growth(function: Callable[[], object]) -> float:
    """MB by which resident memory rose above what it was before, at its highest (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the high-water mark
    before = psutil.Process().memory_info().rss
    function()
    lines = Path("/proc/self/status").read_text().splitlines()
    highest = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return max(0.0, (highest - before) / 1e6)


def copier(base: dict[str, torch.Tensor], live: dict[str, torch.Tensor], nbytes: int) -> Callable[[], None]:
    """Copies that read and write `nbytes` in all, in whole tensors of the model again and again."""

    def run() -> None:
        left = nbytes
        while left > 0:
            for name, tensor in base.items():
                flat, out = tensor.view(-1), live[name].view(-1)
                part = min(flat.numel(), left // (2 * flat.element_size()) + 1)
                out[:part].copy_(flat[:part])
                left -= 2 * part * flat.element_size()
                if left <= 0:
                    return

    return run


def bytes_read(prepared: object, experts: list[dict[str, Any]], base: dict[str, torch.Tensor]) -> int:
    """Bytes that one candidate must read beside the base: what the prepared models say, else the experts."""
    said = getattr(prepared, "bytes_read", None)
    if said is not None:
        return int(said())
    adapters = not isinstance(next(iter(experts[0].values())), torch.Tensor)
    if adapters:
        return sum((f.up.numel() + f.down.numel()) * 4 for expert in experts for f in expert.values())
    return len(experts) * sum(t.numel() * t.element_size() for t in base.values())


def measure_operator(kind: str, models: Any, arguments: argparse.Namespace, kit: Mergekit | None) -> dict[str, Any]:
    """One row of the table."""
    base, all_experts, adapters, granularity = models
    operator: Any = make_operator(kind, {})
    takes_models = hasattr(operator, "prepare")
    experts = (all_experts if takes_models else adapters)[: operator.MAX_EXPERTS]
    named = base if takes_models else {name: base[name] for name in experts[0]}
    grouping = layer_groups({name: tuple(t.shape) for name, t in named.items()}, granularity)
    layout = Layout(tuple(f"e{k}" for k in range(len(experts))), grouping.groups, grouping.group_of)
    live = {name: torch.empty_like(t) for name, t in named.items()}
    found: list[Any] = []
    prepare = operator.prepare if takes_models else operator.prepare_adapters
    seconds: dict[str, list[float]] = {"prepare": [timed(lambda: found.append(prepare(base, experts, layout)))]}
    prepared, rng, names = found[0], np.random.default_rng(0), list(layout.group_of)

    def apply(every: bool) -> float:
        settings = settings_of(operator, layout, rng, every)
        return timed(lambda: prepared.apply(settings, names, live))

    seconds["first"] = [apply(False)]
    slow = seconds["first"][0] > 10  # everything anew for each candidate: one of each is enough
    if not slow:
        apply(True)
    nbytes = 2 * sum(t.numel() * t.element_size() for t in named.values()) + bytes_read(prepared, experts, named)
    copies = copier(named, live, nbytes)
    copies()
    begun = time.perf_counter()
    for repeat in range(arguments.repeats):
        if repeat and (slow or time.perf_counter() - begun > arguments.patience):
            break
        seconds.setdefault("copies", []).append(timed(copies))
        if not slow:
            apply(False)  # back from all knobs: structure made anew here is not a change of coefficients
        seconds.setdefault("coefficients", []).append(apply(False))
        seconds.setdefault("copies", []).append(timed(copies))
        seconds.setdefault("all knobs", []).append(apply(True))
    others = [settings_of(operator, layout, rng, every) for every in ((True,) if slow else (False, True))]
    peak = max(peak_growth(lambda s=s: prepared.apply(s, names, live)) for s in others)
    if kit is not None and kind in METHODS:
        seconds["mergekit"] = [float(kit.seconds(kind) or 0.0) for _ in range(arguments.mergekit_repeats)]
    return {"class": operator.CACHE, "bytes": nbytes, "peak_mb": peak, "seconds": seconds}


def table_row(row: dict[str, Any]) -> dict[str, float]:
    """Medians, and the ratios that count."""
    median = {name: statistics.median(values) for name, values in row["seconds"].items()}
    low = {name: min(values) for name, values in row["seconds"].items()}
    cells = {
        "prepare s": median["prepare"],
        "coefficients ms": median["coefficients"] * 1e3,
        "x copies": median["coefficients"] / median["copies"],
        "x copies (min)": low["coefficients"] / low["copies"],
        "all knobs ms": median["all knobs"] * 1e3,
        "all x copies": median["all knobs"] / median["copies"],
        "all / prepare": median["all knobs"] / median["prepare"],
        "peak MB": row["peak_mb"],
    }
    if "mergekit" in median:
        cells["mergekit s"] = median["mergekit"]
        cells["mergekit / coefficients"] = median["mergekit"] / median["coefficients"]
        cells["mergekit / all knobs"] = median["mergekit"] / median["all knobs"]
    return cells


def markdown(file: Path) -> str:
    """The table of benchmarks/README.md from a file that a run wrote."""
    lines = ["| operator | class | prepare s | coefficients ms | × copies | all knobs ms | × copies | mergekit |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for kind, row in sorted(json.loads(file.read_text())["rows"].items(), key=lambda item: (item[1]["class"], item[0])):
        kit = f"{row['mergekit s']:.2g} s, ×{row['mergekit / coefficients']:.0f}" if "mergekit s" in row else ""
        cells = [f"`{kind}`", row["class"], f"{row['prepare s']:.2g}", f"{row['coefficients ms']:.0f}",
                 f"{row['x copies']:.1f}", f"{row['all knobs ms']:.0f}", f"{row['all x copies']:.1f}", kit]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds after which no repetition is begun")
    parser.add_argument("--layers", type=int, default=30, help="fewer, for operators that factorise every matrix")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--groups", default="block")
    parser.add_argument("--only", default="", help="kinds, separated by commas")
    parser.add_argument("--skip", default="", help="kinds, separated by commas")
    parser.add_argument("--skip-mergekit", action="store_true")
    parser.add_argument("--mergekit-python", default=sys.executable)
    parser.add_argument("--mergekit-repeats", type=int, default=1)
    parser.add_argument("--table", type=Path, default=None, help="print the table of a file written before, and end")
    arguments = parser.parse_args()
    if arguments.table is not None:
        print(markdown(arguments.table))
        return
    torch.set_num_threads(arguments.threads)
    skipped = NEEDS_FILES | set(filter(None, arguments.skip.split(",")))
    kinds = [
        kind for kind in (arguments.only.split(",") if arguments.only else sorted(OPERATORS)) if kind not in skipped
    ]
    rows: dict[str, Any] = {}
    about = {
        "torch": torch.__version__, "threads": arguments.threads, "machine": platform.machine(),
        "experts": arguments.experts, "layers": arguments.layers, "not measured": sorted(skipped),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        paths = make_models(Path(folder), arguments.experts, arguments.layers)
        base, *experts = load_models(paths)
        models = (base, experts, make_adapters(base, arguments.experts), arguments.groups)
        kit = None if arguments.skip_mergekit else Mergekit(arguments.mergekit_python, paths, arguments.threads)
        for kind in kinds:
            rows[kind] = measure_operator(kind, models, arguments, kit)
            gc.collect()
            rows[kind] |= table_row(rows[kind])
            cells = {name: value for name, value in rows[kind].items() if isinstance(value, float)}
            print(f"{kind:20} {rows[kind]['class']} " + "  ".join(f"{n} {v:.3g}" for n, v in cells.items()), flush=True)
            if arguments.json:  # after each row: a long run that is cut short keeps what it has
                arguments.json.parent.mkdir(parents=True, exist_ok=True)
                arguments.json.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
        if kit is not None:
            kit.close()


if __name__ == "__main__":
    main()
