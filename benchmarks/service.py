"""What the service costs: controller, pool and store under load, beside Optuna's storage in the same run.

    python benchmarks/service.py [--json FILE] [--parts load,optuna,busy,ray,growth] [--stores sqlite,postgresql]

load    16 workers, 384 axes, 3,000 candidates, a scorer that takes no time: evaluations per second, milliseconds per
        evaluation, duplicates, budget, seconds to read the study cold.
optuna  the same databases: an ask and a tell of Optuna's RDB storage after as many evaluations, random sampler.
busy    64 simulated workers whose scoring times are log-normal (they sleep): the share of their time they were busy.
ray     the same with 16 real Ray workers.
growth  milliseconds per evaluation and memory of the controller after 100, 10,000 and 100,000 evaluations.

PostgreSQL is a server of its own in a temporary folder (Debian's package postgresql; `make postgresql`).
"""

import argparse
import gc
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from service_optuna import asks_and_tells, cold_load
from service_pool import SleepingPool

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from mergesearch.controller.loop import Controller, StudyRun
from mergesearch.controller.observer import Progress
from mergesearch.pool.base import Job, WorkerPool
from mergesearch.pool.function import FunctionWorker
from mergesearch.pool.profile import open_pool, parse_profile
from mergesearch.space import SearchSpace
from mergesearch.store.open import open_store
from mergesearch.stored import describe, read_stored
from mergesearch.strategies.base import Problem
from mergesearch.strategies.make import make_strategy
from mergesearch.types import Asked, Objective, Outcome, Score, Scored, Told

OBJECTIVES = (Objective("one"), Objective("two"))
PARTS = ("load", "optuna", "busy", "ray", "growth")
MARKS = (100, 10_000, 100_000)
SIGMA = 0.75  # of the log-normal scoring times: one in twenty takes more than three times the median


@contextmanager
def databases(kinds: list[str]) -> Iterator[dict[str, Callable[[], str]]]:
    """Kind -> a function that makes a new, empty database and returns its URL."""
    with tempfile.TemporaryDirectory() as folder:
        counted = iter(range(1000))
        made: dict[str, Callable[[], str]] = {"sqlite": lambda: f"sqlite:///{folder}/{next(counted)}.db"}
        if "postgresql" not in kinds:
            yield {kind: made[kind] for kind in kinds}
            return
        from postgres import Server  # tests/postgres.py

        server = Server()
        os.environ.update(server.environment)  # where its password is found
        made["postgresql"] = lambda: server.url(server.new_database())
        try:
            yield {kind: made[kind] for kind in kinds}
        finally:
            server.close()


def at_once(job: Job) -> Outcome:
    """A scorer that takes no time."""
    return Scored({"one": Score(float(job.work[0])), "two": Score(float(job.work[1]))})


def sleeping(median: float, job: Job) -> Outcome:
    """A scorer whose seconds are log-normal and depend on the candidate's number alone."""
    time.sleep(median * math.exp(SIGMA * np.random.default_rng(job.number).standard_normal()))
    return at_once(job)


class Watch:
    """An observer that keeps what the tables need: how busy the workers were while there was something to give them,
    and time and memory when so many evaluations were told."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.full = 0.0
        self.told: list[float] = []
        self.memory: dict[int, float] = {}

    def evaluated(self, study: str, told: Told, attempt: int) -> None:  # noqa: ARG002 - only when counts
        self.told.append(time.perf_counter())
        if len(self.told) in MARKS:
            self.memory[len(self.told)] = psutil.Process().memory_info().rss / 2**20

    def repeated(self, study: str, told: Told, attempt: int) -> None:
        """None comes."""

    def progressed(self, progress: Progress) -> None:
        if progress.results.search_asked < self.budget:
            self.full = progress.usage.share


def run(url: str, dim: int, budget: int, pool: WorkerPool) -> tuple[Watch, float]:
    """Run a study of random points to its end; seconds it took."""
    store = open_store(url)
    space = SearchSpace.box(dim, 0.0, 1.0)
    store.create("s", "", "", None, describe(space, OBJECTIVES, budget, "random"))
    strategy = make_strategy("random", Problem(dim, OBJECTIVES, space.start, budget), 0, {})
    study = StudyRun("s", OBJECTIVES, budget, strategy, lambda c: c.point)
    watch = Watch(budget)
    began = time.perf_counter()
    Controller(study, store, pool, [watch]).run()
    seconds = time.perf_counter() - began
    pool.close()
    store.close()
    return watch, seconds


def load(kind: str, url: str, dim: int, budget: int, workers: int) -> dict[str, Any]:
    """The load row of one store, its log checked for duplicates and the exact budget."""
    watch, seconds = run(url, dim, budget, SleepingPool(workers, at_once))
    gc.collect()
    began = time.perf_counter()
    store = open_store(url)
    study = read_stored(store, "s")
    cold = time.perf_counter() - began
    events = store.events("s")
    asked = Counter(event.candidate.number for event in events if isinstance(event, Asked))
    told = Counter(event.candidate.number for event in events if isinstance(event, Told))
    store.close()
    steps = np.diff(watch.told)
    return {
        "store": kind,
        "evaluations": study.results.search_told,
        "duplicates": sum(n - 1 for n in (asked + told).values() if n > 2) + sum(n != 1 for n in told.values()),
        "per_second": budget / seconds,
        "mean_ms": 1e3 * seconds / budget,
        "p95_ms": 1e3 * float(np.quantile(steps, 0.95)),
        "cold_load_s": cold,
    }


def peer(kind: str, url: str, dim: int, prefill: int, timed: int) -> dict[str, Any]:
    """The row of Optuna's storage."""
    seconds = asks_and_tells(url, dim, prefill, timed)
    return {
        "store": kind,
        "mean_ms": 1e3 * statistics.mean(seconds),
        "max_ms": 1e3 * max(seconds),
        "timed": timed,
        "cold_load_s": cold_load(url),
    }


def busy(kind: str, url: str, dim: int, budget: int, workers: int, median: float) -> dict[str, Any]:
    """How busy simulated workers were: while the budget lasted, and with the time in which the last ones ended."""
    pool = SleepingPool(workers, partial(sleeping, median))
    watch, seconds = run(url, dim, budget, pool)
    return {"pool": f"{workers} sleeping threads", "store": kind, **_busy(watch, pool, seconds, budget, median)}


def ray_busy(kind: str, url: str, budget: int, workers: int, median: float) -> dict[str, Any]:
    """The same with Ray's worker processes."""
    body = {"pool": "ray", "workers": workers, "cpus_per_worker": 0.01}
    pool = open_pool(parse_profile(body, "benchmark"), partial(FunctionWorker, partial(_slow, median), ("one", "two")))
    watch, seconds = run(url, 8, budget, pool)
    return {"pool": f"{workers} Ray workers", "store": kind, **_busy(watch, pool, seconds, budget, median)}


def _slow(median: float, values: np.ndarray) -> dict[str, float]:
    seed = int.from_bytes(values.tobytes()[:4], "little")
    time.sleep(median * math.exp(SIGMA * np.random.default_rng(seed).standard_normal()))
    return {"one": float(values[0]), "two": float(values[1])}


def _busy(watch: Watch, pool: WorkerPool, seconds: float, budget: int, median: float) -> dict[str, Any]:
    return {
        "busy": watch.full,
        "with_the_end": pool.usage().share,
        "evaluations": budget,
        "median_s": median,
        "seconds": seconds,
    }


def growth(kind: str, url: str, dim: int, budget: int) -> list[dict[str, Any]]:
    """Milliseconds per evaluation and resident memory around each mark."""
    watch, _ = run(url, dim, budget, SleepingPool(16, at_once))
    rows = []
    for mark in (m for m in MARKS if m <= budget):
        window = watch.told[max(0, mark - 1000 if mark > 100 else 0) : mark]
        steps = 1e3 * (window[-1] - window[0]) / (len(window) - 1)
        rows.append({"store": kind, "after": mark, "ms": steps, "memory_mb": watch.memory[mark], "dim": dim})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--stores", default="sqlite,postgresql")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--evaluations", type=int, default=3000)
    parser.add_argument("--growth-dim", type=int, default=32)
    parser.add_argument("--growth-to", type=int, default=100_000)
    parser.add_argument("--timed", type=int, default=5, help="evaluations of Optuna that are timed")
    arguments = parser.parse_args()
    parts, kinds = arguments.parts.split(","), arguments.stores.split(",")
    dim, budget = arguments.dim, arguments.evaluations
    found: dict[str, Any] = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
    found |= {"date": datetime.now(UTC).date().isoformat(), "dim": dim, "evaluations": budget}
    with databases(kinds) as new:
        for part in parts:
            rows: list[dict[str, Any]] = []
            for kind in kinds:
                if part == "load":
                    rows.append(load(kind, new[kind](), dim, budget, 16))
                elif part == "optuna":
                    rows.append(peer(kind, new[kind](), dim, budget, arguments.timed))
                elif part == "busy":
                    rows.append(busy(kind, new[kind](), dim, 1500, 64, 1.5))
                elif part == "ray":
                    rows.append(ray_busy(kind, new[kind](), 400, 16, 0.75))
                elif part == "growth":
                    rows.extend(growth(kind, new[kind](), arguments.growth_dim, arguments.growth_to))
                print(part, json.dumps(rows[-1]), flush=True)
            found[part] = rows
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
