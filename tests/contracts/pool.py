"""What every worker pool promises. A test module imports these tests and gives a fixture `opened`."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest

from mergesearch.errors import CheckpointError, PoolError
from mergesearch.pool.base import Job, JobResult, Worker, WorkerFactory, WorkerPool
from mergesearch.pool.function import FunctionWorker
from mergesearch.types import Failed, Outcome, Request, Score, Scored, Split, Timing, Vector

Opened = Callable[[WorkerFactory], WorkerPool]


def add(values: Vector) -> dict[str, float]:
    """A function whose score says which job it was."""
    if values[0] == 3:
        raise ValueError("three is\nnot to my taste")
    return {"sum": float("nan") if values[0] == 5 else float(values.sum())}


class SplitWorker:
    """A Worker that answers with the job's split and number, and its point as a gradient of the requested name."""

    def evaluate(self, job: Job) -> Outcome:
        wanted = job.request
        metrics = {} if wanted == Request() else {wanted.gradient: {"share": Score(wanted.share, wanted.offset)}}
        gradients = {} if job.point is None else {wanted.gradient: job.point}
        return Scored(
            {job.split.value: Score(job.number)}, metrics, gradients=gradients, timing=Timing(build=0.25, score=0.5)
        )


def missing_file() -> Worker:
    """A factory that cannot find its checkpoint."""
    raise CheckpointError("expert 'mnist': './runs/mnist' does not exist")


def too_large() -> Worker:
    """A factory that runs out of memory."""
    raise MemoryError("cannot allocate 64 GiB")


def bug() -> Worker:
    """A factory with a fault of its own."""
    raise KeyError("no such thing")


def jobs(count: int) -> list[Job]:
    """Jobs whose first value is their number."""
    return [Job(i, Split.SEARCH, np.array([i, 0.5])) for i in range(count)]


def finish(pool: WorkerPool, count: int, seconds: float = 60.0) -> list[JobResult]:
    """The next `count` results, in order of their numbers."""
    results: list[JobResult] = []
    end = time.monotonic() + seconds
    while len(results) < count and time.monotonic() < end:
        results.extend(pool.poll(1.0))
    return sorted(results, key=lambda result: result.job.number)


ADD = partial(FunctionWorker, add, ("sum",))


def test_every_job_comes_back_once(opened: Opened) -> None:
    """More jobs than workers: each ends once, with its own outcome, its worker's name and its time in the queue."""
    pool = opened(ADD)
    for job in jobs(8):
        pool.submit(job)
    results = finish(pool, 8)
    assert [r.job.number for r in results] == list(range(8))
    assert list(pool.poll(0.0)) == []
    for result in results:
        assert result.outcome.worker
        assert result.outcome.timing.queue >= 0
        if result.job.number not in (3, 5):
            assert isinstance(result.outcome, Scored)
            assert result.outcome.scores == {"sum": Score(result.job.number + 0.5)}


def test_a_fault_is_that_job_s_alone(opened: Opened) -> None:
    """An exception and a score that is not finite come back as Failed with one line; the pool goes on."""
    pool = opened(ADD)
    for job in jobs(7):
        pool.submit(job)
    outcomes = [r.outcome for r in finish(pool, 7)]
    assert [type(o).__name__ for o in outcomes] == ["Scored"] * 3 + ["Failed", "Scored", "Failed", "Scored"]
    raised, nan = outcomes[3], outcomes[5]
    assert isinstance(raised, Failed)
    assert (raised.kind, raised.message) == ("ValueError", "three is not to my taste")
    assert isinstance(nan, Failed)
    assert (nan.kind, nan.message) == ("not_finite", "objective 'sum' is nan")


def test_a_worker_s_own_timing_is_kept(opened: Opened) -> None:
    """The pool adds the time in the queue to the worker's build and score times; the job arrives whole."""
    pool = opened(SplitWorker)
    for number, split in enumerate(Split):
        pool.submit(Job(number, split, np.zeros(1)))
    for result, split in zip(finish(pool, 3), Split, strict=True):
        assert isinstance(result.outcome, Scored)
        assert result.outcome.scores == {split.value: Score(result.job.number)}
        assert (result.outcome.timing.build, result.outcome.timing.score) == (0.25, 0.5)


def test_a_request_and_a_gradient_pass_whole(opened: Opened) -> None:
    """What of an evaluation is wanted and the point reach the worker; gradients come back in float64, bit for bit."""
    pool, point = opened(SplitWorker), np.random.default_rng(0).random(50)
    pool.submit(Job(0, Split.SEARCH, np.zeros(1), Request(0.25, 0.5, "kl"), point))
    (result,) = finish(pool, 1)
    assert isinstance(result.outcome, Scored)
    assert result.outcome.metrics == {"kl": {"share": Score(0.25, 0.5)}}
    assert result.outcome.gradients["kl"].tobytes() == point.tobytes()
    assert result.job.request == Request(0.25, 0.5, "kl")


def test_nothing_to_wait_for(opened: Opened) -> None:
    """With no job, poll returns nothing, and at once."""
    pool = opened(ADD)
    begin = time.monotonic()
    assert list(pool.poll(30.0)) == []
    assert time.monotonic() - begin < 10.0
    assert pool.size >= 1


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (missing_file, r"^expert 'mnist': './runs/mnist' does not exist$"),
        (too_large, r"^a worker ran out of memory while it loaded the models: cannot allocate 64 GiB; use fewer"),
        (bug, r"^a worker cannot start: KeyError: 'no such thing'$"),
    ],
)
def test_a_worker_that_cannot_start_stops_the_study(opened: Opened, factory: WorkerFactory, sentence: str) -> None:
    """The first cause's own sentence arrives as a PoolError from submit or poll."""

    def use(given: Sequence[Job]) -> None:
        pool = opened(factory)
        for job in given:
            pool.submit(job)
        finish(pool, len(given), seconds=30.0)

    with pytest.raises(PoolError, match=sentence):
        use(jobs(1))


def nap(values: Vector) -> dict[str, float]:
    """A function that takes its time."""
    time.sleep(0.1)
    return {"sum": 0.0}


def test_a_pool_says_how_busy_it_was(opened: Opened) -> None:
    """Worker-seconds since each worker was ready, and those spent on jobs; none before the first job. Undisturbed jobs
    end in their first attempt, and take no GPU-seconds of workers that hold no GPU."""
    pool = opened(partial(FunctionWorker, nap, ("sum",)))
    assert (pool.usage().workers, pool.usage().share, pool.gpus) == (0, 0.0, 0.0)
    for job in jobs(4):
        pool.submit(job)
    results = finish(pool, 4)
    usage = pool.usage()
    assert 1 <= usage.workers <= max(pool.size, 1)
    assert 0.4 <= usage.busy <= usage.available
    assert 0 < usage.share <= 1
    assert [(r.attempt, r.outcome.timing.gpu) for r in results] == [(1, 0.0)] * 4


def test_closing_is_final_and_may_be_repeated(opened: Opened) -> None:
    """A closed pool takes no job and can be closed again, also with jobs queued."""
    pool = opened(ADD)
    pool.submit(jobs(1)[0])
    pool.close()
    pool.close()
    with pytest.raises(PoolError, match="closed"):
        pool.submit(jobs(1)[0])
    assert list(pool.poll(0.0)) == []
