"""Writes a running study to a sink, in a thread of its own: whatever the sink does, the study neither waits nor stops.

Every evaluation is a point; a study that is resumed goes on after the last point that its sink holds.
"""

import itertools
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, TypeAlias, final

from mergesearch.controller.observer import Observer, Progress
from mergesearch.observe.passwords import hide_passwords
from mergesearch.observe.sinks.base import Heading, Point, Sink
from mergesearch.observe.sinks.points import Points
from mergesearch.space import SearchSpace
from mergesearch.types import Told

WRITE_SECONDS: Final = 0.5  # between two writes, so that points are written together
CLOSE_SECONDS: Final = 60.0  # that the end waits for a sink which is behind
AT_ONCE: Final = 500

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """What a store knows of a study when its controller begins."""

    heading: Heading
    space: SearchSpace | None = None


@dataclass(frozen=True)
class _Begin:
    heading: Heading


@dataclass(frozen=True)
class _End:
    status: str
    summary: Mapping[str, str | float]


_Item: TypeAlias = Point | _Begin | _End | None


@final
class SinkObserver(Observer):
    """Writes to one kind of sink while a `with` block lasts; a study and its controls one after the other.

    `kind` names it in warnings, `make` opens it for a study, `known` looks a study up in its store (it must not
    raise). Leaving waits at most a minute for what is not yet written.
    """

    def __init__(self, kind: str, make: Callable[[Heading], Sink], known: Callable[[str], Known]) -> None:
        self._kind, self._make, self._known = kind, make, known
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._leaving = threading.Event()
        self._broken = False
        self._study = ""
        self._points: Points | None = None
        self._thread = threading.Thread(target=self._work, name=f"sink-{kind}", daemon=True)

    @property
    def study(self) -> str:
        """The study that is written now; '' before the first."""
        return self._study

    def __enter__(self) -> "SinkObserver":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended("stopped")
        self._queue.put(None)
        self._leaving.set()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._warn(f"it did not end within {CLOSE_SECONDS:g} s and is left as it is")

    def evaluated(self, study: str, told: Told, attempt: int) -> None:  # noqa: ARG002
        if self._points is not None and study == self._study and not self._broken:
            self._queue.put(self._points.of(told))

    def repeated(self, study: str, told: Told, attempt: int) -> None:
        """The first outcome counts: nothing to write."""

    def progressed(self, progress: Progress) -> None:
        if progress.study == self._study or self._broken:
            return
        self.ended("done")  # a control is run when the study before it is done
        self._study = progress.study
        known = self._known(progress.study)
        config = {**known.heading.config, "objectives": ", ".join(o.name for o in progress.results.objectives)}
        self._points = Points(progress.results, known.space)
        self._queue.put(_Begin(replace(known.heading, config=config)))
        for point in self._points.earlier():
            self._queue.put(point)

    def ended(self, status: str) -> None:
        """The study that is written now has ended so; a second call does nothing."""
        if self._points is not None and not self._broken:
            self._queue.put(_End(status, self._points.summary()))
        self._points = None

    def _work(self) -> None:
        sink: Sink | None = None
        try:
            items: list[_Item] = []
            while not items or items[-1] is not None:
                items = self._next()
                for kind, group in itertools.groupby(items, type):
                    if kind is Point:
                        self._write(sink, [item for item in group if isinstance(item, Point)])
                        continue
                    for item in group:
                        if isinstance(item, _Begin):
                            sink = self._make(item.heading)
                        elif isinstance(item, _End) and sink is not None:
                            ending, sink = sink, None
                            ending.close(item.status, item.summary)
        except Exception as error:  # noqa: BLE001 - whatever another program's library raises is not the study's
            self._broken = True
            self._warn(f"{type(error).__name__}: {error}")
            self._close(sink)

    def _next(self) -> list[_Item]:
        """At least one item, and what came together with it; the last one is None where there are no more."""
        items = [self._queue.get()]
        if isinstance(items[0], Point):
            self._leaving.wait(WRITE_SECONDS)
        while len(items) < AT_ONCE and items[-1] is not None:
            try:
                items.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return items

    def _write(self, sink: Sink | None, points: list[Point]) -> None:
        if sink is not None and (fresh := [point for point in points if point.step > sink.last]):
            sink.write(fresh)

    def _close(self, sink: Sink | None) -> None:
        if sink is None:
            return
        try:
            sink.close("failed", {})
        except Exception as error:  # noqa: BLE001 - the warning was given; what it left open ends with the process
            _LOG.debug("sink %r could not be closed: %s", self._kind, error)

    def _warn(self, why: str) -> None:
        _LOG.warning(
            "sink %r is no longer written, the study goes on (every evaluation is in its store): %s",
            self._kind,
            hide_passwords(why),
        )
