"""Promises of the Ray pool when workers are killed at each step, go out of reach, or run out of memory."""

import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from contracts.pool import finish, jobs

from mergesearch.pool.base import Job, JobResult, Worker, WorkerFactory, WorkerPool
from mergesearch.pool.profile import open_pool, parse_profile
from mergesearch.types import Failed, Outcome, Score, Scored, Split

pytestmark = [pytest.mark.ray, pytest.mark.chaos]

STEPS = ("starting", "beginning", "middle", "returning")


class Deadly:
    """A number that kills the process that pickles it, once."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., float], tuple[float]]:
        die_once(self.mark)
        return float, (1.0,)


class Fragile:
    """A worker that kills its process at one step, the first time; each step is noted in a folder."""

    def __init__(self, folder: Path, step: str, seconds: float) -> None:
        self.folder, self.step, self.seconds = folder, step, seconds
        self._die("starting")

    def evaluate(self, job: Job) -> Outcome:
        """Job 1 is the deadly one."""
        if job.number != 1:
            time.sleep(self.seconds)
            return Scored({"pid": Score(float(os.getpid()))})
        (self.folder / f"job-1-{os.getpid()}").touch()
        self._die("beginning")
        time.sleep(self.seconds)
        self._die("middle")
        value: Any = Deadly(self.folder / "died") if self.step == "returning" else 1.0
        return Scored({"pid": Score(float(os.getpid()))}, {"pid": {"extra": value}})

    def _die(self, step: str) -> None:
        if step == self.step:
            die_once(self.folder / "died")


def die_once(mark: Path) -> None:
    """SIGKILL to this process, unless it was done before."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class Hungry:
    """A worker whose job 1 asks for more memory than it may have."""

    def evaluate(self, job: Job) -> Outcome:
        """Limits this process for the time of the job."""
        limits = resource.getrlimit(resource.RLIMIT_AS)
        try:
            if job.number == 1:
                resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**26, limits[1]))
                np.ones(2**30)
            return Scored({"pid": Score(1.0)})
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray of two cores for all tests of this module."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
    yield
    ray.shutdown()


@pytest.fixture
def opened(cluster: None) -> Iterator[Callable[..., WorkerPool]]:
    """Opens pools of two workers, and closes them."""
    pools: list[WorkerPool] = []

    def open_one(factory: WorkerFactory, **options: Any) -> WorkerPool:
        profile = parse_profile({"pool": "ray", "workers": 2, "cpus_per_worker": 0.5, **options}, "test")
        pools.append(open_pool(profile, factory))
        return pools[-1]

    yield open_one
    for pool in pools:
        pool.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("step", STEPS)
def test_a_worker_killed_at_any_step_loses_nothing(
    opened: Callable[..., WorkerPool], tmp_path: Path, step: str
) -> None:
    """While it starts, takes a job, is at it, or returns the outcome: every job comes back once, scored, and the one
    that lost its worker in its second attempt."""
    pool = opened(partial(Fragile, tmp_path, step, 0.1))
    for job in jobs(5):
        pool.submit(job)
    results = finish(pool, 5)
    assert (tmp_path / "died").exists()
    assert [r.job.number for r in results] == list(range(5))
    assert all(isinstance(r.outcome, Scored) for r in results)
    assert [r.attempt for r in results] == [1, 1 if step == "starting" else 2, 1, 1, 1]
    assert list(pool.poll(0.0)) == []


@pytest.mark.timeout(120)
def test_workers_that_die_while_idle_are_no_job_s_fault(opened: Callable[..., WorkerPool], tmp_path: Path) -> None:
    """Two workers are killed that had no job for a while, then one comes: it is scored, and in its first attempt."""
    pool = opened(partial(Fragile, tmp_path, "never", 0.1))
    for job in (Job(10, Split.SEARCH, np.zeros(1)), Job(11, Split.SEARCH, np.zeros(1))):
        pool.submit(job)
    first = finish(pool, 2)
    while pool.usage().workers < 2:
        pool.submit(Job(12, Split.SEARCH, np.zeros(1)))
        finish(pool, 1)
    slots = pool._slots  # type: ignore[attr-defined]
    for pid in {int(slot.name.rpartition(":")[2]) for slot in slots}:
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        pool.poll(0.1)
        time.sleep(0.1)
    assert all(isinstance(r.outcome, Scored) for r in first)
    pool.submit(Job(13, Split.SEARCH, np.zeros(1)))
    (result,) = finish(pool, 1)
    assert isinstance(result.outcome, Scored)
    assert result.attempt == 1


def test_memory_that_runs_out_fails_that_job_alone(opened: Callable[..., WorkerPool]) -> None:
    """A MemoryError comes back as Failed; the worker lives on."""
    pool = opened(Hungry, workers=1)
    for job in jobs(3):
        pool.submit(job)
    results = finish(pool, 3)
    assert [type(r.outcome) for r in results] == [Scored, Failed, Scored]
    assert isinstance(results[1].outcome, Failed)
    assert "MemoryError" in results[1].outcome.kind
    assert len({r.outcome.worker for r in results}) == 1


def cut(pid: int) -> int:
    """Shut this process's own connections to another one; returns how many there were."""
    theirs = {c.laddr.port for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    count = 0
    for connection in psutil.Process().net_connections("tcp"):
        if connection.raddr and connection.raddr.port in theirs and connection.fd >= 0:
            with socket.socket(fileno=os.dup(connection.fd)) as link:
                link.shutdown(socket.SHUT_RDWR)
            count += 1
    return count


def collect(pool: WorkerPool, count: int, seconds: float) -> list[JobResult]:
    """The next `count` results in the order they came."""
    results: list[JobResult] = []
    end = time.monotonic() + seconds
    while len(results) < count and time.monotonic() < end:
        results.extend(pool.poll(0.2))
    return results


@pytest.mark.timeout(240)
def test_a_worker_that_was_only_out_of_reach_is_believed_and_used_again(
    opened: Callable[..., WorkerPool], tmp_path: Path
) -> None:
    """Its job is given to another at once; when it answers again its outcome is handed out as well, with the attempt
    that it was, and it gets the next jobs: no process was replaced."""
    pool = opened(partial(Fragile, tmp_path, "never", 3.0))
    pool.submit(Job(1, Split.SEARCH, np.zeros(1)))
    wait = time.monotonic() + 60
    while not list(tmp_path.glob("job-1-*")):
        assert time.monotonic() < wait
        pool.poll(0.2)
    first = int(next(tmp_path.glob("job-1-*")).name.rpartition("-")[2])
    assert cut(first) > 0
    results = collect(pool, 2, 80)
    assert [(r.job.number, type(r.outcome)) for r in results] == [(1, Scored)] * 2
    assert sorted(r.attempt for r in results) == [1, 2]
    workers = {r.attempt: int(r.outcome.worker.rpartition(":")[2]) for r in results}
    assert workers[1] == first
    assert workers[2] != first
    for number in (2, 3):
        pool.submit(Job(number, Split.SEARCH, np.zeros(1)))
    more = collect(pool, 2, 80)
    assert {int(r.outcome.worker.rpartition(":")[2]) for r in more} == set(workers.values())


@pytest.mark.timeout(120)
def test_a_late_outcome_stands_for_a_job_that_nobody_has_begun_again(
    opened: Callable[..., WorkerPool], tmp_path: Path
) -> None:
    """Of a pool with one worker: the job waits for it to come back, and ends once."""
    pool = opened(partial(Fragile, tmp_path, "never", 2.0), workers=1)
    pool.submit(Job(1, Split.SEARCH, np.zeros(1)))
    wait = time.monotonic() + 60
    while not list(tmp_path.glob("job-1-*")):
        assert time.monotonic() < wait
        pool.poll(0.2)
    assert cut(int(next(tmp_path.glob("job-1-*")).name.rpartition("-")[2])) > 0
    (result,) = collect(pool, 1, 40)
    assert (result.job.number, type(result.outcome), result.attempt) == (1, Scored, 1)
    assert len(list(tmp_path.glob("job-1-*"))) == 1
    assert list(pool.poll(0.0)) == []


def test_usage_counts_the_seconds_of_ready_workers(opened: Callable[..., WorkerPool], tmp_path: Path) -> None:
    """Two workers that always have a job are busy nearly all of the time since they were ready, half of it when only
    one has; GPU-seconds are build and score times the worker's GPUs, here none."""
    pool: WorkerPool = opened(partial(Fragile, tmp_path, "never", 0.25))
    assert pool.usage().share == 0
    for number in range(20):
        pool.submit(Job(number + 2, Split.SEARCH, np.zeros(1)))
    results = finish(pool, 20)
    usage = pool.usage()
    assert usage.workers == 2
    assert usage.busy >= 20 * 0.25
    assert 0.5 < usage.share <= 1
    assert {r.outcome.timing.gpu for r in results} == {0.0}
    begin = time.monotonic()
    while time.monotonic() < begin + 0.5:
        pool.poll(0.1)
        time.sleep(0.1)
    later = pool.usage()
    assert later.busy == usage.busy
    assert later.available >= usage.available + 1.0


def test_dashboards_show_the_study_and_the_candidate(opened: Callable[..., WorkerPool], tmp_path: Path) -> None:
    """Actors are called STUDY/worker-N; a second pool of the same study finds the name taken and adds to it."""
    names = set()
    for _ in range(2):
        pool = opened(partial(Fragile, tmp_path, "never", 0.0), workers=1)
        pool.submit(Job(2, Split.SEARCH, np.zeros(1), study="vision-4"))
        finish(pool, 1)
        names |= set(ray.util.list_named_actors())
    assert "vision-4/worker-1" in names
    assert len(names) == 2
    assert all(name.startswith("vision-4/worker-1") for name in names)


_: type[Worker] = Fragile
