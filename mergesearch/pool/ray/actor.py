"""What runs in a worker's process: builds the worker, evaluates jobs, remembers the last outcome."""

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import ray

from mergesearch.errors import PoolError
from mergesearch.pool.base import Job, Worker
from mergesearch.pool.jobs import guarded, start_worker
from mergesearch.pool.ray.shared import MergeFactory, Parcels, over_all_gpus, unpack
from mergesearch.types import Outcome


@dataclass(frozen=True)
class Started:
    """What a worker process says once it has tried to start: `fault` is why it cannot, or empty."""

    fault: str
    name: str
    node: str


@dataclass(frozen=True, eq=False)
class Last:
    """What a worker did last: the `turn` that it was given for it, and the outcome; turn 0: nothing yet."""

    turn: int = 0
    outcome: Outcome | None = None


@final
class Actor:
    """The process of one worker. Calls are answered one at a time, in order."""

    def __init__(self, paths: Sequence[str]) -> None:
        """`paths` is where the controller imports from: its black-box function may stand in a module there."""
        self._worker: Worker | None = None
        self._last = Last()
        sys.path.extend(path for path in paths if path not in sys.path and os.path.isdir(path))

    def start(self, factory: bytes, parcels: Parcels | None, threads: int, gpus: float) -> Started:
        """Build the worker. A fault is returned, not raised, so that its sentence arrives as it was written.

        `factory` is pickled: what it refers to may be importable here only, not where the call passes through.
        """
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["OMP_NUM_THREADS"] = str(threads)
        _limit_torch(threads)
        fault = ""
        try:
            self._worker = start_worker(lambda: _build(factory, parcels, gpus))
        except PoolError as error:
            fault = str(error)
        _limit_torch(threads)
        return Started(fault, f"{socket.gethostname()}:{os.getpid()}", ray.get_runtime_context().get_node_id())

    def evaluate(self, job: Job, turn: int) -> Outcome:
        """The outcome of one job, kept until the next is done."""
        assert self._worker is not None, "the pool sends no job before the worker has started"
        outcome = guarded(self._worker.evaluate, job)
        self._last = Last(turn, outcome)
        return outcome

    def here(self) -> bool:
        """Asked of a worker that has been idle for a while: if it has died, the next job is not to blame."""
        return True

    def last(self) -> Last:
        """Asked of a worker that was out of reach; answered after what it was at."""
        return self._last


def _build(factory: bytes, parcels: Parcels | None, gpus: float) -> Worker:
    if parcels is not None:
        return unpack(parcels, gpus > 1)
    build: Any = ray.cloudpickle.loads(factory)
    worker: Worker = over_all_gpus(build.setup) if gpus > 1 and isinstance(build, MergeFactory) else build()
    return worker


def _limit_torch(threads: int) -> None:
    """Torch reads OMP_NUM_THREADS when it is imported; if it is there already, tell it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
