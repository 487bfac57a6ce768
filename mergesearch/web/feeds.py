"""Studies kept up to date in memory, one reader for all who look: a request folds only what is new in the log."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from mergesearch.report.view import StudyView, view_of
from mergesearch.results import Results
from mergesearch.store.base import StudyStore
from mergesearch.stored import objectives_of, stored

T = TypeVar("T")

FRESH_SECONDS: Final = 0.5
"""A study that was read so lately is not read again."""


class Feed:
    """One study. Use it within `Feeds.reading`, which holds its lock: the log is folded and read by turns.

    `version` grows whenever something changed: the log, the status, a fact.
    """

    def __init__(self, store: StudyStore, name: str) -> None:
        self.name = name
        self.version = 0
        self.lock = threading.RLock()
        self._store = store
        self._results: Results | None = None
        self._seq = 0
        self._seen: tuple[object, Mapping[str, Any]] | None = None
        self._view: StudyView | None = None
        self._kept: dict[str, tuple[int, Any]] = {}
        self._read = -float("inf")

    @property
    def view(self) -> StudyView:
        """The study as it was last read."""
        assert self._view is not None
        return self._view

    def refresh(self) -> None:
        """Fold what is new. Raises StudyNotFound, StoreError."""
        now = time.monotonic()
        if now - self._read < FRESH_SECONDS:
            return
        store, name = self._store, self.name
        record, facts = store.study(name), store.facts(name)
        if self._results is None:
            self._results = Results(objectives_of(facts))
        events = store.events(name, after=self._seq)
        for event in events:
            self._results.add(event)
            self._seq = event.seq
        seen = ((record.status, record.message, record.owner), facts)
        if events or seen != self._seen:
            self.version += 1
            self._seen = seen
        self._view = view_of(store, stored(record, facts, self._results))
        self._read = now

    def kept(self, key: str, make: Callable[[StudyView], T]) -> T:
        """What `make` gives of the study, made once for each version."""
        found = self._kept.get(key)
        if found is None or found[0] != self.version:
            found = self._kept[key] = (self.version, make(self.view))
        made: T = found[1]
        return made


class Feeds:
    """The feed of each study that somebody looked at."""

    def __init__(self, store: StudyStore) -> None:
        self._store = store
        self._feeds: dict[str, Feed] = {}
        self._lock = threading.Lock()

    @contextmanager
    def reading(self, name: str) -> Iterator[Feed]:
        """The feed of a study, fresh, while nobody else folds or reads it. Raises StudyNotFound, StoreError."""
        with self._lock:
            feed = self._feeds.setdefault(name, Feed(self._store, name))
        with feed.lock:
            feed.refresh()
            yield feed
