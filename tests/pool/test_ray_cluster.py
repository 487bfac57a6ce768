"""Promises about clusters whose nodes come and go, on real second nodes of this machine."""

import time
from collections.abc import Iterator
from functools import partial

import psutil
import pytest
import ray
from contracts.pool import finish, jobs
from ray.cluster_utils import Cluster
from ray_heads import wait_for

from mergesearch.errors import PoolError, SpecError
from mergesearch.pool.base import WorkerPool
from mergesearch.pool.function import FunctionWorker
from mergesearch.pool.profile import open_pool, parse_profile
from mergesearch.types import Scored, Vector

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.chaos]


def where(seconds: float, values: Vector) -> dict[str, float]:
    """Takes a while, but for job 0; the score says which job it was."""
    time.sleep(seconds if values[0] else 0.0)
    return {"sum": float(values.sum())}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without a CPU for workers, and one node with two; tests add and kill others."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **SMALL})
    try:
        found.add_node(num_cpus=2, **SMALL)
        ray.init(address=found.address, log_to_driver=False)
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


SMALL = {"object_store_memory": 80_000_000}


@pytest.mark.timeout(240)
def test_an_elastic_pool_follows_the_nodes(cluster: Cluster) -> None:
    """Workers join when a node joins; when its raylet is killed they go, their jobs run elsewhere, no job is blamed
    for it, and the size follows both ways."""
    options = {"pool": "ray", "address": cluster.address, "workers": {"min": 1, "max": 8}}
    pool = open_pool(parse_profile(options, "test"), partial(FunctionWorker, partial(where, 6.0), ("sum",)))
    try:
        pool.submit(jobs(1)[0])
        assert isinstance(finish(pool, 1, 150)[0].outcome, Scored)
        wait_for(lambda: _size(pool) == 2, 60, "both workers of the first node")
        second = cluster.add_node(num_cpus=2, **SMALL)
        wait_for(lambda: _size(pool) == 4, 60, "the workers of the second node")
        for job in jobs(5)[1:]:
            pool.submit(job)
        pool.poll(0.5)
        raylet = psutil.Process(second.all_processes["raylet"][0].process.pid)
        # A worker whose raylet alone has died still ends its job; a machine takes both with it.
        for process in [raylet, *raylet.children(recursive=True)]:
            process.kill()
        results = finish(pool, 4, 120)
        assert [r.job.number for r in results] == list(range(1, 5))
        assert all(isinstance(r.outcome, Scored) for r in results)
        assert max(r.attempt for r in results) == 2
        wait_for(lambda: _size(pool) == 2, 60, "the pool to shrink")
        assert pool.usage().workers == 2
    finally:
        pool.close()
    cluster.remove_node(second, allow_graceful=False)


def _size(pool: WorkerPool) -> int:
    """The size, after the pool has had a moment with something to do."""
    pool.submit(jobs(1)[0])
    finish(pool, 1)
    return pool.size


def test_a_pool_of_a_fixed_size_that_does_not_fit_on_any_node_is_refused(cluster: Cluster) -> None:
    """One worker stands on one node: CPUs of several nodes do not add up for it, nor does memory."""
    factory = partial(FunctionWorker, partial(where, 0.0), ("sum",))
    for wants, said in (({"cpus_per_worker": 3}, "3 CPU and 0 GPU"), ({"memory_gb": 4000}, "4e\\+03 GiB")):
        profile = parse_profile({"pool": "ray", "address": cluster.address, "workers": 1, **wants}, "test")
        with pytest.raises(PoolError, match=rf"1 worker\(s\) of .*{said} do not fit: .* on [23] node\(s\)"):
            open_pool(profile, factory)


def test_options_that_cannot_be_are_refused() -> None:
    """Bounds the wrong way round, one GPU and a half, and what is no size at all: with the key that is wrong."""
    for wrong, said in (
        ({"workers": {"min": 3, "max": 2}}, "max is 2, less than min, which is 3"),
        ({"gpus_per_worker": 1.5}, "above 1 it must be a whole number"),
        ({"workers": "many"}, "workers is a number above 0, 'auto', or bounds"),
        ({"workers": 0}, "workers is a number above 0"),
        ({"workers": {"min": 1, "mx": 2}}, "did you mean 'max'"),
        ({"memory_gb": 0}, "greater than 0"),
    ):
        with pytest.raises(SpecError, match=said):
            parse_profile({"pool": "ray", **wrong}, "test")
