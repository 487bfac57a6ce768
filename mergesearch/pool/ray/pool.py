"""Workers as Ray actors: on this machine, or on a cluster by its address. The only file that knows Ray.

A local cluster is started for the pool and stopped with it. A Ray that this process is already connected to is used as
it stands and left running.
"""

import logging
import math
import os
import socket
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, cast, final

import ray
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from ray import exceptions as ray_errors

from mergesearch.errors import PoolError
from mergesearch.plugins import PluginOptions
from mergesearch.pool.base import Job, JobResult, Worker, WorkerFactory, WorkerOptions
from mergesearch.pool.jobs import Ticket, finished, guarded, now, one_sentence, start_worker
from mergesearch.types import Failed, Outcome

LOCAL_WORKERS = 4  # 'auto' takes no more of a laptop
FAILED_STARTS = 3  # processes in a row that die while they start
OBJECT_STORE_BYTES = 100 * 2**20  # jobs and outcomes are small; Ray's own default is a third of the memory

# What ray.get raises when the process, its machine, or the result on it is gone.
LOST = (
    ray_errors.RayActorError,
    ray_errors.WorkerCrashedError,
    ray_errors.OutOfMemoryError,
    ray_errors.NodeDiedError,
    ray_errors.ObjectLostError,
)


class Options(WorkerOptions):
    """How many workers, of what size, where. A worker computes with cpus_per_worker threads unless told otherwise."""

    address: str = "local"  # 'local' starts a cluster for this study; 'auto' finds a running one; or 'host:port'
    workers: PositiveInt | Literal["auto"] = "auto"  # auto: as many as fit, on this machine at most 4
    cpus_per_worker: PositiveFloat = 1.0
    gpus_per_worker: NonNegativeFloat = 0.0  # 0.5: two workers share a GPU; 0: workers see no GPU
    timeout_s: Annotated[float, Field(gt=0)] | None = None  # seconds a job may take; None: no limit


@dataclass(frozen=True)
class _Started:
    """What a worker process says once it has tried to start: `fault` is why it cannot, or empty."""

    fault: str
    name: str
    node: str


class _Actor:
    """The process of one worker."""

    def __init__(self, paths: Sequence[str]) -> None:
        """`paths` is where the controller imports from: its black-box function may stand in a module there."""
        self._worker: Worker | None = None
        sys.path.extend(path for path in paths if path not in sys.path and os.path.isdir(path))

    def start(self, factory: WorkerFactory, threads: int, gpu: bool) -> _Started:
        """Build the worker. A fault is returned, not raised, so that its sentence arrives as it was written."""
        if not gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["OMP_NUM_THREADS"] = str(threads)
        _limit_torch(threads)
        fault = ""
        try:
            self._worker = start_worker(factory)
        except PoolError as error:
            fault = str(error)
        _limit_torch(threads)
        return _Started(fault, f"{socket.gethostname()}:{os.getpid()}", ray.get_runtime_context().get_node_id())

    def evaluate(self, job: Job) -> Outcome:
        """The outcome of one job."""
        assert self._worker is not None, "the pool sends no job before the worker has started"
        return guarded(self._worker.evaluate, job)


def _limit_torch(threads: int) -> None:
    """Torch reads OMP_NUM_THREADS when it is imported; if it is there already, tell it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


@dataclass
class _Slot:
    """One worker: starting (`pending` without `ticket`), busy (both) or idle (neither)."""

    actor: Any
    pending: Any
    ticket: Ticket | None = None
    begun: float = 0.0
    name: str = ""
    node: str = ""

    def deadline(self, limit: float | None) -> float:
        """When its job must be done, infinity if it has none or no limit."""
        return self.begun + limit if limit is not None and self.ticket is not None else math.inf


@final
class RayPool:
    """WorkerPool; see `pool/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options

    def __init__(self, options: PluginOptions, factory: WorkerFactory) -> None:
        """Start the workers, without waiting for them. Raises PoolError if there is no cluster or too small a one."""
        self._options = cast(Options, options)
        self._closed = False
        self._waiting: deque[Ticket] = deque()
        self._slots: list[_Slot] = []
        self._failed_starts = 0
        self._owns_cluster = _connect(self._options)
        try:
            self._size = _workers(self._options, ray.cluster_resources())
            self._class = ray.remote(_Actor)
            self._factory = ray.put(factory)
            self._slots = [self._start() for _ in range(self._size)]
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Number of workers."""
        return self._size

    def submit(self, job: Job) -> None:
        """Queue a job for the next idle worker. Raises PoolError after `close`."""
        if self._closed:
            raise PoolError("this pool is closed; open another")
        self._waiting.append(Ticket(job, now()))
        self._assign()

    def poll(self, timeout: float) -> Sequence[JobResult]:
        """What ended; returns at once when no job is queued or running."""
        end = now() + timeout
        while self._waiting or any(slot.ticket for slot in self._slots):
            self._assign()
            results = [*self._collect(end), *self._expire()]
            if results or now() >= end:
                self._assign()
                return results
        return []

    def close(self) -> None:
        """Stop the workers, and the cluster if this pool started it."""
        if self._closed:
            return
        self._closed = True
        self._waiting.clear()
        if ray.is_initialized():
            for slot in self._slots:
                _kill(slot.actor)
            if self._owns_cluster:
                ray.shutdown()
        self._slots = []

    def _start(self) -> _Slot:
        o = self._options
        actor = self._class.options(
            num_cpus=o.cpus_per_worker, num_gpus=o.gpus_per_worker, max_restarts=0, max_task_retries=0
        ).remote(tuple(sys.path))
        threads = o.threads_per_worker or max(1, int(o.cpus_per_worker))
        return _Slot(actor, actor.start.remote(self._factory, threads, o.gpus_per_worker > 0))

    def _assign(self) -> None:
        """Give the oldest jobs to idle workers."""
        for slot in self._slots:
            if self._waiting and slot.pending is None:
                slot.ticket = self._waiting.popleft().started()
                slot.begun = now()
                slot.pending = slot.actor.evaluate.remote(slot.ticket.job)

    def _collect(self, end: float) -> list[JobResult]:
        """Wait until a worker says something, a job's time is over, or `end`."""
        pending = {slot.pending: slot for slot in self._slots if slot.pending is not None}
        until = min([end, *(slot.deadline(self._options.timeout_s) for slot in self._slots)])
        done, _ = ray.wait(list(pending), num_returns=1, timeout=max(0.0, until - now()))
        if done:
            done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
        return [result for ref in done for result in self._settle(pending[ref])]

    def _settle(self, slot: _Slot) -> list[JobResult]:
        """Take what a worker's pending call gave."""
        ticket = slot.ticket
        try:
            value = ray.get(slot.pending)
        except LOST as error:
            return self._lost(slot, error)
        except ray_errors.RayError as error:
            cause = getattr(error, "cause", None) or error
            if ticket is None:
                raise PoolError(f"a worker cannot start: {type(cause).__name__}: {one_sentence(cause)}") from None
            value = Failed(type(cause).__name__, one_sentence(cause))
        slot.pending = None
        slot.ticket = None
        if ticket is not None:
            return [finished(ticket, value, slot.begun, slot.name)]
        if value.fault:
            raise PoolError(value.fault)
        self._failed_starts = 0
        slot.name, slot.node = value.name, value.node
        return []

    def _lost(self, slot: _Slot, error: Exception) -> list[JobResult]:
        """A worker is gone: put another in its place, and its job back in front or to its end."""
        ticket, begun, name, node = slot.ticket, slot.begun, slot.name, slot.node
        if ticket is None:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise PoolError(
                    f"{FAILED_STARTS} workers in a row died while they started (out of memory?): {one_sentence(error)}"
                ) from None
        self._replace(slot)
        if ticket is None:
            return []
        again = ticket.lost(machine_lives=any(n["NodeID"] == node and n["Alive"] for n in ray.nodes()))
        if isinstance(again, Failed):
            return [finished(ticket, again, begun, name)]
        self._waiting.appendleft(again)
        return []

    def _expire(self) -> Iterator[JobResult]:
        """Stop the workers whose job's time is over."""
        limit = self._options.timeout_s
        for slot in list(self._slots):
            if slot.ticket is not None and limit is not None and slot.deadline(limit) <= now():
                if ray.wait([slot.pending], timeout=0)[0]:  # it was done in time, this process was late to look
                    yield from self._settle(slot)
                    continue
                failed = Failed("timeout", f"it took longer than timeout_s of {limit:g} seconds and was stopped")
                yield finished(slot.ticket, failed, slot.begun, slot.name)
                self._replace(slot)

    def _replace(self, slot: _Slot) -> None:
        _kill(slot.actor)
        self._slots[self._slots.index(slot)] = self._start()


def _kill(actor: Any) -> None:
    with suppress(ray_errors.RayError, ValueError):  # it may be gone already
        ray.kill(actor, no_restart=True)


def _connect(options: Options) -> bool:
    """Reach the cluster; True if it was started for this pool. Raises PoolError."""
    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    local = options.address == "local"
    if local:
        asked = options.workers if options.workers != "auto" else 0
        cpus = max(_cores(), math.ceil(asked * options.cpus_per_worker))
        quiet |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        _knock(options.address)
        with _no_usage_stats():
            ray.init(address=options.address, **quiet)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError, OSError, ray_errors.RayError) as error:
        how = "this machine cannot start Ray" if local else f"no Ray cluster answers at address {options.address!r}"
        hint = "" if local else "; start one with `ray start --head`, or say `address: local`"
        raise PoolError(f"{how}: {one_sentence(error)}{hint}") from error
    return local


def _knock(address: str) -> None:
    """Raises OSError at once where nobody listens at 'host:port'; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10.0).close()


@contextmanager
def _no_usage_stats() -> Iterator[None]:
    """Ray reports its usage over the network unless this variable says no; it has no argument for it."""
    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["RAY_USAGE_STATS_ENABLED"]
        else:
            os.environ["RAY_USAGE_STATS_ENABLED"] = before


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _workers(options: Options, cluster: dict[str, float]) -> int:
    """How many workers to start on a cluster of these resources. Raises PoolError if they do not fit."""
    needs = {"CPU": options.cpus_per_worker, "GPU": options.gpus_per_worker}
    # Ray counts resources in ten-thousandths.
    fit = min(math.floor(cluster.get(kind, 0.0) / need + 1e-4) for kind, need in needs.items() if need > 0)
    asked = options.workers if options.workers != "auto" else 1
    if fit < asked:
        raise PoolError(
            f"{asked} worker(s) of {needs['CPU']:g} CPU and {needs['GPU']:g} GPU do not fit: the cluster at address "
            f"{options.address!r} has {cluster.get('CPU', 0):g} CPU and {cluster.get('GPU', 0):g} GPU"
        )
    if options.workers != "auto":
        return options.workers
    return min(fit, LOCAL_WORKERS) if options.address == "local" else fit
