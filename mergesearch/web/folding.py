"""One study's log, folded as it grows: each call reads only what is new of it."""

from array import array
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mergesearch.errors import StudyNotFound
from mergesearch.results import Results
from mergesearch.space import SearchSpace
from mergesearch.store.base import StudyRecord, StudyStore
from mergesearch.stored import StoredStudy, objectives_of
from mergesearch.types import Asked, Split

PIECE: Final = 20_000
"""Entries of a log that are read in one transaction."""
_SPLITS: Final = tuple(Split)


@dataclass(frozen=True)
class Entry:
    """One line of the log: a candidate was asked or told on a split."""

    seq: int
    number: int
    split: Split
    told: bool


class Log:
    """The order of a study's log, 16 bytes an entry; what was told is found in its results."""

    def __init__(self) -> None:
        self._seqs: array[int] = array("q")
        self._keys: array[int] = array("q")

    def add(self, entry: Entry) -> None:
        """The next entry."""
        self._seqs.append(entry.seq)
        self._keys.append((entry.number * len(_SPLITS) + _SPLITS.index(entry.split)) * 2 + entry.told)

    def after(self, seq: int) -> int:
        """The place of the first entry behind `seq`."""
        return bisect_right(self._seqs, seq)

    def __len__(self) -> int:
        return len(self._seqs)

    def __getitem__(self, place: int) -> Entry:
        rest, told = divmod(self._keys[place], 2)
        number, split = divmod(rest, len(_SPLITS))
        return Entry(self._seqs[place], number, _SPLITS[split], bool(told))


class Fold:
    """A study as it was last read. For one thread at a time.

    A study that was deleted and made again under its name is another one: all is read anew.
    """

    def __init__(self, store: StudyStore, name: str) -> None:
        self._store = store
        self._name = name
        self._study: StoredStudy | None = None
        self._grown = False  # whether entries were folded that no call has told of yet
        self.log = Log()

    @property
    def facts(self) -> Mapping[str, Any]:
        """The study's facts as they were last read."""
        return {} if self._study is None else self._study.facts

    def read(self) -> tuple[StoredStudy, bool]:
        """The study as it is now, and whether anything but its lease differs from the last time.

        Reads one row where nothing was written since. Raises StudyNotFound, StoreError.
        """
        record = self._store.study(self._name)
        last = self._study
        if last is not None and not _same(record, last.record):
            self._study, last = None, None
        if last is not None and record == last.record and not self._grown:
            return last, False
        facts = self._store.facts(self._name)
        if last is None:
            self.log = Log()
        study = _study(record, facts, last)
        self._grown |= self._fold(study.results)
        # What was read belongs to one study only if that one still stands; else the next call reads the new one.
        if self._grown and not _same(record, self._store.study(self._name)):
            self._study = None
            raise StudyNotFound(f"study {self._name!r} was deleted while it was read")
        grown, self._study, self._grown = self._grown, study, False
        return study, grown or last is None or _said(record, facts) != _said(last.record, last.facts)

    def _fold(self, results: Results) -> bool:
        """In pieces, so that no transaction is long, nor all of a long log in memory."""
        before = results.last_seq
        while events := self._store.events(self._name, results.last_seq, PIECE):
            for event in events:
                results.add(event)
                self.log.add(Entry(event.seq, event.candidate.number, event.split, not isinstance(event, Asked)))
        return results.last_seq > before


def _same(one: StudyRecord, other: StudyRecord) -> bool:
    return (one.created, one.digest) == (other.created, other.digest)


def _said(record: StudyRecord, facts: Mapping[str, Any]) -> tuple[object, ...]:
    return record.status, record.message, record.owner, facts


def _study(record: StudyRecord, facts: Mapping[str, Any], last: StoredStudy | None) -> StoredStudy:
    """The study with the log folded so far; its space is built anew only where it changed, as no study's does."""
    if last is None:
        results, space = Results(objectives_of(facts)), SearchSpace.from_dict(facts["space"])
    else:
        results, space = last.results, last.space
    return StoredStudy(record, facts, space, results, facts["budget"])
