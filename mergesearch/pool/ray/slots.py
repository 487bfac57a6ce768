"""One worker of a Ray pool as the pool sees it, and how busy all of them were."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, final

from mergesearch.pool.base import Usage
from mergesearch.pool.jobs import Ticket, now


class State(Enum):
    """What a worker is at."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    SUSPECT = "suspect"  # out of reach with a job; it may come back


@dataclass(eq=False)
class Slot:
    """One worker. `pending` is the call whose answer is awaited; `ticket` the job of a busy or suspect worker."""

    actor: Any
    pending: Any
    state: State = State.STARTING
    ticket: Ticket | None = None
    turn: int = 0  # numbers its jobs, so that its last outcome is known to be that of the last job
    begun: float = 0.0  # when its job was handed over, or when it was started
    free: float = 0.0  # since when it has had no job
    suspected: float = 0.0  # when it was out of reach first
    ask_again: float = 0.0  # a suspect that did not answer is asked again then
    name: str = ""
    node: str = ""

    @property
    def ready(self) -> bool:
        """Whether it can be given jobs, now or after the present one."""
        return self.state in (State.IDLE, State.BUSY)


@final
class Meter:
    """Worker-seconds, of which busy ones: `available` from a worker's first ready moment to its end, without the time
    that it was out of reach; `busy` from the hand-over of a job to the arrival of its outcome."""

    def __init__(self) -> None:
        self._busy = self._available = 0.0
        self._since: dict[int, tuple[Slot, float]] = {}

    def ready(self, slot: Slot) -> None:
        """It can be given jobs from now on."""
        self._since[id(slot)] = slot, now()

    def away(self, slot: Slot) -> None:
        """It is gone or out of reach; the time it spent on a job until now counts as busy. Call while it has it."""
        if id(slot) in self._since:
            self._available += now() - self._since.pop(id(slot))[1]
            self.done(slot)

    def done(self, slot: Slot) -> None:
        """Its job has ended. Call while it is still marked as busy."""
        if slot.state is State.BUSY:
            self._busy += now() - slot.begun

    def usage(self) -> Usage:
        """The sums up to now."""
        moment = now()
        slots = [slot for slot, _ in self._since.values()]
        busy = sum(moment - slot.begun for slot in slots if slot.state is State.BUSY)
        available = sum(moment - since for _, since in self._since.values())
        return Usage(len(slots), self._busy + busy, self._available + available)
