"""The link to a Ray cluster: whether it is still there, and calls that end when it is not.

When the head of a cluster is gone, calls into Ray hang, and after a minute Ray ends the whole process from its own
threads. So each call is made in a thread of its own that nobody has to wait for, while another thread knocks at the
head's door and says when nobody opens.
"""

import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar, final

T = TypeVar("T")
Address = tuple[str, int]

KNOCK_SECONDS: Final = 1.0
KNOCK_TIMEOUT: Final = 5.0
REFUSALS: Final = 3  # knocks in a row that nobody answers; a busy machine may miss one
PULSE_SECONDS: Final = 2.0
SILENCE_SECONDS: Final = 25.0  # a door may be open and nobody behind it: a question that stays unanswered so long
_LOOK_SECONDS: Final = 0.25


class Lost(Exception):
    """The cluster is gone; becomes a PoolError in the pool."""


@final
class Link:
    """Makes calls into Ray as long as the cluster is there. One caller at a time."""

    def __init__(self, doors: Sequence[Address], pulse: Callable[[], object]) -> None:
        """`doors`: where the cluster listens; it is gone when one of them stays shut, or when `pulse`, a question that
        it answers at once, stays unanswered."""
        self._doors = tuple(doors)
        self._pulse = pulse
        self._heard = time.monotonic()
        self._gone = threading.Event()
        self._closed = threading.Event()
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], _Answer] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="ray-calls", daemon=True).start()
        threading.Thread(target=self._watch, name="ray-watch", daemon=True).start()
        threading.Thread(target=self._listen, name="ray-pulse", daemon=True).start()

    @property
    def gone(self) -> bool:
        """Whether nobody answers any more; stays so."""
        return self._gone.is_set()

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises. Raises Lost when the cluster is gone before it has ended."""
        if self.gone:
            raise Lost
        answer = _Answer()
        self._calls.put((function, answer))
        while not answer.ready.wait(_LOOK_SECONDS):
            if self.gone:
                raise Lost
        if answer.error is not None:
            raise answer.error
        return answer.value  # type: ignore[no-any-return]  # what function returned

    def close(self) -> None:
        """End the threads; one that hangs in a call is left behind."""
        self._closed.set()
        self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            function, answer = item
            try:
                answer.value = function()
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
                answer.error = error
            answer.ready.set()

    def _watch(self) -> None:
        refusals = 0
        while not self._closed.wait(KNOCK_SECONDS):
            refusals = 0 if all(map(answers, self._doors)) else refusals + 1
            if refusals >= REFUSALS or time.monotonic() - self._heard > SILENCE_SECONDS:
                self._gone.set()
                return

    def _listen(self) -> None:
        while not self._closed.wait(PULSE_SECONDS) and not self.gone:
            with suppress(Exception):  # a failed question is an unanswered one
                self._pulse()
                self._heard = time.monotonic()


@final
class _Answer:
    def __init__(self) -> None:
        self.ready = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None


def answers(door: Address) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(door, timeout=KNOCK_TIMEOUT).close()
    except OSError:
        return False
    return True
