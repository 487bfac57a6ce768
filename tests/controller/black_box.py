"""A small black box for tests of the controller: a worker, a study of it, and a store that kills its controller."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, final

import numpy as np

from mergesearch.controller.loop import Controller, StudyRun
from mergesearch.errors import StudyNotFound
from mergesearch.pool.base import Job, JobResult, Usage, WorkerPool
from mergesearch.pool.profile import Profile, open_pool
from mergesearch.results import Results
from mergesearch.space import SearchSpace
from mergesearch.store.base import StudyStore
from mergesearch.stored import describe
from mergesearch.strategies.base import Problem
from mergesearch.strategies.make import make_strategy, needs
from mergesearch.types import Candidate, Direction, Objective, Outcome, Score, Scored, Split, Vector

OBJECTIVES = (Objective("up", Direction.MAX), Objective("down", Direction.MIN))
BASELINES = ("baseline:base", "baseline:expert:a", "baseline:lambda:0.3")
SPACE = SearchSpace.box(4, 0.0, 1.0)


class Sphere:
    """A worker: distance to 0.7 of two kinds, taking so many GPU-seconds for an evaluation."""

    def __init__(self, gpu: float = 0.0) -> None:
        self.gpu = gpu
        self.seen: list[tuple[int, Split]] = []

    def evaluate(self, job: Job) -> Outcome:
        self.seen.append((job.number, job.split))
        values = np.asarray(job.work)
        near, far = float(((values - 0.7) ** 2).mean()), float(((values - 0.4) ** 2).mean())
        shift = {Split.SEARCH: 0.0, Split.CONFIRM: 0.01, Split.TEST: 0.02}[job.split]
        scores = {"up": Score(1 - near + shift, 0.01, 100), "down": Score(far + shift, 0.01, 100)}
        return Scored(scores)


@final
class OnGpu(WorkerPool):
    """This process as a worker that holds a GPU; every evaluation takes the worker's GPU-seconds of it."""

    def __init__(self, worker: Sphere) -> None:
        self._worker, self._pool = worker, open_pool(Profile(), lambda: worker)

    size = property(lambda self: self._pool.size)
    gpus = property(lambda _: 1.0)

    def usage(self) -> Usage:
        return self._pool.usage()

    def submit(self, job: Job) -> None:
        self._pool.submit(job)

    def poll(self, timeout: float) -> list[JobResult]:
        def stamped(outcome: Outcome) -> Outcome:
            return replace(outcome, timing=replace(outcome.timing, gpu=self._worker.gpu))

        return [replace(done, outcome=stamped(done.outcome)) for done in self._pool.poll(timeout)]

    def close(self) -> None:
        self._pool.close()


def work(candidate: Candidate) -> Vector:
    """The natural values of a candidate: a baseline's by its name."""
    if candidate.point is None:
        return np.full(4, {"base": 0.0, "expert:a": 0.6}.get(candidate.origin.removeprefix("baseline:"), 0.3))
    return SPACE.values(candidate.point)


def study(
    kind: str = "cma_es", evaluations: float = 20, options: Mapping[str, Any] | None = None, **more: Any
) -> StudyRun:
    """A study 's' of four axes."""
    problem = Problem(4, OBJECTIVES, SPACE.start, evaluations, gradients=("loss",))
    strategy = make_strategy(kind, problem, 0, options or {})
    return StudyRun("s", OBJECTIVES, evaluations, strategy, work, needs=needs(kind, options or {}), **more)


def run(store: StudyStore, run: StudyRun, worker: Sphere | None = None, **more: Any) -> Results:
    """Run it in `store`, where it is created if it is not there."""
    made = worker or Sphere()
    try:
        store.study("s")
    except StudyNotFound:
        store.create("s", "", "", facts=describe(SPACE, OBJECTIVES, run.evaluations, "cma_es"))
    return Controller(run, store, OnGpu(made), **more).run()


class Killed(BaseException):
    """The controller's process is gone, and nothing of it runs any more."""


@final
class Killing:
    """A store whose user is killed before or after the write that `when` says; it leaves its lease as it was."""

    WRITES = ("ask", "tell", "set_facts", "set_status", "release")

    def __init__(self, store: StudyStore, when: Callable[[int], str]) -> None:
        self._store, self._when, self._writes, self._dead = store, when, 0, False

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if name not in self.WRITES:
            return real

        def write(*args: Any, **more: Any) -> Any:
            when = "before" if self._dead else self._when(self._writes)
            self._writes += 1
            if when == "before":
                self._dead = True
                raise Killed
            done = real(*args, **more)
            if when == "after":
                self._dead = True
                raise Killed
            return done

        return write


def points(results: Results) -> dict[int, list[float]]:
    """The points of all candidates that have one."""
    return {n: c.point.tolist() for n, c in results.candidates.items() if c.point is not None}
