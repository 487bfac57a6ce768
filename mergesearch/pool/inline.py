"""One worker in this process: no start-up cost, no time limit, one job at a time.

A job runs within `poll`, which returns when it is done. For trying things, small studies, and tests.
"""

from collections import deque
from collections.abc import Sequence
from typing import ClassVar, final

from mergesearch.errors import PoolError
from mergesearch.plugins import PluginOptions
from mergesearch.pool.base import Job, JobResult, Usage, Worker, WorkerFactory, WorkerOptions
from mergesearch.pool.jobs import Ticket, finished, guarded, now, start_worker


@final
class InlinePool:
    """WorkerPool; see `pool/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = WorkerOptions

    def __init__(self, options: PluginOptions, factory: WorkerFactory) -> None:  # noqa: ARG002
        self._factory = factory
        self._worker: Worker | None = None
        self._waiting: deque[Ticket] = deque()
        self._closed = False
        self._ready = self._busy = 0.0

    @property
    def size(self) -> int:
        """Always 1."""
        return 1

    @property
    def gpus(self) -> float:
        """0: this process holds no GPU that Ray would count."""
        return 0.0

    def usage(self) -> Usage:
        """Busy while `poll` runs a job."""
        if self._worker is None:
            return Usage()
        return Usage(1, self._busy, now() - self._ready)

    def submit(self, job: Job) -> None:
        """Queue a job; the first one builds the worker. Raises PoolError if that fails, or after `close`."""
        if self._closed:
            raise PoolError("this pool is closed; open another")
        if self._worker is None:
            self._worker = start_worker(self._factory)
            self._ready = now()
        self._waiting.append(Ticket(job, now()))

    def poll(self, timeout: float) -> Sequence[JobResult]:  # noqa: ARG002
        """Run the oldest job to its end, whatever `timeout` says; empty at once if there is none."""
        if not self._waiting or self._worker is None:
            return []
        ticket, started = self._waiting[0], now()
        outcome = guarded(self._worker.evaluate, ticket.job)
        self._waiting.popleft()
        self._busy += now() - started
        return [finished(ticket, outcome, started, "inline")]

    def close(self) -> None:
        """Drop the worker and what it holds."""
        self._closed = True
        self._worker = None
        self._waiting.clear()
