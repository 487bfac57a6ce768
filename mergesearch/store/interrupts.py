"""Keeps Ctrl-C out of a transaction: SQLAlchemy, found between two steps, would leave it open and its locks taken."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held() -> Iterator[None]:
    """Within it, the first SIGINT or SIGTERM that has a handler waits for the end; a second one comes through.

    Only the main thread gets signals; in another it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    holders = [_Holder(number) for number in SIGNALS]
    try:
        for holder in holders:
            holder.begin()
        yield
    finally:
        for holder in holders:
            holder.end()
        for holder in holders:
            holder.deliver()


class _Holder:
    """Stands in for the handler of one signal. Left in place by an interrupt, it is as good as that handler."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._handler = signal.getsignal(number)
        self._holding = False
        self._came = False

    def begin(self) -> None:
        if callable(self._handler):
            self._holding = True
            signal.signal(self._number, self._take)

    def end(self) -> None:
        if callable(self._handler):
            signal.signal(self._number, self._handler)
            self._holding = False

    def deliver(self) -> None:
        """What came goes to whom it was meant for."""
        if self._came and callable(self._handler):
            self._handler(self._number, None)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._holding and not self._came:
            self._came = True
        elif callable(self._handler):
            self._handler(number, frame)
