"""The proof of the search strategies: black boxes with known fronts and real merges, against the packages people use.

    python benchmarks/search.py --minutes 40            # go on with what is missing, two processes, then write the page
    python benchmarks/search.py --methods peers --problems real --minutes 60
    python benchmarks/search.py --only-report           # docs/benchmarks.md and its figures from the results alone

Each (problem, method, seed, budget) is one line of benchmarks/results/search.jsonl; lines that stand there are not run
again, so a call that was stopped goes on where it was. `--redo NAME` forgets the lines of a method first.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes side by side, before numpy is loaded

from search_peers import PEERS, run_peer
from search_runs import Recorder, Target

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "search.jsonl"
CACHE = ROOT / "runs" / "search"
REAL = ("digits-module-4", "gentle-block-4", "strong-block-4", "digits-block-2", "gentle-block-2", "gentle-module-4")
BLACK_BOXES = (
    *("quad2-24", "quad1-24", "quad3-24", "sat1-24", "sat2-24", "dtlz3-24", "zdt1-24", "zdt2-24"),
    *("quad1-96", "quad2-96", "quad3-96", "sat1-96"),
)
RATIOS = ("digits-module-4", "gentle-block-4", "gentle-module-4")  # where the cost of a gradient is measured
COLD = ("quad1-24", "quad2-24", "dtlz3-24", "zdt1-24", "zdt2-24")  # where peers also begin as their packages do
OURS = (
    *("auto+gradients", "auto", "gradient_map+gradients", "quadratic", "cma_es", "nsga2", "map", "gp", "qlog_nehvi"),
)
PEERS_FIRST = ("pymoo_nsga2:start", "pycma_mean:start", "optuna_tpe:start", "lambda:start", "random:start")
SMALL = {"optuna_gp": 60, "gp": 125, "qlog_nehvi": 125}  # budgets of methods that think for long
WITH_GRADIENTS = 500  # budget of methods that ask for gradients: they are done long before
EIGHTH = 125
SLOW_TPE = 300  # Optuna's TPE with several objectives or many axes
SHOWN = ("cost", "hv", "chosen", "hv_search", "hv_test", "mean_test")  # as a run ends
FORMAT = 1  # raise it when a change of the benchmark makes older lines worthless


@dataclass(frozen=True)
class Job:
    """One run. `method` is 'ours/<kind>[+gradients]' or '<peer>:<cold|start>'."""

    problem: str
    method: str
    seed: int
    budget: int
    format: int = FORMAT

    @property
    def key(self) -> str:
        """What makes two runs the same."""
        return json.dumps(asdict(self), sort_keys=True)


def target_of(problem: str, seed: int, cache: Path) -> Target:
    """The black box or real merge of a name."""
    if problem.count("-") == 1:
        from search_blackboxes import cached_black_box

        return cached_black_box(problem, seed)
    import torch
    from search_merges import real_merge

    torch.set_num_threads(1)
    return real_merge(problem, seed, cache)


def run(job: Job, cache: Path) -> dict[str, Any]:
    """The line of one run."""
    recorder = Recorder(target_of(job.problem, job.seed, cache), job.budget)
    begun = time.process_time()
    extra: dict[str, Any] = {}
    if job.method.startswith("ours/"):
        from search_ours import run_ours

        strategy = run_ours(job.method, recorder, job.seed)
        diagnostics = {name: float(value) for name, value in strategy.diagnostics().items()}
        extra = {"notes": list(strategy.notes()), "diagnostics": diagnostics}
    else:
        run_peer(job.method, recorder, job.seed)
    used = time.process_time() - begun
    figures = [{k: round(v, 5) for k, v in row.items()} for row in recorder.figures()]
    return {
        **asdict(job),
        "evaluations": recorder.evaluations,
        "with_gradient": recorder.with_gradient,
        "spent": round(recorder.spent, 3),
        "cpu_method": round(used - recorder.seconds, 2),
        "cpu_evaluations": round(recorder.seconds, 2),
        "figures": figures,
        **extra,
    }


def jobs(problems: Iterable[str], methods: Iterable[str], seeds: Iterable[int], budget: int) -> list[Job]:
    """Runs in the order in which they are worth most: strong methods first, all seeds of one together."""
    found = []
    seeds = list(seeds)
    for method in methods:
        for problem in problems:
            if not suits(method, problem):
                continue
            found += [Job(problem, method, seed, size) for size in budgets(method, problem, budget) for seed in seeds]
    return found


def suits(method: str, problem: str) -> bool:
    """Whether a method is run on a problem: peers around the start wherever they can be, cold for comparison on a few
    black boxes; a Gaussian process not above 32 axes."""
    real, dim, m = problem.count("-") == 2, _dim(problem), _objectives(problem)
    name = method.removeprefix("ours/").split(":")[0].split("+")[0]
    if name in SMALL and (dim > 32 or (name == "qlog_nehvi" and m == 1)):
        return False
    if name == "lambda":
        return real
    if name in ("pymoo_nsga2", "pymoo_nsga3", "optuna_nsga2", "nsga2", "nsga3") and m == 1:
        return False
    return not method.endswith(":cold") or problem in COLD


def _objectives(problem: str) -> int:
    parts = problem.split("-")
    return int(parts[2]) if len(parts) == 3 else 2 if parts[0].startswith("zdt") else int(parts[0][-1])


def _dim(problem: str) -> int:
    parts = problem.split("-")
    real = {"block": 32, "module": 96}  # about; only small or large matters here
    return real[parts[1]] if len(parts) == 3 else int(parts[1])


def budgets(method: str, problem: str, budget: int) -> list[int]:
    """Budgets to plan for. `auto` is also run on real merges with an eighth of 1,000, which is its bar."""
    name = method.removeprefix("ours/").split(":")[0].split("+")[0]
    if name == "optuna_tpe" and (_objectives(problem) > 1 or _dim(problem) > 32):
        return [min(budget, SLOW_TPE)]
    most = min(budget, SMALL.get(name, budget), WITH_GRADIENTS if method.endswith("+gradients") else budget)
    return sorted({min(EIGHTH, most), most}) if name == "auto" and problem.count("-") == 2 else [most]


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines written so far, the last of each key; a torn last line is left out."""
    found: dict[str, dict[str, Any]] = {}
    if path.exists():
        for text in path.read_text().splitlines():
            try:
                row = json.loads(text)
                found[Job(row["problem"], row["method"], row["seed"], row["budget"], row["format"]).key] = row
            except (ValueError, KeyError):
                continue
    return [row for row in found.values() if row["format"] == FORMAT]


def _attempt(packed: tuple[Job, Path, float]) -> tuple[Job, dict[str, Any] | None, str]:
    job, cache, deadline = packed
    if time.time() > deadline:
        return job, None, "no time left"
    try:
        return job, run(job, cache), ""
    except ModuleNotFoundError as error:
        return job, None, f"skipped: {error}"
    except Exception as error:  # noqa: BLE001 - one method that breaks must not end the others
        return job, None, f"failed: {type(error).__name__}: {error}"


def work(todo: list[Job], path: Path, cache: Path, minutes: float, workers: int) -> None:
    """Run what is to do, one line each, until no new run may start."""
    deadline = time.time() + 60 * minutes
    path.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    packed = [(job, cache, deadline) for job in todo]
    late = 0
    with context.Pool(workers) as pool, path.open("a") as out:
        for job, row, why in pool.imap_unordered(_attempt, packed):
            late += why == "no time left"
            if row is None and why != "no time left":
                print(f"{job.problem:18} {job.method:24} seed {job.seed}: {why}", flush=True)
            if row is None:
                continue
            out.write(json.dumps(row) + "\n")
            out.flush()
            last = {k: v for k, v in row["figures"][-1].items() if k in SHOWN}
            print(f"{job.problem:18} {job.method:24} seed {job.seed}: {last} {row['cpu_method']:.0f} s", flush=True)
    if late:
        print(f"{late} runs did not start: call it again to go on", flush=True)


def chosen_methods(text: str) -> list[str]:
    """'ours', 'peers', 'all', or names by comma."""
    ours = [f"ours/{name}" for name in OURS]
    peers = list(PEERS_FIRST)
    peers += [f"{name}:{how}" for how in ("start", "cold") for name in PEERS if f"{name}:{how}" not in peers]
    strong = list(PEERS_FIRST)
    groups = {"ours": ours, "peers": peers, "strong": strong, "all": [*ours[:2], *strong, *ours[2:], *peers]}
    return list(dict.fromkeys(name for part in text.split(",") for name in groups.get(part, [part])))


def _without(path: Path, methods: list[str]) -> None:
    rows = [row for row in lines(path) if row["method"] not in methods]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="all", help="all, ours, peers, strong, or names by comma")
    parser.add_argument("--problems", default="all", help="all, real, blackbox, or names by comma")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=40.0, help="no run starts after this time")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--redo", nargs="*", default=[], help="methods whose lines are forgotten first")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--tables", action="store_true", help="also time ask and tell, and simulate the selection bias")
    parser.add_argument("--only-report", action="store_true", help="run nothing, write the page and figures")
    parser.add_argument("--no-report", action="store_true", help="run, but write no page")
    arguments = parser.parse_args()
    groups = {"all": (*REAL, *BLACK_BOXES), "real": REAL, "blackbox": BLACK_BOXES}
    problems = [name for part in arguments.problems.split(",") for name in groups.get(part, [part])]
    if arguments.redo:
        _without(arguments.results, arguments.redo)
    if not arguments.only_report:
        methods = _known(chosen_methods(arguments.methods))
        done = {Job(r["problem"], r["method"], r["seed"], r["budget"]).key for r in lines(arguments.results)}
        wanted = jobs(problems, methods, arguments.seeds, arguments.budget)
        todo = [job for job in wanted if job.key not in done]
        print(f"{len(todo)} runs to do, {len(wanted) - len(todo)} stand in {arguments.results}", flush=True)
        work(todo, arguments.results, arguments.cache, arguments.minutes, arguments.workers)
    if arguments.tables:
        _tables(arguments.results.parent, arguments.cache, [name.removeprefix("ours/") for name in arguments.redo])
    if not arguments.no_report:
        from search_report import write_report

        write_report(lines(arguments.results), arguments.results.parent, arguments.docs)


def _tables(folder: Path, cache: Path, redo: list[str]) -> None:
    """Time the strategies that are not in the table yet and what a gradient costs, alone on the machine; simulate the
    selection bias."""
    from search_bias import bias_rows
    from search_overhead import overhead_rows

    from mergesearch.strategies import STRATEGIES

    path = folder / "search-overhead.json"
    rows = [row for row in json.loads(path.read_text()) if row["kind"] not in redo] if path.exists() else []
    for kind in sorted(set(STRATEGIES) - {row["kind"] for row in rows}):
        rows += overhead_rows([kind])
        path.write_text(json.dumps(sorted(rows, key=lambda row: (row["strategy"], row["dim"])), indent=1) + "\n")
    (folder / "search-bias.json").write_text(json.dumps(bias_rows(2000), indent=1) + "\n")
    ratios = {problem: round(target_of(problem, 0, cache).gradient_ratio(), 2) for problem in RATIOS}
    (folder / "search-gradients.json").write_text(json.dumps(ratios, indent=1) + "\n")


def _known(methods: list[str]) -> list[str]:
    from search_ours import Ours

    kept = []
    for name in methods:
        if name.startswith("ours/") and not Ours.parse(name).exists:
            print(f"{name}: this version has no such strategy, left out", flush=True)
        else:
            kept.append(name)
    return kept


if __name__ == "__main__":
    main()
