"""The pool of Ray actors: gives jobs to idle workers, replaces those that die, follows the size of the cluster.

A local cluster is started for the pool and stopped with it. A Ray that this process is already connected to is used as
it stands and left running.
"""

import atexit
import logging
import math
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, Final, cast, final

import ray
from ray import exceptions as ray_errors

from mergesearch.errors import PoolError
from mergesearch.plugins import PluginOptions
from mergesearch.pool.base import Job, JobResult, Usage, WorkerFactory
from mergesearch.pool.jobs import Ticket, finished, now, one_sentence
from mergesearch.pool.ray import cluster, shared
from mergesearch.pool.ray.actor import Actor, Last, Started
from mergesearch.pool.ray.calls import (
    LOST,
    answers,
    ask_last,
    end_quietly,
    gone,
    hand_over,
    kill,
    node_is_gone,
    why_lost,
)
from mergesearch.pool.ray.link import Link, Lost
from mergesearch.pool.ray.options import Elastic, Options
from mergesearch.pool.ray.slots import Meter, Slot, State
from mergesearch.types import Failed, Timing

FAILED_STARTS: Final = 3  # processes in a row that die while they start
RESIZE_SECONDS: Final = 2.0  # how often an elastic pool looks at the cluster's nodes
ASK_AGAIN_SECONDS: Final = 1.0  # how often a worker that is out of reach is asked for its outcome
SUSPECT_SECONDS: Final = 300.0  # after that it is given up
LEAVE_SECONDS: Final = 20.0  # how long the end of the process waits for Ray to let go of a cluster that is gone
IDLE_SECONDS: Final = 1.0  # without a job, before a worker is asked whether it lives
ANSWER_SECONDS: Final = 2.0  # that it has for an answer
PATIENCE_SECONDS: Final = 60.0  # without a worker that is ready, before that is said

_LOG = logging.getLogger(__name__)


@final
class RayPool:
    """WorkerPool; see `pool/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options

    def __init__(self, options: PluginOptions, factory: WorkerFactory) -> None:
        """Reach the cluster; workers start with the first job. Raises PoolError if there is no cluster or too small a
        one."""
        self._options = cast(Options, options)
        o = self._options
        if o.jobs:
            raise PoolError(
                f"this profile runs the controller as a job of the cluster at {o.jobs}: give it to `mergesearch "
                "launch`, or take one without 'jobs', such as workers/on-cluster.yaml, on a machine of the cluster"
            )
        self._factory = factory
        self._closed = False
        self._waiting: deque[Ticket] = deque()
        self._slots: list[Slot] = []
        self._meter = Meter()
        self._failed_starts = self._born = 0
        self._study = ""
        self._looked = self._warned = 0.0
        self._elastic = isinstance(o.workers, Elastic) or (o.workers == "auto" and o.address != "local")
        held = shared.packed_bytes(factory) if o.models == "object_store" else 0
        self._owns_cluster = cluster.connect(o, held)
        self._link = Link(cluster.doors(o), cluster.living)
        try:
            nodes = self._call(cluster.living)
            self._wanted = cluster.wanted(o, nodes)
            if held:
                cluster.check_store(o, nodes, held)
            self._class = ray.remote(Actor)
            self._parcels: Any = None
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Number of workers; of an elastic pool those that are ready, and 1 while none is."""
        return max(1, sum(slot.ready for slot in self._slots)) if self._elastic else self._wanted

    @property
    def gpus(self) -> float:
        """GPUs that each worker holds."""
        return self._options.gpus_per_worker

    def usage(self) -> Usage:
        """How busy the workers were so far."""
        return self._meter.usage()

    def submit(self, job: Job) -> None:
        """Queue a job for the next idle worker. Raises PoolError after `close`."""
        if self._closed:
            raise PoolError("this pool is closed; open another")
        self._study = job.study or self._study
        if not self._born:
            self._open()
        self._waiting.append(Ticket(job, now()))
        self._assign()

    def poll(self, timeout: float) -> Sequence[JobResult]:
        """What ended; returns at once when no job is queued or running."""
        end = now() + timeout
        while self._waiting or any(slot.ticket for slot in self._slots):
            self._resize()
            self._assign()
            results = [*self._collect(end), *self._expire()]
            if results or now() >= end:
                self._assign()
                return results
        return []

    def close(self) -> None:
        """Stop the workers, and the cluster if this pool started it. Does not wait for a cluster that is gone."""
        if self._closed:
            return
        self._closed = True
        self._waiting.clear()
        for slot in self._slots:
            self._meter.away(slot)
        slots, self._slots = self._slots, []
        try:
            self._link.call(lambda: self._stop(slots))
        except Lost:
            # Leaving a cluster that is gone takes Ray a while. Nobody waits for it but the end of this process, which
            # would crash if Ray's threads were still at it.
            atexit.unregister(ray.shutdown)
            leaving = threading.Thread(target=end_quietly, name="ray-shutdown", daemon=True)
            leaving.start()
            atexit.register(leaving.join, LEAVE_SECONDS)
        finally:
            self._link.close()
            shared.sweep()

    def _stop(self, slots: Sequence[Slot]) -> None:
        if ray.is_initialized():
            for slot in slots:
                kill(slot.actor)
            if self._owns_cluster:
                ray.shutdown()

    def _call(self, function: Any) -> Any:
        """A call into Ray. Raises PoolError if the cluster is gone."""
        try:
            return self._link.call(function)
        except (Lost, ConnectionError):  # Ray's client raises the latter where its connection breaks
            address = self._options.address
            where = "on this machine" if address == "local" else f"at {address}"
            raise PoolError(
                f"the Ray cluster {where} is gone; when it is back, go on with: mergesearch resume "
                f"{self._study or 'STUDY'}"
            ) from None

    def _open(self) -> None:
        """Send what workers are built from, and start them."""
        if self._options.models == "object_store":
            self._parcels = self._call(lambda: shared.send(self._factory))
        self._bytes = b"" if self._parcels is not None else ray.cloudpickle.dumps(self._factory)
        self._looked = self._warned = now()
        self._slots = [self._start() for _ in range(self._wanted)]

    def _start(self) -> Slot:
        o = self._options
        self._born += 1
        asked: dict[str, Any] = {"num_cpus": o.cpus_per_worker, "num_gpus": o.gpus_per_worker}
        if "memory" in o.needs:
            asked["memory"] = int(o.needs["memory"])
        if o.runtime_env:
            asked["runtime_env"] = dict(o.runtime_env)
        name = f"{self._study or 'study'}/worker-{self._born}"

        def create() -> tuple[Any, Any]:
            options = {"max_restarts": 0, "max_task_retries": 0, **asked}
            try:
                actor = self._class.options(name=name, **options).remote(tuple(sys.path))
            except ValueError:  # another pool of this process has one of that name
                other = f"{name}-{uuid.uuid4().hex[:6]}"
                actor = self._class.options(name=other, **options).remote(tuple(sys.path))
            return actor, actor.start.remote(self._bytes, self._parcels, o.threads, o.gpus_per_worker)

        actor, pending = self._call(create)
        return Slot(actor, pending, begun=now())

    def _resize(self) -> None:
        """Every now and then: as many workers as the cluster has room for. Those of lost nodes go by themselves."""
        if not any(slot.ready for slot in self._slots) and now() - self._warned > PATIENCE_SECONDS:
            self._warned = now()
            _LOG.warning("no worker is ready yet: the cluster has no room for one, or the models are still loading")
        if not self._elastic or now() - self._looked < RESIZE_SECONDS:
            return
        self._looked = now()
        nodes = self._call(cluster.living)
        with suppress(PoolError):  # 'auto' on a cluster that has lost its last node waits for another
            self._wanted = cluster.wanted(self._options, nodes)
        while len(self._slots) < self._wanted:
            self._slots.append(self._start())
        starting = [slot for slot in self._slots if slot.state is State.STARTING]
        for slot in starting[: max(0, len(self._slots) - self._wanted)]:
            self._remove(slot)

    def _assign(self) -> None:
        """Give the oldest jobs to idle workers. Those that have died since their last job are replaced first."""
        idle = [slot for slot in self._slots if slot.state is State.IDLE and now() - slot.free > IDLE_SECONDS]
        if self._waiting and idle:
            for slot in idle:
                slot.free = now()  # those that live are not asked again at once
            for slot in self._call(lambda: gone(idle, ANSWER_SECONDS)):
                self._replace(slot)
        given = []
        for slot in self._slots:
            if self._waiting and slot.state is State.IDLE:
                slot.ticket, slot.turn = self._waiting.popleft().started(), slot.turn + 1
                slot.begun, slot.state = now(), State.BUSY
                given.append(slot)
        if given:
            self._call(lambda: hand_over(given))

    def _collect(self, end: float) -> list[JobResult]:
        """Wait until a worker says something, a job's time is over, or `end`."""
        self._ask_suspects()
        pending = {slot.pending: slot for slot in self._slots if slot.pending is not None}
        looks = [self._looked + RESIZE_SECONDS] if self._elastic else []
        again = [slot.ask_again for slot in self._slots if slot.state is State.SUSPECT and slot.pending is None]
        until = min([end, *looks, *again, *(self._deadline(slot) for slot in self._slots)])
        if not pending:
            time.sleep(max(0.0, min(until - now(), RESIZE_SECONDS)))
            return []
        said = self._call(lambda: answers(list(pending), max(0.0, until - now())))
        return [result for ref, answer in said for result in self._settle(pending[ref], answer)]

    def _ask_suspects(self) -> None:
        asked = [s for s in self._slots if s.state is State.SUSPECT and s.pending is None and s.ask_again <= now()]
        if asked:
            self._call(lambda: ask_last(asked))

    def _settle(self, slot: Slot, answer: object) -> list[JobResult]:
        """Take what a worker's pending call gave."""
        slot.pending = None
        if isinstance(answer, ray_errors.ActorUnavailableError) and slot.state is not State.STARTING:
            return self._suspect(slot)
        if isinstance(answer, LOST):
            return self._lost(slot, answer)
        if isinstance(answer, ray_errors.RayError):
            cause = getattr(answer, "cause", None) or answer
            if slot.state is State.STARTING:
                raise PoolError(f"a worker cannot start: {type(cause).__name__}: {one_sentence(cause)}")
            answer = Failed(type(cause).__name__, one_sentence(cause))
        elif isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Started):
            self._begin(slot, answer)
            return []
        return self._late(slot, answer) if isinstance(answer, Last) else self._done(slot, answer)

    def _begin(self, slot: Slot, said: Started) -> None:
        if said.fault:
            raise PoolError(said.fault)
        self._failed_starts = 0
        slot.name, slot.node, slot.state, slot.free = said.name, said.node, State.IDLE, now()
        self._meter.ready(slot)

    def _done(self, slot: Slot, outcome: Any) -> list[JobResult]:
        """A job's outcome; the worker is free."""
        assert slot.ticket is not None, "only a worker with a job has an outcome"
        result = finished(slot.ticket, outcome, slot.begun, slot.name, self.gpus)
        self._meter.done(slot)
        slot.ticket, slot.state, slot.free = None, State.IDLE, now()
        return [result]

    def _suspect(self, slot: Slot) -> list[JobResult]:
        """A worker is out of reach, perhaps for a moment: its job goes to another at once, and it is asked again."""
        slot.ask_again = now() + ASK_AGAIN_SECONDS
        if slot.state is State.SUSPECT:
            return []
        ticket = slot.ticket
        self._meter.away(slot)
        slot.state, slot.suspected = State.SUSPECT, now()
        return self._again(slot, ticket, machine_lives=False) if ticket is not None else []

    def _late(self, slot: Slot, last: Last) -> list[JobResult]:
        """A worker that was out of reach answers: it is used again, and what it did meanwhile counts."""
        ticket = slot.ticket
        self._meter.ready(slot)
        slot.ticket, slot.state = None, State.IDLE
        if ticket is None or last.outcome is None or last.turn != slot.turn:
            return []
        for copy in [t for t in self._waiting if t.job is ticket.job]:
            self._waiting.remove(copy)  # nobody has begun it again
        return [finished(ticket, last.outcome, slot.begun, slot.name, self.gpus)]

    def _lost(self, slot: Slot, error: Exception) -> list[JobResult]:
        """A worker is gone: put another in its place, and its job back in front or to its end."""
        ticket, state = slot.ticket, slot.state
        lives = slot.node in {node.id for node in self._call(cluster.living)} and not node_is_gone(error)
        if state is State.STARTING and not node_is_gone(error):
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise PoolError(
                    f"{FAILED_STARTS} workers in a row died while they started (out of memory?): {one_sentence(error)}"
                )
        self._replace(slot)
        if ticket is None:
            return []
        if state is State.SUSPECT:
            self._blame(ticket, lives)
            return []
        return self._again(slot, ticket, lives, why_lost(error))

    def _again(self, slot: Slot, ticket: Ticket, machine_lives: bool, why: str = "out of reach") -> list[JobResult]:
        """Put the job of a lost worker back in front, unless that was its last attempt."""
        again = ticket.lost(machine_lives, why)
        if isinstance(again, Failed):
            again = replace(again, timing=Timing(score=now() - slot.begun))
            return [finished(ticket, again, slot.begun, slot.name, self.gpus)]
        self._waiting.appendleft(again)
        return []

    def _blame(self, ticket: Ticket, machine_lives: bool) -> None:
        """A worker that was out of reach has died after all: its job, given to another since, has killed once more."""
        if not machine_lives:
            return
        self._waiting = deque(replace(t, kills=t.kills + 1) if t.job is ticket.job else t for t in self._waiting)
        for other in self._slots:
            if other.ticket is not None and other.ticket.job is ticket.job:
                other.ticket = replace(other.ticket, kills=other.ticket.kills + 1)

    def _deadline(self, slot: Slot) -> float:
        """When its job must be done, or it must have come back; infinity if there is no such time."""
        if slot.ticket is None:
            return math.inf
        limit = self._options.timeout_s
        if slot.state is State.SUSPECT:
            return slot.suspected + min(limit or math.inf, SUSPECT_SECONDS)
        return slot.begun + limit if limit is not None else math.inf

    def _expire(self) -> Iterator[JobResult]:
        """Stop the workers whose job's time is over."""
        for slot in list(self._slots):
            if self._deadline(slot) > now():
                continue
            if slot.pending is not None:
                said = self._call(lambda ref=slot.pending: answers([ref], 0.0))
                if said:  # it was done in time, this process was late to look
                    yield from self._settle(slot, said[0][1])
                    continue
            if slot.state is State.BUSY and slot.ticket is not None:
                limit = self._options.timeout_s
                sentence = f"it took longer than timeout_s of {limit:g} seconds and was stopped"
                failed = Failed("timeout", sentence, Timing(score=now() - slot.begun))
                yield finished(slot.ticket, failed, slot.begun, slot.name, self.gpus)
            self._replace(slot)

    def _replace(self, slot: Slot) -> None:
        """Another worker in its place; in an elastic pool only if there is room for it, which is looked at anew."""
        place = self._slots.index(slot)
        self._remove(slot)
        if self._elastic:
            self._looked = -math.inf
        else:
            self._slots.insert(place, self._start())

    def _remove(self, slot: Slot) -> None:
        self._meter.away(slot)
        self._slots.remove(slot)
        self._call(lambda: kill(slot.actor))
