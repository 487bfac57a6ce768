"""What controller, strategy and store cost for each evaluation, against Optuna's RDB storage, in one run.

    python benchmarks/controller.py [--json FILE] [--dim 384] [--prefill 3000]

Ours: a study with `--prefill` told evaluations on SQLite; then evaluations through `Controller` with a function that
returns at once, timed whole: ask, record, evaluate, record, tell. Optuna: a study prefilled alike on its RDB storage
(SQLite; its rows are written straight into its tables), then `ask` with fixed distributions and `tell`, with its
random sampler, which costs it least.
"""

import argparse
import json
import logging
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from mergesearch.controller.loop import Controller, StudyRun
from mergesearch.controller.search import make_strategy
from mergesearch.pool.base import Job
from mergesearch.pool.profile import Profile, open_pool
from mergesearch.space import SearchSpace
from mergesearch.store.open import open_store
from mergesearch.stored import describe
from mergesearch.strategies.base import Problem
from mergesearch.types import Candidate, Objective, Outcome, Score, Scored, Split

OBJECTIVES = (Objective("score"),)


class AtOnce:
    """A worker that takes no time and remembers when it was called."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def evaluate(self, job: Job) -> Outcome:
        self.times.append(time.perf_counter())
        return Scored({"score": Score(float(np.mean(job.work)))})


def ours(kind: str, dim: int, prefill: int, timed: int, folder: Path) -> list[float]:
    """Seconds of each of the last `timed` evaluations of a study of `prefill + timed`."""
    store = open_store(f"sqlite:///{folder / (kind + '.db')}")
    space = SearchSpace.box(dim, 0.0, 1.0)
    budget = prefill + timed
    store.create("s", "", "", time.time(), describe(space, OBJECTIVES, budget, kind))
    lease = store.acquire("s", "benchmark", 3600.0, time.time())
    generator = np.random.default_rng(0)
    for number in range(prefill):
        store.ask(lease, Candidate(number, generator.random(dim)), Split.SEARCH, time.time())
        store.tell(lease, number, Split.SEARCH, Scored({"score": Score(generator.random())}), time.time())
    store.release(lease, time.time())
    problem = Problem(dim, OBJECTIVES, space.start, budget)
    strategy = make_strategy(kind, problem, 0, {})
    run = StudyRun("s", OBJECTIVES, budget, strategy, lambda c: space.values(c.point))
    worker = AtOnce()
    Controller(run, store, open_pool(Profile(), lambda: worker)).run()
    store.close()
    return np.diff(worker.times).tolist()


def optunas(dim: int, prefill: int, timed: int, folder: Path) -> list[float]:
    """Seconds of each of `timed` asks and tells of a study prefilled with `prefill`."""
    optuna.logging.set_verbosity(logging.ERROR)
    path = folder / "optuna.db"
    axes = {f"x{i}": optuna.distributions.FloatDistribution(0.0, 1.0) for i in range(dim)}
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="s", direction="maximize")
    study.add_trial(optuna.trial.create_trial(params=dict.fromkeys(axes, 0.5), distributions=axes, value=0.5))
    copy_first(path, prefill - 1)
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{path}", sampler=sampler)
    if len(study.trials) != prefill:
        raise SystemExit(f"Optuna sees {len(study.trials)} of {prefill} prefilled evaluations")
    seconds = []
    for _ in range(timed):
        began = time.perf_counter()
        trial = study.ask(axes)
        study.tell(trial, 0.5)
        seconds.append(time.perf_counter() - began)
    return seconds


def copy_first(path: Path, copies: int) -> None:
    """Write `copies` of a study's first row set as Optuna would: its own way takes 0.4 s for each at 384 axes."""
    with sqlite3.connect(path) as database:
        for table in ("trials", "trial_values", "trial_params"):
            columns = [column[1] for column in database.execute(f"PRAGMA table_info({table})")]
            rows = database.execute(f"SELECT * FROM {table}").fetchall()
            marks = ",".join("?" * len(columns))
            wanted = (shifted(columns, row, n, len(rows)) for n in range(1, copies + 1) for row in rows)
            database.executemany(f"INSERT INTO {table} ({','.join(columns)}) VALUES ({marks})", wanted)


def shifted(columns: list[str], row: tuple[Any, ...], n: int, rows: int) -> list[Any]:
    """A row of the first evaluation as the n-th copy has it: its own key, its evaluation's id and number moved on."""
    step = {"trial_id": 1, "number": 1, columns[0]: 1 if columns[0] == "trial_id" else rows}
    return [value + n * step[c] if c in step else value for c, value in zip(columns, row, strict=True)]


def row(name: str, seconds: list[float]) -> dict[str, object]:
    return {
        "what": name,
        "median_ms": 1e3 * statistics.median(seconds),
        "max_ms": 1e3 * max(seconds),
        "n": len(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--prefill", type=int, default=3000)
    parser.add_argument("--timed", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            row(f"mergesearch {kind}", ours(kind, arguments.dim, arguments.prefill, arguments.timed, Path(folder)))
            for kind in ("cma_es", "random")
        ]
        rows.append(row("optuna RDB", optunas(arguments.dim, arguments.prefill, 5, Path(folder))))
    for entry in rows:
        entry["ratio_to_optuna"] = float(rows[-1]["median_ms"]) / float(entry["median_ms"])
        print(f"{entry['what']:24} {entry['median_ms']:10.2f} ms median {entry['max_ms']:10.2f} ms max"
              f"   {entry['ratio_to_optuna']:8.0f} x")  # fmt: skip
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        body = {"dim": arguments.dim, "prefill": arguments.prefill, "rows": rows}
        arguments.json.write_text(json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    main()
