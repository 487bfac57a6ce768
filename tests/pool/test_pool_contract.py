"""Every worker pool keeps the contract of `pool/base.py`."""

from collections.abc import Iterator

import pytest
import ray
from contracts.pool import *  # noqa: F403 - the contract's tests
from contracts.pool import Opened

from mergesearch.pool import POOLS
from mergesearch.pool.base import WorkerFactory, WorkerPool
from mergesearch.pool.profile import EXTERNAL, open_pool, parse_profile

OPTIONS = {"inline": {}, "ray": {"workers": 2, "cpus_per_worker": 0.5}}
MARKS = {"ray": [pytest.mark.ray]}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray for all tests of this module: pools use it and leave it running."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
    yield
    ray.shutdown()


# Kind 'external' has no workers of its own; what it promises stands in test_external_pool.py.
@pytest.fixture(params=[pytest.param(kind, marks=MARKS.get(kind, [])) for kind in POOLS if kind != EXTERNAL])
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    """Opens pools of one registered kind, and closes them; a new kind needs a line in OPTIONS."""
    if request.param == "ray":
        request.getfixturevalue("cluster")
    pools: list[WorkerPool] = []

    def open_one(factory: WorkerFactory) -> WorkerPool:
        pools.append(open_pool(parse_profile({"pool": request.param, **OPTIONS[request.param]}, "test"), factory))
        return pools[-1]

    yield open_one
    for pool in pools:
        pool.close()
