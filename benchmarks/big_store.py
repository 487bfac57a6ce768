"""A store with one big study in it, made in seconds: what the benchmarks and the browser tests look at.

    python benchmarks/big_store.py sqlite:///big.db [--evaluations 100000] [--objectives 4] [--name big]

It has everything that a study of merges has: four experts and eight layer groups, baselines and the lines of single
lambdas, a search that closes in on its front from wide to narrow, standard errors, metrics, failures with messages, two
workers, finalists on the confirm split, a chosen one on the test split. The rows go in as the store would write them,
many to a statement; a test reads them back through the store.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, func, insert, select, update

from mergesearch.results import BASE, BASELINE, EXPERT, LAMBDA, UNIFORM
from mergesearch.space import Knob, KnobRange, Per, SearchSpace, build_space
from mergesearch.store.open import open_store
from mergesearch.store.schema import candidates, evaluations, scores, studies
from mergesearch.store.sql import SqlStore
from mergesearch.store.values import point_bytes
from mergesearch.stored import describe
from mergesearch.types import Direction, Objective, Split, Status

EXPERTS: Final = ("digits", "fashion", "kuzushiji", "letters")
GROUPS: Final = ("embeddings", *(f"layer {i}" for i in range(6)), "norm")
EXAMPLES: Final = 500  # of each objective: what standard errors come from
CHUNK: Final = 5000
SECONDS: Final = 0.1  # from one evaluation to the next
LAMBDAS: Final = (0.1, 0.2, 0.3, 0.4, 0.5)
FAULTS: Final = (("ValueError", "the scores of objective 'letters' are not finite"), ("timeout", "stopped after 60 s"))
SPEC: Final = """name: {name}
models:
  base: models/base
  experts: {{digits: models/digits, fashion: models/fashion, kuzushiji: models/kuzushiji, letters: models/letters}}
merge: {{operator: task_arithmetic}}
strategy: {{kind: map_pareto, seed: {seed}}}
budget: {{evaluations: {evaluations}}}
"""

Matrix: TypeAlias = NDArray[np.float64]
Job: TypeAlias = tuple[int, Split]


def big_study(
    url: str, name: str = "big", *, evaluations: int = 100_000, objectives: int = 4, seed: int = 0, fail: int = 997
) -> int:
    """Write a finished study to the store of `url` and return how many evaluations its log has.

    Objectives are named after the first experts (at most 4), accuracies in 0 to 1. Every `fail`-th evaluation failed.
    """
    space, aims = space_of(), tuple(Objective(e, Direction.MAX, low=0.0, high=1.0) for e in EXPERTS[:objectives])
    store = open_store(url)
    assert isinstance(store, SqlStore)
    made = _make(space, evaluations, objectives, seed)
    facts = describe(
        space,
        aims,
        float(evaluations),
        "map_pareto",
        merge={"operator": "task_arithmetic", "options": {}},
        heads={aim.name: aim.name for aim in aims},
        chosen=made.finalists[0],
        diagnostics={"fit_r2": 0.93, "bits": 6.0, "samples": evaluations / 2},
        notes=["the surrogate had 561 terms"],
    )
    spec = SPEC.format(name=name, seed=seed, evaluations=evaluations)
    store.create(name, spec, f"sha256:{name}", facts=facts)
    lease = store.acquire(name, "here:1:1:big", 600.0)
    with store._database.writer.connect() as connection:
        told = _write(connection, name, made, seed, fail)
        connection.commit()
    store.set_status(lease, Status.DONE, "")
    store.release(lease)
    store.close()
    return told


def space_of() -> SearchSpace:
    """Task arithmetic: a coefficient for each of four experts in each of eight groups."""
    coefficient = Knob("coefficient", 0.0, 1.5, 0.3, Per.EXPERT_GROUP, searched=True)
    ranges = {"coefficient": KnobRange(0.0, 1.5, 0.3, Per.EXPERT_GROUP, coefficient.scale)}
    return build_space([coefficient], EXPERTS, GROUPS, ranges, {})


@dataclass(frozen=True)
class _Made:
    """Candidates 0 to N - 1: origins, points (N, D), mean scores (N, M); of them `known` baselines, which are first."""

    origins: list[str]
    points: Matrix
    means: Matrix
    known: int
    finalists: list[int]

    def jobs(self) -> list[Job]:
        """All evaluations in their order."""
        known = range(self.known)
        confirm = [(n, Split.CONFIRM) for n in (*known, *self.finalists)]
        test = [(n, Split.TEST) for n in (*known, self.finalists[0])]
        return [(n, Split.SEARCH) for n in range(len(self.origins))] + confirm + test


def _make(space: SearchSpace, evaluations: int, objectives: int, seed: int) -> _Made:
    """The study's candidates, the search's from wide to narrow: around blends of the experts' optima."""
    random = np.random.Generator(np.random.Philox(seed))
    experts = [space.encode({"coefficient": np.eye(len(EXPERTS))[k]}) for k in range(len(EXPERTS))]
    names = [BASE, *(f"{EXPERT}{e}" for e in EXPERTS), UNIFORM, *(f"{LAMBDA}{x:g}" for x in LAMBDAS)]
    flat = [space.encode({"coefficient": np.full(len(EXPERTS), x)}) for x in (0.0, 1 / len(EXPERTS), *LAMBDAS)]
    weights = random.dirichlet(np.full(len(EXPERTS), 0.7), evaluations)
    width = (np.linspace(0.25, 0.09, evaluations) * np.exp(0.5 * random.standard_normal(evaluations)))[:, None]
    aims = 0.6 * (weights / weights.max(axis=1, keepdims=True)) @ _optima() + 0.05
    searched = np.clip(aims + width * random.standard_normal((evaluations, space.dim)), 0.0, 1.0)
    searched[0] = space.start
    points = np.vstack([flat[0], experts, flat[1:], searched])
    means = _scores(points, objectives, random)
    finalists = (len(names) + np.argsort(-means[len(names) :].mean(axis=1))[:3]).tolist()
    origins = [*names, "start", *("sample" if i < evaluations / 2 else "front" for i in range(1, evaluations))]
    return _Made(origins, points, means, len(names), finalists)


def _optima() -> Matrix:
    """The point (K, D) that suits each expert's task best: its own coefficients high, the others low."""
    own = np.tile(np.eye(len(EXPERTS)), (1, len(GROUPS)))
    depth = np.repeat(np.linspace(0.8, 1.0, len(GROUPS)), len(EXPERTS))
    return np.asarray(0.9 * own * depth + 0.05)


def _scores(points: Matrix, objectives: int, random: np.random.Generator) -> Matrix:
    """Accuracies (N, M): high where an expert's own coefficients are, lower with the weight of all others and where an
    expert's coefficients jump from group to group. Tuned so that 100,000 evaluations of 4 have a front of some 2,000.
    """
    parts = points.reshape(len(points), len(GROUPS), len(EXPERTS))
    own = np.clip(parts / 0.55, 0.0, 1.0).mean(axis=1)
    others = parts.sum(axis=2).mean(axis=1)[:, None] - parts.mean(axis=1)
    uneven = parts.std(axis=1).mean(axis=1)[:, None]
    true = (0.3 + 0.65 * own - 0.16 * others**1.5 - 1.5 * uneven)[:, :objectives]
    seen = true + 0.002 * random.standard_normal(true.shape)
    return np.asarray(np.clip(np.round(seen * EXAMPLES) / EXAMPLES, 0.02, 0.998))


def _write(connection: Connection, name: str, made: "_Made", seed: int, fail: int) -> int:
    """All rows of the study `name`; returns how many evaluations they are."""
    study = connection.execute(select(studies.c.id).where(studies.c.name == name)).scalar_one()
    tops = [connection.execute(select(func.max(table.c.id))).scalar() or 0 for table in (candidates, evaluations)]
    first = 1 + max(tops)
    jobs = made.jobs()
    began = time.time() - SECONDS * len(jobs)
    failed = {i for i, (n, split) in enumerate(jobs) if fail and split is Split.SEARCH and n % fail == fail - 1}
    random = np.random.Generator(np.random.Philox(seed + 1))
    _insert(connection, candidates, _candidate_rows(study, first, made))
    _insert(connection, evaluations, _evaluation_rows(study, first, jobs, failed, random, began))
    _insert(connection, scores, _score_rows(first, jobs, failed, made.means, random))
    last = {"seq": 2 * len(jobs), "created": began, "updated": time.time(), "seconds": SECONDS * len(jobs)}
    connection.execute(update(studies).where(studies.c.id == study).values(last))
    return len(jobs)


def _candidate_rows(study: int, first: int, made: "_Made") -> Iterator[dict[str, Any]]:
    for number, (origin, point) in enumerate(zip(made.origins, made.points, strict=True)):
        stored = None if origin.startswith(BASELINE) else point_bytes(point)
        yield {"id": first + number, "study_id": study, "number": number, "point": stored, "origin": origin}


def _evaluation_rows(
    study: int, first: int, jobs: Sequence[Job], failed: set[int], random: np.random.Generator, began: float
) -> Iterator[dict[str, Any]]:
    seconds = random.gamma(4.0, 0.02, (len(jobs), 3)).tolist()
    for i, (number, split) in enumerate(jobs):
        kind, message = FAULTS[i % len(FAULTS)] if i in failed else (None, None)
        yield {
            "id": first + i,
            "study_id": study,
            "candidate_id": first + number,
            "split": split.value,
            "status": "scored" if kind is None else "failed",
            "asked_seq": 2 * i + 1,
            "told_seq": 2 * i + 2,
            "asked": began + SECONDS * i,
            "told": began + SECONDS * i + sum(seconds[i]),
            "kind": kind,
            "message": message,
            "queue_seconds": seconds[i][0],
            "build_seconds": seconds[i][1],
            "score_seconds": seconds[i][2],
            "worker": f"worker-{i % 2}",
            "record_seconds": 0.002,
            "gpu_seconds": 0.0,
        }


def _score_rows(
    first: int, jobs: Sequence[Job], failed: set[int], means: Matrix, random: np.random.Generator
) -> Iterator[dict[str, Any]]:
    values = means.tolist()
    shifts = (0.01 * random.standard_normal(means.shape)).tolist()
    count = means.shape[1]
    for i, (number, split) in enumerate(jobs):
        if i in failed:
            continue
        for k in range(count):
            value = values[number][k] + (0.0 if split is Split.SEARCH else shifts[number][k])
            stderr = (max(value * (1.0 - value), 0.0) / EXAMPLES) ** 0.5
            row = {"evaluation_id": first + i, "objective": EXPERTS[k], "value": value, "stderr": stderr, "n": EXAMPLES}
            yield {**row, "position": k, "metric": "", "is_objective": True}
            yield {**row, "position": count + k, "metric": "accuracy", "is_objective": False}


def _insert(connection: Connection, table: Table, rows: Iterator[dict[str, Any]]) -> None:
    while chunk := list(islice(rows, CHUNK)):
        connection.execute(insert(table), chunk)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--name", default="big")
    parser.add_argument("--evaluations", type=int, default=100_000)
    parser.add_argument("--objectives", type=int, default=4)
    arguments = parser.parse_args()
    began = time.perf_counter()
    told = big_study(arguments.url, arguments.name, evaluations=arguments.evaluations, objectives=arguments.objectives)
    print(f"{told} evaluations in {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
