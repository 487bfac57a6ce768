"""A pool that is opened by its first job: a study whose scores are all in the store takes no worker."""

from collections.abc import Callable, Sequence
from typing import final

from mergesearch.pool.base import Job, JobResult, Usage, WorkerPool


@final
class LazyPool(WorkerPool):
    """WorkerPool; see `pool/base.py` for the contract. A pool that cannot be opened raises PoolError from `submit`."""

    def __init__(self, opened: Callable[[], WorkerPool]) -> None:
        self._opened = opened
        self._pool: WorkerPool | None = None

    def open(self) -> WorkerPool:
        """The pool behind it, opened if it was not. Raises PoolError if it cannot be."""
        if self._pool is None:
            self._pool = self._opened()
        return self._pool

    @property
    def size(self) -> int:
        """1 until the first job."""
        return 1 if self._pool is None else self._pool.size

    @property
    def gpus(self) -> float:
        """GPUs that each worker holds; opens the pool."""
        return self.open().gpus

    def usage(self) -> Usage:
        """No workers until the first job."""
        return Usage() if self._pool is None else self._pool.usage()

    def submit(self, job: Job) -> None:
        """As the pool's own; opens it."""
        self.open().submit(job)

    def poll(self, timeout: float) -> Sequence[JobResult]:
        """As the pool's own; empty at once before the first job."""
        return [] if self._pool is None else self._pool.poll(timeout)

    def close(self) -> None:
        """Close the pool if it was opened."""
        if self._pool is not None:
            self._pool.close()
