"""Promises of the Ray pool beyond the contract: lost workers, time limits, resources, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from contracts.pool import finish, jobs

from mergesearch.errors import PoolError
from mergesearch.pool.base import WorkerPool
from mergesearch.pool.function import FunctionWorker
from mergesearch.pool.profile import open_pool, parse_profile
from mergesearch.types import Failed, Scored, Vector

pytestmark = pytest.mark.ray

Function = Callable[[Vector], Mapping[str, float]]


def die_once(folder: str, values: Vector) -> dict[str, float]:
    """Job 2 kills its process the first time; a file remembers it."""
    mark = Path(folder) / "died"
    if values[0] == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"sum": float(values.sum())}


def die_always(folder: str, values: Vector) -> dict[str, float]:
    """Job 2 kills every process it gets, and counts them."""
    if values[0] == 2:
        with (Path(folder) / "deaths").open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return {"sum": float(values.sum())}


def sleepy(seconds: float, values: Vector) -> dict[str, float]:
    """Job 1 never ends; the others take `seconds`."""
    time.sleep(600 if values[0] == 1 and seconds == 0 else seconds)
    return {"sum": float(os.getpid())}


def surroundings(values: Vector) -> dict[str, float]:
    """What a worker process sees: torch's threads, and whether GPUs are hidden."""
    import torch

    return {"threads": torch.get_num_threads(), "hidden": float(os.environ["CUDA_VISIBLE_DEVICES"] == "")}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray of two cores for all tests of this module: pools use it and leave it running."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
    yield
    ray.shutdown()


@pytest.fixture
def opened(cluster: None) -> Iterator[Callable[..., WorkerPool]]:
    """Opens pools of two workers for a function, and closes them."""
    pools: list[WorkerPool] = []

    def open_one(function: Function, names: tuple[str, ...] = ("sum",), **options: Any) -> WorkerPool:
        profile = parse_profile({"pool": "ray", "workers": 2, "cpus_per_worker": 0.5, **options}, "test")
        pools.append(open_pool(profile, partial(FunctionWorker, function, names)))
        return pools[-1]

    yield open_one
    for pool in pools:
        pool.close()


def test_a_lost_worker_s_job_runs_again_elsewhere(opened: Callable[..., WorkerPool], tmp_path: Path) -> None:
    """A worker killed once costs no result: its job ends on another process, the rest never notice."""
    pool = opened(partial(die_once, str(tmp_path)))
    for job in jobs(6):
        pool.submit(job)
    results = finish(pool, 6)
    assert [(r.job.number, r.outcome.scores["sum"].value) for r in results if isinstance(r.outcome, Scored)] == [
        (i, i + 0.5) for i in range(6)
    ]
    assert (tmp_path / "died").exists()


def test_a_job_that_kills_two_workers_has_failed(opened: Callable[..., WorkerPool], tmp_path: Path) -> None:
    """It gets no third worker, and the other jobs all end well."""
    pool = opened(partial(die_always, str(tmp_path)))
    for job in jobs(6):
        pool.submit(job)
    results = finish(pool, 6)
    failed = {r.job.number: r.outcome for r in results if isinstance(r.outcome, Failed)}
    assert [r.job.number for r in results] == list(range(6))
    assert list(failed) == [2]
    assert failed[2].kind == "worker_lost"
    assert "died 2 times" in failed[2].message
    assert (tmp_path / "deaths").read_text() == "xx"


def test_workers_killed_from_outside_lose_nothing(opened: Callable[..., WorkerPool]) -> None:
    """Whichever worker is killed, busy or idle, every job comes back once."""
    pool = opened(partial(sleepy, 0.05))
    for job in jobs(2):
        pool.submit(job)
    first = finish(pool, 2)
    idle = int(first[0].outcome.worker.rpartition(":")[2])
    os.kill(idle, signal.SIGKILL)
    for job in jobs(8):
        pool.submit(job)
    results = finish(pool, 8)
    assert [r.job.number for r in results] == list(range(8))
    assert all(isinstance(r.outcome, Scored) for r in results)
    assert idle not in {int(r.outcome.worker.rpartition(":")[2]) for r in results}


def test_a_job_over_its_time_limit_is_stopped(opened: Callable[..., WorkerPool]) -> None:
    """It comes back as Failed soon after the limit; its worker is replaced and the other jobs end."""
    pool = opened(partial(sleepy, 0), timeout_s=8)
    for job in jobs(4):
        pool.submit(job)
    begin = time.monotonic()
    results = finish(pool, 4)
    assert time.monotonic() - begin < 60
    outcome = results[1].outcome
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.message) == ("timeout", "it took longer than timeout_s of 8 seconds and was stopped")
    assert outcome.timing.score >= 8  # what it took is counted, GPU-seconds too
    stopped = int(outcome.worker.rpartition(":")[2])
    assert [type(r.outcome) for r in results] == [Scored, Failed, Scored, Scored]
    assert gone([stopped], 10)
    pool.submit(jobs(1)[0])
    assert isinstance(finish(pool, 1)[0].outcome, Scored)


def test_workers_have_the_threads_they_were_given(opened: Callable[..., WorkerPool]) -> None:
    """threads_per_worker is what torch computes with; without gpus_per_worker no GPU is seen."""
    pool = opened(surroundings, ("threads", "hidden"), workers=1, threads_per_worker=2)
    pool.submit(jobs(1)[0])
    outcome = finish(pool, 1)[0].outcome
    assert isinstance(outcome, Scored)
    assert {name: score.value for name, score in outcome.scores.items()} == {"threads": 2.0, "hidden": 1.0}


def test_more_workers_than_fit_are_refused(opened: Callable[..., WorkerPool]) -> None:
    """The message has what is asked and what the cluster has; Ray would wait for ever."""
    with pytest.raises(PoolError, match=r"3 worker\(s\) of 1 CPU and 0 GPU do not fit: .* has 2 CPU and 0 GPU"):
        opened(surroundings, workers=3, cpus_per_worker=1)
    with pytest.raises(PoolError, match=r"1 worker\(s\) of 0.5 CPU and 1 GPU do not fit"):
        opened(surroundings, workers="auto", gpus_per_worker=1)


def test_auto_takes_what_fits(opened: Callable[..., WorkerPool]) -> None:
    """One worker for each of the two cores; the time of a job counts from its start, not from its submission."""
    pool = opened(partial(sleepy, 0.4), workers="auto", cpus_per_worker=1, timeout_s=2)
    assert pool.size == 2
    for job in [j for j in jobs(14) if j.number != 1]:
        pool.submit(job)
    assert all(isinstance(r.outcome, Scored) for r in finish(pool, 13))


SCRIPT = """
import sys, time
from functools import partial
import numpy as np
from mergesearch.pool.base import Job
from mergesearch.pool.function import FunctionWorker
from mergesearch.pool.profile import open_pool, parse_profile
from mergesearch.types import Split

def slow(values):
    time.sleep(60)
    return {"sum": 0.0}

pool = open_pool(parse_profile({"pool": "ray", "workers": 2}, "test"), partial(FunctionWorker, slow, ("sum",)))
try:
    pool.submit(Job(0, Split.SEARCH, np.zeros(1)))
    pool.poll(1.0)
    sys.stdout.write("running\\n")
    sys.stdout.flush()
    while not pool.poll(1.0):
        pass
except KeyboardInterrupt:
    sys.stdout.write("interrupted\\n")
finally:
    pool.close()
sys.stdout.write("closed\\n")
"""


def gone(pids: list[int], seconds: float) -> bool:
    """Whether all these processes end within `seconds`; a zombie has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        alive = [pid for pid in pids if psutil.pid_exists(pid) and _status(pid) != psutil.STATUS_ZOMBIE]
        if not alive:
            return True
        time.sleep(0.1)
    return False


def _status(pid: int) -> str:
    try:
        return psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_ZOMBIE


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_local_cluster_leaves_nothing_behind(how: signal.Signals) -> None:
    """Ctrl-C reaches the caller, and close ends every process of the local Ray. If the caller itself is killed, the
    workers and the cluster go too; only Ray's own idle agents stay, for about a minute."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Whoever runs the tests in the background may have told them to ignore Ctrl-C: a user's shell does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    everyone = psutil.Process(process.pid).children(recursive=True)
    agents = "Agent" if how is signal.SIGKILL else "nobody"
    family = [p.pid for p in everyone if agents not in " ".join(p.cmdline())]
    assert len(family) >= 4  # the cluster's own and two workers
    if how is signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        os.kill(process.pid, how)
    out, err = process.communicate(timeout=60)
    if how is signal.SIGINT:
        assert (out, process.returncode) == ("interrupted\nclosed\n", 0), err
    assert gone(family, 30)


def test_a_cluster_that_does_not_answer_is_named() -> None:
    """An address where nobody listens gets a sentence with what to do, at once; tried in a process without a Ray."""
    code = (
        "from mergesearch.pool.profile import open_pool, parse_profile\n"
        "from mergesearch.errors import PoolError\n"
        "try:\n    open_pool(parse_profile({'pool': 'ray', 'address': '127.0.0.1:1'}, 'test'), dict)\n"
        "except PoolError as error:\n    import sys; sys.stdout.write(str(error))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("no Ray cluster answers at address '127.0.0.1:1': "), done.stderr
    assert "ray start --head" in done.stdout
