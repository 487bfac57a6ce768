"""The store as the server reads it: what studies say of themselves, without the places and secrets of machines.

Every page, answer, stream and report is made of what is read here, so that none of them needs to think of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from mergesearch.store.base import StudyRecord, StudyStore
from mergesearch.types import Event, Failed, Told


def shown(store: StudyStore, cut: Callable[[str], str]) -> StudyStore:
    """`store`, with `cut` applied to the messages of studies and of failures, and to notes. All else is as it is."""
    return cast(StudyStore, _Shown(store, cut))


class _Shown:
    def __init__(self, store: StudyStore, cut: Callable[[str], str]) -> None:
        self._store = store
        self._cut = cut

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def study(self, name: str) -> StudyRecord:
        return self._record(self._store.study(name))

    def studies(self) -> Sequence[StudyRecord]:
        return [self._record(record) for record in self._store.studies()]

    def facts(self, name: str) -> Mapping[str, object]:
        facts = self._store.facts(name)
        notes = facts.get("notes")
        return {**facts, "notes": [self._cut(str(note)) for note in notes]} if isinstance(notes, list) else facts

    def events(self, name: str, after: int = 0, limit: int | None = None) -> Sequence[Event]:
        return [self._event(event) for event in self._store.events(name, after, limit)]

    def _record(self, record: StudyRecord) -> StudyRecord:
        return replace(record, message=self._cut(record.message)) if record.message else record

    def _event(self, event: Event) -> Event:
        if not isinstance(event, Told) or not isinstance(event.outcome, Failed):
            return event
        return replace(event, outcome=replace(event.outcome, message=self._cut(event.outcome.message)))
