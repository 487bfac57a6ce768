"""Who is signed in: random ids in memory. A server that starts again knows none of them, so people sign in again."""

import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

SESSION_SECONDS: Final = 12 * 3600.0
MOST: Final = 1000
"""Sessions kept at once; the oldest one ends for a new one."""


@dataclass(frozen=True)
class Session:
    """One browser that is signed in until `until` (by the clock of its `Sessions`). `csrf` is what its pages send
    along with every change, which no other site can read."""

    id: str
    csrf: str
    until: float

    def sent_by(self, csrf: str) -> bool:
        """Whether a request came from a page of ours, compared in constant time."""
        return hmac.compare_digest(csrf.encode("utf-8", "replace"), self.csrf.encode())


class Sessions:
    """The sessions of one server. Any thread may call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def begin(self) -> Session:
        """A new session; its id was never used before."""
        made = Session(secrets.token_urlsafe(32), secrets.token_urlsafe(32), self.clock() + SESSION_SECONDS)
        with self._lock:
            now = self.clock()
            self._open = {name: kept for name, kept in self._open.items() if kept.until > now}
            while len(self._open) >= MOST:
                del self._open[next(iter(self._open))]
            self._open[made.id] = made
        return made

    def find(self, name: str) -> Session | None:
        """The session of this id; None if it was never begun, has ended or is too old."""
        found = self._open.get(name)
        return found if found is not None and found.until > self.clock() else None

    def end(self, name: str) -> None:
        """Forget a session. One that is not there is no error."""
        with self._lock:
            self._open.pop(name, None)
