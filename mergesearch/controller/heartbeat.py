"""Keeps a lease alive while the controller's thread waits for a slow evaluation."""

import threading
from collections.abc import Callable

from mergesearch.errors import StoreError
from mergesearch.store.base import Lease, StudyStore


class Heartbeat:
    """Renews a lease every third of its length in a thread of its own, until closed.

    `lease` is always the newest one. `check` raises, in the controller's thread, what a renewal raised.
    """

    def __init__(self, store: StudyStore, lease: Lease, seconds: float, clock: Callable[[], float]) -> None:
        self._store = store
        self._seconds = seconds
        self._clock = clock
        self._error: StoreError | None = None
        self._stop = threading.Event()
        self.lease = lease
        self._thread = threading.Thread(target=self._beat, name=f"lease of {lease.study}", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(self._seconds / 3):
            try:
                self.lease = self._store.renew(self.lease, self._seconds, self._clock())
            except StoreError as error:
                self._error = error
                return

    def check(self) -> None:
        """Raises LeaseError or StoreError if the last renewal failed."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Stop renewing and wait for the thread to end."""
        self._stop.set()
        self._thread.join()
