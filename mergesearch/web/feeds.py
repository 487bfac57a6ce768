"""Studies kept up to date in memory, one reader for all who look: a request folds only what is new in the log."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from mergesearch.errors import StudyNotFound
from mergesearch.report.view import StudyView, view_of
from mergesearch.store.base import StudyStore
from mergesearch.stored import StoredStudy
from mergesearch.types import Status
from mergesearch.web.folding import Fold, Log
from mergesearch.web.names import check_name

T = TypeVar("T")

FRESH_SECONDS: Final = 0.5
"""A study that was read so lately is not read again."""
IDLE_SECONDS: Final = 600.0
"""A feed that nobody looked at for so long is dropped."""
MOST_FEEDS: Final = 32
"""Above it the one that was looked at longest ago is dropped."""
MOST_KEPT: Final = 64
"""Things kept for one version of a study; above it the oldest goes."""


class Feed:
    """One study. Use it within `Feeds.reading`, which holds its lock: the log is folded and read by turns.

    `version` grows whenever something changed: the log, the status, a fact.
    """

    def __init__(self, store: StudyStore, name: str) -> None:
        self.name = name
        self.version = time.time_ns() // 1_000_000  # above whatever a dropped feed of the study had reached
        self.lock = threading.RLock()
        self.used = time.monotonic()
        self._store = store
        self._fold = Fold(store, name)
        self._controls: dict[str, Fold] = {}
        self._moved = False  # whether something changed that no view was made of yet
        self._view: StudyView | None = None
        self._kept: dict[str, Any] = {}
        self._read = -float("inf")

    @property
    def view(self) -> StudyView:
        """The study as it was last read."""
        assert self._view is not None
        return self._view

    @property
    def facts(self) -> Mapping[str, Any]:
        """Its facts, as its view was made of."""
        return self._fold.facts

    @property
    def log(self) -> Log:
        """The order of its log."""
        return self._fold.log

    def refresh(self) -> None:
        """Fold what is new. Raises StudyNotFound, StoreError."""
        now = time.monotonic()
        if self._view is not None and now - self._read < FRESH_SECONDS:
            return
        study, changed = self._fold.read()
        self._moved |= changed
        if self._moved or self._view is None or study.record != self._view.record or study.facts.get("controls"):
            self._view = view_of(self._store, study, self._control)
        if self._moved:
            self._moved = False
            self.version += 1
            self._kept.clear()
        self._read = time.monotonic()

    def kept(self, key: str, make: Callable[[StudyView], T]) -> T:
        """What `make` gives of the study, made once for each version."""
        if key not in self._kept:
            made = make(self.view)
            if len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = made
        found: T = self._kept[key]
        return found

    def _control(self, name: str) -> StoredStudy:
        study, changed = self._controls.setdefault(name, Fold(self._store, name)).read()
        self._moved |= changed
        return study


class Feeds:
    """The feeds of the studies that somebody looked at lately. For any thread."""

    def __init__(self, store: StudyStore) -> None:
        self._store = store
        self._feeds: dict[str, Feed] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._feeds)

    def __contains__(self, name: object) -> bool:
        return name in self._feeds

    @contextmanager
    def reading(self, name: str) -> Iterator[Feed]:
        """The feed of a study, fresh, while nobody else folds or reads it. Raises StudyNotFound, StoreError."""
        check_name(name)
        with self._lock:
            feed = self._feeds.setdefault(name, Feed(self._store, name))
            feed.used = time.monotonic()
            self._drop_unused()
        with self._fresh(feed):
            yield feed

    @contextmanager
    def passing(self, name: str) -> Iterator[Feed]:
        """The same, for who looks at all studies: does not count as a use, and a feed that was not there before stays
        only if its study runs."""
        check_name(name)
        with self._lock:
            was_there = name in self._feeds
            feed = self._feeds.setdefault(name, Feed(self._store, name))
            began = feed.used
        with self._fresh(feed):
            yield feed
            if not was_there and feed.used == began and feed.view.record.status is not Status.RUNNING:
                self._drop(feed)

    @contextmanager
    def _fresh(self, feed: Feed) -> Iterator[None]:
        with feed.lock:
            try:
                feed.refresh()
            except StudyNotFound:
                self._drop(feed)
                raise
            yield

    def _drop(self, feed: Feed) -> None:
        with self._lock:
            if self._feeds.get(feed.name) is feed:
                del self._feeds[feed.name]

    def _drop_unused(self) -> None:
        """Forget what is idle; who reads such a feed right now keeps it until the end of the reading."""
        now = time.monotonic()
        by_use = sorted(self._feeds.values(), key=lambda feed: feed.used)
        excess = len(by_use) - MOST_FEEDS
        for place, feed in enumerate(by_use):
            if place < excess or now - feed.used > IDLE_SECONDS:
                del self._feeds[feed.name]
