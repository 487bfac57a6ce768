"""Stores with studies in them, made quickly: what the web tests look at."""

import numpy as np

from mergesearch.results import BASE, EXPERT, UNIFORM
from mergesearch.space import SearchSpace
from mergesearch.store.base import StudyStore
from mergesearch.stored import describe
from mergesearch.types import Candidate, Direction, Failed, Objective, Score, Scored, Split, Status, Timing


def fill(
    store: StudyStore,
    name: str,
    *,
    evaluations: int = 60,
    objectives: int = 2,
    dim: int = 4,
    seed: int = 0,
    status: Status = Status.DONE,
    fail: int = 7,
) -> None:
    """A finished study of a smooth function: baselines, search, each `fail`-th evaluation failed, confirm and test.

    Objectives are a, b, c, ... in 0 to 1; the last one is minimised if there are more than two.
    """
    directions = [Direction.MIN if objectives > 2 and i == objectives - 1 else Direction.MAX for i in range(objectives)]
    aims = tuple(Objective("abcdefgh"[i], d, low=0.0, high=1.0) for i, d in enumerate(directions))
    space = SearchSpace.box(dim, 0.0, 1.0)
    random = np.random.Generator(np.random.Philox(seed))
    tops = random.random((objectives, dim))
    store.create(name, f"name: {name}\n", "", facts=describe(space, aims, float(evaluations), "cma_es", by="ada@node7"))
    lease = store.acquire(name, "here:1:1:test", 600.0)
    number = 0

    def tell(candidate: Candidate, split: Split, point: np.ndarray, failed: bool = False) -> None:
        store.ask(lease, candidate, split)
        if failed:
            store.tell(lease, candidate.number, split, Failed("ValueError", "the tensor 'x' has shape (2, 3)"))
            return
        values = {}
        for aim, top in zip(aims, tops, strict=True):
            good = float(np.exp(-2.0 * ((point - top) ** 2).mean()))
            values[aim.name] = Score(good if aim.direction is Direction.MAX else 1.0 - good, 0.01, 100)
        store.tell(lease, candidate.number, split, Scored(values, timing=Timing(0.1, 0.02, 0.3, 0.001), worker="w0"))

    origins = [BASE, *(f"{EXPERT}{aim.name}" for aim in aims), UNIFORM, "baseline:lambda:0.3"]
    places = [np.zeros(dim), *tops, tops.mean(axis=0), np.full(dim, 0.3)]
    for origin, point in zip(origins, places, strict=True):
        tell(Candidate(number, None, origin), Split.SEARCH, point)
        number += 1
    for i in range(evaluations):
        point = random.random(dim)
        tell(Candidate(number, point), Split.SEARCH, point, failed=bool(fail) and i % fail == fail - 1)
        number += 1
    store.set_status(lease, status, "")
    store.release(lease)
