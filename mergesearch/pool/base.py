"""What a worker pool is: jobs in, outcomes out, in any order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from pydantic import PositiveInt

from mergesearch.plugins import PluginOptions
from mergesearch.recipe import Recipe
from mergesearch.types import Outcome, Request, Split, Vector


class WorkerOptions(PluginOptions):
    """What any profile may say of its workers; a pool's own options come on top."""

    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where the worker sees one
    threads_per_worker: PositiveInt | None = None  # computing threads of a worker


@dataclass(frozen=True, eq=False)
class Job:
    """One evaluation: `work` is the recipe to build, or for a black-box function its natural values (D,).

    `request` says which examples, and whether gradients are wanted; `point` (D,) is what they are taken with respect
    to, None for a baseline.
    """

    number: int
    split: Split
    work: Recipe | Vector
    request: Request = Request()
    point: Vector | None = None
    study: str = ""

    @property
    def name(self) -> str:
        """What a dashboard calls it: 'vision-4/17', with the split behind it where it is not the search's."""
        where = "" if self.split is Split.SEARCH else f"/{self.split.value}"
        return f"{self.study or 'study'}/{self.number}{where}"


@dataclass(frozen=True, eq=False)
class JobResult:
    """A job and how it ended, in its so-many-th attempt. A job that was given to another worker may end twice: when
    the first one had only been out of reach. `outcome.timing.gpu` is set by the pool."""

    job: Job
    outcome: Outcome
    attempt: int = 1


@dataclass(frozen=True)
class Usage:
    """What the workers did so far: `workers` are ready now; of `available` worker-seconds, counted for each from the
    moment it was ready, `busy` were spent on jobs."""

    workers: int = 0
    busy: float = 0.0
    available: float = 0.0

    @property
    def share(self) -> float:
        """The share of their time that the workers were busy, 0 to 1; 0 before the first was ready."""
        return min(1.0, self.busy / self.available) if self.available > 0 else 0.0


class Worker(Protocol):
    """Lives in one process, loads what it needs when built, evaluates one job at a time."""

    def evaluate(self, job: Job) -> Outcome:
        """Never raises for a candidate's fault: an exception becomes `Failed`, a score that is not finite too."""
        ...


WorkerFactory: TypeAlias = Callable[[], Worker]
"""Builds a worker in its own process; picklable. Raises a MergesearchError when nothing can be evaluated at all."""


class WorkerPool(Protocol):
    """Runs jobs on workers. One thread at a time.

    An elastic pool's size changes as workers join and leave; jobs beyond it wait in the pool. A lost worker's job is
    run again elsewhere, up to 3 attempts; a job that kills two workers, or exceeds the time limit, comes back as
    `Failed`. A worker that cannot start raises PoolError from `submit` or `poll`, and so does a cluster that is gone.
    """

    @property
    def size(self) -> int:
        """Jobs that can run at once, now."""
        ...

    @property
    def gpus(self) -> float:
        """GPUs that each worker holds."""
        ...

    def usage(self) -> Usage:
        """How busy the workers were so far."""
        ...

    def submit(self, job: Job) -> None: ...

    def poll(self, timeout: float) -> Sequence[JobResult]:
        """What ended, waiting at most `timeout` seconds for the first."""
        ...

    def close(self) -> None:
        """Stop the workers and free everything; jobs still running are lost (the log knows them). Idempotent."""
        ...
