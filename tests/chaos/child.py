"""A small black-box study in a process of its own: what the chaos tests launch, kill and resume.

Imports neither torch nor ray unless the script asks for a strategy or a pool that needs them.
"""

import itertools
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import psutil
from chaos.faults import Faults, FaultyPool, FaultyStore
from chaos.pools import EchoPool, ThreadPool, nap
from chaos.ray_nodes import actors

from mergesearch.controller import loop
from mergesearch.controller.loop import Controller, StudyRun
from mergesearch.controller.observer import Progress
from mergesearch.errors import MergesearchError
from mergesearch.pool.base import WorkerPool
from mergesearch.pool.function import FunctionWorker
from mergesearch.pool.profile import open_pool, parse_profile
from mergesearch.space import SearchSpace
from mergesearch.store.open import open_store
from mergesearch.strategies.base import Problem
from mergesearch.strategies.make import make_strategy, needs
from mergesearch.types import Candidate, Direction, Objective, Told, Vector

OBJECTIVES = (Objective("up"), Objective("cost", Direction.MIN))


@dataclass(frozen=True)
class Script:
    """What a child does. JSON values only: it crosses a pipe.

    `marks`: a file that gets a line for each scoring that began, written before anything can go wrong. `evil`: what
    some scorings do, see `Bowl`. `seconds`: how long each takes. `skew` moves this process's clock, in seconds, from
    the start or, with `what` 0, at the fault. `echo` (each, behind, moved) brings results twice. `lease`: the lease's
    length in seconds. At each step of `actors` one worker of the Ray `cluster` (its folder) is killed. `memory`: what
    this process may take above what it has at its start, in bytes; 0: as usual.
    """

    url: str
    marks: str = ""
    name: str = "s"
    strategy: str = "cma_es"
    options: Mapping[str, Any] = field(default_factory=dict)
    budget: float = 24.0
    dim: int = 4
    single: bool = False
    baselines: tuple[str, ...] = ("baseline:base", "baseline:expert:a")
    finalists: int = 2
    failures: int = 5
    hours: float | None = None
    pool: Mapping[str, Any] = field(default_factory=lambda: {"pool": "inline"})
    seconds: float = 0.0
    evil: Mapping[str, str] = field(default_factory=dict)
    skew: float = 0.0
    lease: float = 0.0
    memory: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    echo: tuple[int, int, float] | None = None
    at: str = ""
    nth: int = 1
    what: int = signal.SIGKILL
    cluster: str = ""
    actors: tuple[tuple[str, int], ...] = ()

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """One or two."""
        return OBJECTIVES[:1] if self.single else OBJECTIVES

    @property
    def space(self) -> SearchSpace:
        """The unit cube."""
        return SearchSpace.box(self.dim, 0.0, 1.0)

    def study(self) -> StudyRun:
        """What the controller is given."""
        space = self.space
        problem = Problem(self.dim, self.objectives, space.start, self.budget, gradients=("loss", "kl", "entropy"))
        return StudyRun(
            self.name,
            self.objectives,
            self.budget,
            make_strategy(self.strategy, problem, 0, self.options),
            partial(_values, space),
            self.baselines,
            self.finalists,
            hours=self.hours,
            failures=self.failures,
            needs=needs(self.strategy, self.options),
        )


def _values(space: SearchSpace, candidate: Candidate) -> Vector:
    """What is scored; baselines stand at places of their own."""
    return np.full(space.dim, 0.25) if candidate.point is None else space.values(candidate.point)


@dataclass(frozen=True)
class Bowl:
    """A smooth function of one or two objectives with gradients, and what is evil about it.

    `evil`: n -> what the n-th scoring of this study does, counted in `marks` over all processes: 'raise', 'nan',
    'die' (SIGKILL of its process), 'hang', 'memory' (MemoryError), 'eat' (takes memory until something stops it),
    'limited' (the same, after it has set itself a limit). n is '*' for all of them. Each takes `seconds`, until a file
    tells them to hurry.
    """

    names: tuple[str, ...]
    marks: str
    seconds: float = 0.0
    evil: Mapping[str, str] = field(default_factory=dict)
    faults: Faults | None = None

    def __call__(self, values: Vector) -> dict[str, float]:
        """Best at 0.7."""
        if self.faults is not None:
            self.faults.step("scoring")
        number = self._mark() if self.marks else 0
        nap(0.0 if self.seconds and os.path.exists(f"{self.marks}.hurry") else self.seconds)
        what = self.evil.get("*") or self.evil.get(str(number), "")
        turn_evil(what)
        if what == "nan":
            return dict.fromkeys(self.names, float("nan"))
        scores = {"up": 1.0 - float(((values - 0.7) ** 2).mean()), "cost": float(values.sum())}
        return {name: scores[name] for name in self.names}

    def gradients(self, values: Vector) -> dict[str, Vector]:
        """Of each score."""
        slopes = {"up": -2.0 * (values - 0.7) / len(values), "cost": np.ones(len(values))}
        return {name: slopes[name] for name in self.names}

    def _mark(self) -> int:
        """Count this scoring; its number from 0. One write to a file that is only appended to is never torn."""
        handle = os.open(self.marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(handle, f"{os.getpid():7d}\n".encode())
            return os.lseek(handle, 0, os.SEEK_CUR) // 8 - 1
        finally:
            os.close(handle)


def turn_evil(what: str) -> None:
    """Do what a bad candidate does."""
    if what == "raise":
        raise ValueError("this candidate is made to raise")
    if what == "memory":
        raise MemoryError("this candidate is made to find no memory")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(3600)
    if what == "limited":  # a real limit, of this process alone
        now = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (now + 2**28, resource.RLIM_INFINITY))
    if what in ("eat", "limited"):
        eaten = [np.ones(2**21) for _ in range(512)]  # 16 MiB each, touched: 8 GiB, if nothing stops it before
        time.sleep(3600 if eaten else 0)


class Diary:
    """Observer that writes a line for each thing it is told."""

    def __init__(self, path: str) -> None:
        self._path = path

    def evaluated(self, study: str, told: Told, attempt: int) -> None:
        """Recorded."""
        self._write(f"evaluated {told.candidate.number} {told.split.value} {attempt}")

    def repeated(self, study: str, told: Told, attempt: int) -> None:
        """Came again."""
        self._write(f"repeated {told.candidate.number} {told.split.value} {attempt}")

    def progressed(self, progress: Progress) -> None:
        """Nothing."""

    def _write(self, line: str) -> None:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def run(script: Script) -> None:
    """Go on with the study of `script` to its end, or to its fault. Raises what Controller.run raises."""
    os.environ.update(script.environment)
    if script.skew and script.what:
        skew_clock(script.skew)
    if script.lease:
        loop.LEASE_SECONDS = script.lease
    if script.memory:
        now = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (now + script.memory, resource.RLIM_INFINITY))
    act = partial(skew_clock, script.skew)
    if script.actors:
        turns = itertools.count()
        act = lambda: kill_actor(script.cluster, next(turns))  # noqa: E731
    faults = Faults(script.at, script.nth, frozenset(script.actors), script.what, act)
    if script.at == "sql":
        faults.watch_sql()
    study = script.study()
    store: Any = FaultyStore(open_store(script.url, create=False), faults)
    pool = _pool(script, faults)
    try:
        observers = [Diary(script.marks + ".diary")] if script.marks else []
        Controller(study, store, pool, observers).run()
    finally:
        pool.close()
        store.close()


def kill_actor(cluster: str, turn: int) -> None:
    """SIGKILL one worker of the cluster, by turns the oldest, which has worked longest, and the newest, which may
    still be starting."""
    found = actors(cluster)
    if found:
        os.kill(found[-(turn % 2)], signal.SIGKILL)


def skew_clock(seconds: float) -> None:
    """Move this process's clock, for whoever looks at it from now on, default arguments included."""
    real = time.time

    def moved() -> float:
        return real() + seconds

    time.time = moved
    defaults = Controller.__init__.__defaults__ or ()
    Controller.__init__.__defaults__ = tuple(moved if value is real else value for value in defaults)


def _pool(script: Script, faults: Faults) -> WorkerPool:
    names = tuple(objective.name for objective in script.objectives)
    directions = {objective.name: objective.direction for objective in script.objectives}
    here = script.pool["pool"] != "ray"
    bowl = Bowl(names, script.marks, script.seconds, script.evil, faults if here else None)
    factory = partial(FunctionWorker, bowl, names, script.space, directions)
    if script.pool["pool"] == "threads":
        pool: WorkerPool = ThreadPool(factory, script.pool["workers"])
    else:
        pool = open_pool(parse_profile(script.pool, "chaos"), factory)
    if script.echo is not None:
        pool = EchoPool(pool, *script.echo)
    return FaultyPool(pool, faults)


def main(script: Script) -> int:
    """Run and end as the command line does: one sentence, and an exit code that says what happened."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        run(script)
    except MergesearchError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
