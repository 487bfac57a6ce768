"""Keeps a lease alive while the controller's thread waits for a slow evaluation."""

import logging
import threading

from mergesearch.errors import LeaseError, StoreError
from mergesearch.store.base import Lease, StudyStore

PATIENCE_SECONDS = 5.0

_LOG = logging.getLogger(__name__)


class Heartbeat:
    """Renews a lease every third of its length in a thread of its own, until closed.

    `lease` is always the newest one. `check` raises, in the controller's thread, that another took the lease. While
    the store cannot be reached the renewal is tried again: a lease that ran out meanwhile is still its holder's as long
    as nobody else took it.
    """

    def __init__(self, store: StudyStore, lease: Lease, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._error: LeaseError | None = None
        self._stop = threading.Event()
        self.lease = lease
        self._thread = threading.Thread(target=self._beat, name=f"lease of {lease.study}", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(self._seconds / 3):
            try:
                self.lease = self._store.renew(self.lease, self._seconds)
            except LeaseError as error:
                self._error = error
                return
            except StoreError as error:
                _LOG.warning("study %r: its lease could not be renewed, trying again: %s", self.lease.study, error)

    def check(self) -> None:
        """Raises LeaseError if another controller has taken the study."""
        if self._error is not None:
            raise self._error

    def close(self) -> bool:
        """Stop renewing. False if a renewal still waits for a store that cannot be reached: nothing else should."""
        self._stop.set()
        self._thread.join(PATIENCE_SECONDS)
        return not self._thread.is_alive()
