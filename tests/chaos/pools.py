"""Worker pools for chaos: threads, so that several jobs are in flight without Ray, and results that come twice."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import final

from mergesearch.pool.base import Job, JobResult, Usage, Worker, WorkerPool
from mergesearch.types import Outcome, Score, Scored


@final
class ThreadPool:
    """WorkerPool of threads in this process."""

    def __init__(self, factory: Callable[[], Worker], workers: int) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[JobResult] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, args=(factory(), f"thread-{i}"), daemon=True) for i in range(workers)
        ]
        self._out = 0
        for thread in self._threads:
            thread.start()

    def _work(self, worker: Worker, name: str) -> None:
        while (job := self._jobs.get()) is not None:
            self._done.put(JobResult(job, replace(worker.evaluate(job), worker=name)))

    @property
    def size(self) -> int:
        """Number of threads."""
        return len(self._threads)

    @property
    def gpus(self) -> float:
        """None."""
        return 0.0

    def usage(self) -> Usage:
        """Not measured."""
        return Usage(len(self._threads))

    def submit(self, job: Job) -> None:
        """For the next idle thread."""
        self._out += 1
        self._jobs.put(job)

    def poll(self, timeout: float) -> Sequence[JobResult]:
        """What ended."""
        if not self._out:
            return []
        try:
            results = [self._done.get(timeout=timeout)]
        except queue.Empty:
            return []
        while not self._done.empty():
            results.append(self._done.get())
        self._out -= len(results)
        return results

    def close(self) -> None:
        """The threads end after the job they are at."""
        for _ in self._threads:
            self._jobs.put(None)


@final
class EchoPool:
    """WorkerPool that delivers every `each`-th result again, `behind` results later, its scores moved by `moved`: as
    does a worker that was believed lost and had only been out of reach."""

    def __init__(self, pool: WorkerPool, each: int, behind: int, moved: float) -> None:
        self._pool, self._each, self._behind, self._moved = pool, each, behind, moved
        self._count = 0
        self._late: deque[tuple[int, JobResult]] = deque()

    @property
    def size(self) -> int:
        """As the pool's."""
        return self._pool.size

    @property
    def gpus(self) -> float:
        """As the pool's."""
        return self._pool.gpus

    def usage(self) -> Usage:
        """As the pool's."""
        return self._pool.usage()

    def submit(self, job: Job) -> None:
        """As the pool's."""
        self._pool.submit(job)

    def poll(self, timeout: float) -> Sequence[JobResult]:
        """What ended, and what comes late."""
        results: list[JobResult] = []
        for done in self._pool.poll(timeout):
            self._count += 1
            results.append(done)
            if self._count % self._each == 0:
                outcome = moved(done.outcome, self._moved)
                self._late.append((self._count + self._behind, replace(done, outcome=outcome, attempt=2)))
        while self._late and self._late[0][0] <= self._count:
            results.append(self._late.popleft()[1])
        return results

    def close(self) -> None:
        """As the pool's."""
        self._pool.close()


def moved(outcome: Outcome, by: float) -> Outcome:
    """An outcome with its scores moved."""
    if not isinstance(outcome, Scored):
        return outcome
    scores = {name: replace(score, value=score.value + by) for name, score in outcome.scores.items()}
    metrics: dict[str, dict[str, Score]] = {name: {name: score} for name, score in scores.items()}
    return replace(outcome, scores=scores, metrics={**outcome.metrics, **metrics})


def nap(seconds: float) -> None:
    """Sleep where there is something to sleep."""
    if seconds > 0:
        time.sleep(seconds)
