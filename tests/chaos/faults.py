"""Faults at named steps: wrappers around a store and a pool that can kill, stop or count, and nothing in production."""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

from sqlalchemy import Engine, event

from mergesearch.pool.base import Job, JobResult, Usage, WorkerPool

STORE_STEPS = ("acquire", "renew", "release", "set_status", "set_facts", "ask", "tell", "finish_command")
CHAIN = (
    *("before ask", "after ask", "before submit", "after submit", "scoring", "arrived", "before tell", "after tell"),
    *("before set_facts", "after set_facts", "before set_status", "after set_status"),
    *("before acquire", "after acquire", "before release", "after release", "before renew", "after renew"),
)
"""Every step of a study with one worker at which a process can die."""


@dataclass
class Faults:
    """Counts steps; at the `nth` time that `at` comes, the process gets the signal `what`, or for 0 does `act`.

    `at` is a step of CHAIN, or 'sql': any statement or commit, on either side of it; '' for no fault. At each step of
    `also`, (step, nth), it does `act` and goes on.
    """

    at: str = ""
    nth: int = 1
    also: frozenset[tuple[str, int]] = frozenset()
    what: int = signal.SIGKILL
    act: Callable[[], None] = int
    seen: dict[str, int] = field(default_factory=dict)

    def step(self, name: str) -> None:
        """Here is `name`."""
        self.seen[name] = self.seen.get(name, 0) + 1
        if (name, self.seen[name]) in self.also:
            self.act()
        if name == self.at and self.seen[name] == self.nth:
            if self.what:
                os.kill(os.getpid(), self.what)
            else:
                self.act()

    def watch_sql(self) -> None:
        """Count what every SQL engine of this process does, from now on."""
        for name in ("before_cursor_execute", "after_cursor_execute", "commit", "rollback"):
            event.listen(Engine, name, partial(_sql, self))


def _sql(faults: Faults, *_: Any) -> None:
    faults.step("sql")


@final
class FaultyStore:
    """A store whose writes are steps."""

    def __init__(self, store: Any, faults: Faults) -> None:
        self._store, self._faults = store, faults

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in STORE_STEPS:
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self._faults.step(f"before {name}")
            value = method(*args, **kwargs)
            self._faults.step(f"after {name}")
            return value

        return call


@final
class FaultyPool:
    """WorkerPool around another, whose submissions and results are steps."""

    def __init__(self, pool: WorkerPool, faults: Faults) -> None:
        self._pool, self._faults = pool, faults

    @property
    def size(self) -> int:
        """As the pool's."""
        return self._pool.size

    @property
    def gpus(self) -> float:
        """As the pool's."""
        return self._pool.gpus

    def usage(self) -> Usage:
        """As the pool's."""
        return self._pool.usage()

    def submit(self, job: Job) -> None:
        """Two steps."""
        self._faults.step("before submit")
        self._pool.submit(job)
        self._faults.step("after submit")

    def poll(self, timeout: float) -> Sequence[JobResult]:
        """A step for each result."""
        results = self._pool.poll(timeout)
        for _ in results:
            self._faults.step("arrived")
        return results

    def close(self) -> None:
        """As the pool's."""
        self._pool.close()
