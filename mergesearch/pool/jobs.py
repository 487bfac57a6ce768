"""What every pool does alike: start a worker or say why not, count a job's attempts, stamp its outcome."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from mergesearch.errors import MergesearchError, PoolError
from mergesearch.pool.base import Job, JobResult, Worker, WorkerFactory
from mergesearch.types import Failed, Outcome

ATTEMPTS = 3
KILLS = 2


@dataclass(frozen=True, eq=False)
class Ticket:
    """A job on its way: when it was submitted (`time.monotonic`), how often it was started, and how many workers
    died of it while their machine lived on."""

    job: Job
    submitted: float
    attempts: int = 0
    kills: int = 0

    def started(self) -> "Ticket":
        """One more attempt."""
        return replace(self, attempts=self.attempts + 1)

    def lost(self, machine_lives: bool, why: str = "out of memory, a crash?") -> "Ticket | Failed":
        """Its worker is gone: the ticket to try again elsewhere, or how it failed; `why` says what is known of it.

        A worker that dies alone was perhaps killed by the job, so the second such death ends it. When the whole
        machine is gone the job is not to blame, and it has three attempts.
        """
        kills = self.kills + 1 if machine_lives else self.kills
        if kills >= KILLS:
            return Failed("worker_lost", f"its worker process died {kills} times while it ran ({why})")
        if self.attempts >= ATTEMPTS:
            return Failed("worker_lost", f"its worker or machine was lost in each of {self.attempts} attempts")
        return replace(self, kills=kills)


def finished(ticket: Ticket, outcome: Outcome, started: float, worker: str, gpus: float = 0.0) -> JobResult:
    """The ticket's result, with the seconds it waited (`started` is of `time.monotonic`), who did it, and the
    GPU-seconds of a worker that holds so many GPUs."""
    own = outcome.timing
    timing = replace(own, queue=max(0.0, started - ticket.submitted), gpu=(own.build + own.score) * gpus)
    return JobResult(ticket.job, replace(outcome, timing=timing, worker=worker), max(1, ticket.attempts))


def start_worker(factory: WorkerFactory) -> Worker:
    """Build a worker.

    Raises:
        PoolError: it cannot start; the sentence is that of the first cause.
    """
    try:
        return factory()
    except MergesearchError as error:
        raise PoolError(str(error)) from error
    except Exception as error:
        if _is_out_of_memory(error):
            raise PoolError(
                f"a worker ran out of memory while it loaded the models: {one_sentence(error)}; "
                "use fewer workers, or a machine or GPU with more memory"
            ) from error
        raise PoolError(f"a worker cannot start: {type(error).__name__}: {one_sentence(error)}") from error


def one_sentence(error: BaseException) -> str:
    """An exception's text on one line of at most 500 characters; its class name if it has none."""
    text = " ".join(str(error).split())
    return (text if len(text) <= 500 else text[:497] + "...") or type(error).__name__


def _is_out_of_memory(error: Exception) -> bool:
    """torch.OutOfMemoryError by its name, since pools do not import torch."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def guarded(evaluate: Callable[[Job], Outcome], job: Job) -> Outcome:
    """The outcome of a job; a candidate's fault becomes `Failed`. KeyboardInterrupt and SystemExit go through."""
    try:
        return evaluate(job)
    except Exception as error:  # noqa: BLE001 - whatever a candidate raises is its own failure, not the study's
        return Failed(type(error).__name__, one_sentence(error))


def now() -> float:
    """Seconds of the clock that tickets use."""
    return time.monotonic()
