"""Workers that only sleep: a pool of threads, for measuring the controller and the store rather than the scoring."""

import queue
import threading
from collections.abc import Callable, Sequence

from mergesearch.pool.base import Job, JobResult, Usage
from mergesearch.pool.jobs import Ticket, finished, now
from mergesearch.types import Outcome


class SleepingPool:
    """A WorkerPool of `workers` threads; `evaluate` says how a job ends, after however long it sleeps."""

    def __init__(self, workers: int, evaluate: Callable[[Job], Outcome]) -> None:
        self._evaluate = evaluate
        self._jobs: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[JobResult] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._busy = 0.0
        self._under_way: dict[str, float] = {}  # worker -> when its job began
        self._open = 0
        self._began: float | None = None
        self._threads = [threading.Thread(target=self._work, args=(f"w{n}",), daemon=True) for n in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def size(self) -> int:
        """Number of threads."""
        return len(self._threads)

    @property
    def gpus(self) -> float:
        """None."""
        return 0.0

    def usage(self) -> Usage:
        """Counted from the first job on, with what of the jobs under way is done."""
        since = 0.0 if self._began is None else now() - self._began
        with self._lock:
            busy = self._busy + sum(now() - began for began in self._under_way.values())
        return Usage(self.size, busy, self.size * since)

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._began = self._began or now()
        self._open += 1
        self._jobs.put(Ticket(job, now()).started())

    def poll(self, timeout: float) -> Sequence[JobResult]:
        """What ended, waiting for the first."""
        if not self._open:
            return []
        found = []
        try:
            found.append(self._done.get(timeout=timeout))
            while True:
                found.append(self._done.get_nowait())
        except queue.Empty:
            pass
        self._open -= len(found)
        return found

    def close(self) -> None:
        """End the threads."""
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self, name: str) -> None:
        while (ticket := self._jobs.get()) is not None:
            began = now()
            with self._lock:
                self._under_way[name] = began
            outcome = self._evaluate(ticket.job)
            with self._lock:
                self._busy += now() - self._under_way.pop(name)
            self._done.put(finished(ticket, outcome, began, name))
