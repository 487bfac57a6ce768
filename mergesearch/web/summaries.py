"""The list of studies: its figures are kept and made anew only for studies that were written since.

No call folds many logs: what is not known within a moment is read by a thread behind, the newest first.
"""

import logging
import threading
from dataclasses import dataclass
from typing import Final

from mergesearch.errors import MergesearchError
from mergesearch.store.base import StudyRecord, StudyStore
from mergesearch.web.feeds import Feed, Feeds
from mergesearch.web.figures import Figures, figures_of

MOMENT: Final = 0.06  # seconds that one call waits for the reading behind
WARM: Final = 3  # the newest studies, whose feeds are made at the start
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """A study's record and its figures as they were last read; None while they never were."""

    record: StudyRecord
    figures: Figures | None


def figures(feed: Feed) -> Figures:
    """The figures of the study that is being read."""
    return feed.kept("figures", lambda view: figures_of(view, feed.version, feed.facts))


class Summaries:
    """All studies of the store, for any thread."""

    def __init__(self, store: StudyStore, feeds: Feeds) -> None:
        self._store = store
        self._feeds = feeds
        self._known: dict[str, tuple[StudyRecord, Figures]] = {}
        self._stale: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read behind: the newest studies first, whose feeds stay."""
        self._thread = threading.Thread(target=self._behind, name="summaries", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, at the end of the study that it reads."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(2.0)

    def read(self) -> list[Summary]:
        """Every study, newest first. Raises StoreError."""
        records = self._store.studies()
        stale = [record.name for record in records if not self._fresh(record)]
        if self._thread is None:
            for name in stale:
                self._learn(name)
        elif stale:
            with self._changed:
                self._stale = stale
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._stale or self._ended, MOMENT)
        names = {record.name for record in records}
        for gone in [name for name in list(self._known) if name not in names]:
            self._known.pop(gone, None)
        return [self._summary(record) for record in records]

    def control_of(self, name: str) -> str | None:
        """The study that this one is a control of, as far as it was read."""
        known = list(self._known.items())
        return next((other for other, (_, found) in known if name in found.controls.values()), None)

    def _summary(self, record: StudyRecord) -> Summary:
        known = self._known.get(record.name)
        if known is None or known[0].created != record.created:
            return Summary(record, None)
        return Summary(record, known[1])

    def _fresh(self, record: StudyRecord) -> bool:
        known = self._known.get(record.name)
        return known is not None and known[0] == record

    def _learn(self, name: str) -> None:
        """Read one study; a feed that nobody else wanted stays only for a study that runs."""
        try:
            with self._feeds.passing(name) as feed:
                self._known[name] = (feed.view.record, figures(feed))
        except MergesearchError:
            self._known.pop(name, None)

    def _behind(self) -> None:
        for name in self._newest():
            if self._ended:
                return
            self._warm(name)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stale or self._ended)
                if self._ended:
                    return
                name = self._stale[0]
            self._learn(name)
            with self._changed:
                if name in self._stale:
                    self._stale.remove(name)
                self._changed.notify_all()

    def _newest(self) -> list[str]:
        try:
            return [record.name for record in self._store.studies()[:WARM]]
        except MergesearchError:
            return []

    def _warm(self, name: str) -> None:
        try:
            with self._feeds.reading(name) as feed:
                self._known[name] = (feed.view.record, figures(feed))
        except MergesearchError as error:
            _LOG.debug("study %s could not be read ahead: %s", name, error)
