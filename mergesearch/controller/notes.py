"""What a controller says of a running study: to whoever watches, and for the store's readers every few seconds."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, final

from mergesearch.controller.observer import Observer, Progress
from mergesearch.pool.base import Usage
from mergesearch.strategies.base import Strategy
from mergesearch.types import Told

PROGRESS_SECONDS = 0.5
NOTE_SECONDS = 5.0

_LOG = logging.getLogger(__name__)


@final
class Notes:
    """The strategy's sentences and figures, and how busy the workers were, as facts of the study.

    `keep` writes facts. What the workers did under earlier controllers is added to what they do under this one.
    """

    def __init__(
        self,
        study: str,
        strategy: Strategy,
        observers: Sequence[Observer],
        keep: Callable[[dict[str, object]], None],
    ) -> None:
        self._study, self._strategy, self._observers, self._keep = study, strategy, observers, keep
        self._notes: list[object] = []
        self._before = Usage()
        self._begun = False
        self._phase = ""
        self._shown = self._noted = -math.inf

    def begin(self, facts: Mapping[str, object]) -> None:
        """Go on from the facts that the study has."""
        found = facts.get("notes")
        self._notes = found if isinstance(found, list) else []
        self._before = _usage(facts.get("usage"))
        self._begun = True

    def evaluated(self, told: Told, attempt: int) -> None:
        """An evaluation was recorded."""
        for observer in self._observers:
            observer.evaluated(self._study, told, attempt)

    def repeated(self, told: Told, attempt: int) -> None:
        """A further outcome was kept beside the log."""
        for observer in self._observers:
            observer.repeated(self._study, told, attempt)

    def progress(self, now: float, phase: str, made: Callable[[], Progress]) -> None:
        """Tell of the progress where it is time, or another phase has begun."""
        if now - self._shown < PROGRESS_SECONDS and phase == self._phase:
            return
        self._shown, self._phase = now, phase
        progress = made()
        self._keep_notes()
        if now - self._noted >= NOTE_SECONDS:
            self._noted = now
            self._keep(self._figures(progress.usage))
        for observer in self._observers:
            observer.progressed(progress)

    def last(self, usage: Usage) -> None:
        """Keep all of it once more, at the end; nothing if the controller never began."""
        if not self._begun:
            return
        self._keep_notes()
        self._keep(self._figures(usage))

    def _figures(self, usage: Usage) -> dict[str, object]:
        before = self._before
        total = Usage(usage.workers or before.workers, before.busy + usage.busy, before.available + usage.available)
        return {
            "diagnostics": dict(self._strategy.diagnostics()),
            "usage": {**asdict(total), "share": total.share},
        }

    def _keep_notes(self) -> None:
        """Log what the strategy said since, and keep all of it."""
        notes = list(self._strategy.notes())
        if not notes or notes == self._notes:
            return
        for note in notes:
            if note not in self._notes:
                _LOG.info("study %r: %s", self._study, note)
        self._notes = list(notes)
        self._keep({"notes": notes})


def _usage(kept: Any) -> Usage:
    if not isinstance(kept, Mapping):
        return Usage()
    return Usage(int(kept.get("workers", 0)), float(kept.get("busy", 0.0)), float(kept.get("available", 0.0)))
