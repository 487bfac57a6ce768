"""How often somebody may fail to sign in."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

WINDOW_SECONDS: Final = 60.0
EACH: Final = 5
"""Failures of one client within the window."""
ALL: Final = 60
"""Failures of all clients within the window. Above it whoever failed within it waits too, but nobody who has not: those
who guess from many places shall not keep the owner out."""
MOST: Final = 10_000
"""Clients that are remembered; above it the one that failed first is forgotten."""


class Failures:
    """Counts failures within a sliding window, for each client and in all. Nothing sleeps: whoever has failed too often
    is told when to come back. Any thread may call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._times: dict[str, deque[float]] = {}
        self._all: deque[float] = deque(maxlen=ALL)
        self._lock = threading.Lock()

    def wait(self, client: str) -> int:
        """Whole seconds until `client` may try again; 0 if it may now."""
        with self._lock:
            now = self.clock()
            self._forget(now)
            own = self._times.get(client, deque())
            waits = [
                times[-limit] + WINDOW_SECONDS - now
                for times, limit in ((own, EACH), (self._all, ALL))
                if own and len(times) >= limit
            ]
            return max((math.ceil(wait) for wait in waits), default=0)

    def count(self, client: str) -> None:
        """One more failure."""
        with self._lock:
            now = self.clock()
            self._forget(now)
            self._times.setdefault(client, deque()).append(now)
            self._all.append(now)
            if len(self._times) > MOST:
                del self._times[next(iter(self._times))]

    def _forget(self, now: float) -> None:
        """Drop what is older than the window."""
        while self._all and self._all[0] <= now - WINDOW_SECONDS:
            self._all.popleft()
        for client, times in list(self._times.items()):
            while times and times[0] <= now - WINDOW_SECONDS:
                times.popleft()
            if not times:
                del self._times[client]
