"""What happens in a study, told as it happens: one reader for each study that somebody listens to, however many do."""

import asyncio
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final

from mergesearch.errors import MergesearchError
from mergesearch.store.base import StudyRecord, StudyStore
from mergesearch.web.answers import as_json
from mergesearch.web.feeds import Feed, Feeds
from mergesearch.web.figures import Figures, finite, seconds_left
from mergesearch.web.lines import log_line
from mergesearch.web.summaries import figures

TICK: Final = 0.5
HEARTBEAT: Final = 15.0
MOST_WAITING: Final = 64
"""Messages that wait for a slow listener; then its stream ends, and its browser comes back for what it missed."""
MOST_LINES: Final = 100
MOST_STREAMS: Final = 500
_COMMENT: Final = b": still here\n\n"
_LOG = logging.getLogger(__name__)


class Listener:
    """One stream. Made and read in the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue()

    @staticmethod
    def give(listeners: Iterable["Listener"], messages: Sequence[bytes | None]) -> None:
        """The next messages of all, from any thread; None ends a stream."""
        everyone = list(listeners)
        if everyone and messages and not everyone[0]._loop.is_closed():  # as it is once the server has ended
            everyone[0]._loop.call_soon_threadsafe(Listener._put, everyone, messages)

    @staticmethod
    def _put(listeners: list["Listener"], messages: Sequence[bytes | None]) -> None:
        for queue in [listener._waiting for listener in listeners]:
            for message in messages:
                if queue.qsize() <= MOST_WAITING:
                    queue.put_nowait(message if queue.qsize() < MOST_WAITING else None)

    async def messages(self) -> AsyncIterator[bytes]:
        """What was given, and a comment now and then, so that nobody in between thinks that the line is dead."""
        while True:
            try:
                message = await asyncio.wait_for(self._waiting.get(), HEARTBEAT)
            except TimeoutError:
                message = _COMMENT
            if message is None:
                return
            yield message


class Channel:
    """One study's listeners, and the thread that reads it for them while there are any."""

    def __init__(self, store: StudyStore, feeds: Feeds, name: str, ending: Callable[[], bool]) -> None:
        self._store = store
        self._feeds = feeds
        self._name = name
        self._ending = ending
        self.listeners: weakref.WeakSet[Listener] = weakref.WeakSet()  # a stream that never began is just forgotten
        self.lock = threading.Lock()
        self.closed = False
        self._wake = threading.Event()
        self._study = 0.0  # when it was created: another one is another study
        self._version = -1
        self._place = 0  # how many entries of the log were told

    def join(self, listener: Listener, last_id: str) -> bool:
        """Add a listener, who first gets how the study stands, and what he missed since `last_id`. False where the
        channel has just ended. Raises StudyNotFound, StoreError."""
        with self._feeds.reading(self._name) as feed, self.lock:
            if self.closed:
                return False
            if not self.listeners:
                self._note(feed)
                threading.Thread(target=self._read, name=f"stream of {self._name}", daemon=True).start()
            missed = _log(feed, self._missed(feed, last_id), self._place)
            Listener.give([listener], [b"retry: 2000\n\n", *missed, self._changed(feed)])
            self.listeners.add(listener)
            return True

    def leave(self, listener: Listener) -> None:
        """Remove a listener."""
        with self.lock:
            self.listeners.discard(listener)
            if not self.listeners:
                self.closed = True
                self._wake.set()

    def _missed(self, feed: Feed, last_id: str) -> int:
        """The place in the log behind what was seen up to `last_id`; its end where nobody knows."""
        study, _, seq = last_id.partition("-")
        known = study == _mark(feed.view.record) and seq.isascii() and seq.isdecimal() and len(seq) < 19
        return feed.log.after(int(seq)) if known else self._place

    def _read(self) -> None:
        try:
            self._follow()
        except Exception:  # noqa: BLE001  # whatever it was, who listens must not wait for ever for a reader that is gone
            _LOG.exception("the stream of study %s broke off", self._name)
        finally:
            self._end()

    def _follow(self) -> None:
        while not self._wake.wait(TICK):
            try:
                with self._feeds.reading(self._name) as feed, self.lock:
                    messages, goes_on = self._news(feed)
                    Listener.give(self.listeners, messages)
                    goes_on = goes_on and bool(self.listeners)
            except MergesearchError:
                goes_on = False
            if not goes_on or self._ending():
                break

    def _end(self) -> None:
        with self.lock:
            self.closed = True
            Listener.give(self.listeners, [None])

    def _news(self, feed: Feed) -> tuple[list[bytes], bool]:
        """What changed since the last time, and whether it is still the same study."""
        if feed.view.record.created != self._study:
            return [], False
        if feed.version == self._version:
            return [], True
        first = self._place
        self._note(feed)
        return [*_log(feed, first, self._place), self._changed(feed)], True

    def _note(self, feed: Feed) -> None:
        self._study, self._version, self._place = feed.view.record.created, feed.version, len(feed.log)

    def _changed(self, feed: Feed) -> bytes:
        record, found = feed.view.record, figures(feed)
        return event("changed", state(record, found, self._store.clock()), _id(feed))


class Streams:
    """All open streams of a server."""

    def __init__(self, store: StudyStore, feeds: Feeds) -> None:
        self._store = store
        self._feeds = feeds
        self._channels: dict[str, Channel] = {}
        self._lock = threading.Lock()
        self.ending: Callable[[], bool] = lambda: False
        """Whether the server ends: then every stream does."""

    def __len__(self) -> int:
        return sum(len(channel.listeners) for channel in list(self._channels.values()))

    def join(self, name: str, listener: Listener, last_id: str) -> Channel:
        """Have a listener hear of a study; the channel is to be left again. Raises StudyNotFound, StoreError."""
        while True:
            with self._lock:
                channel = self._channels.get(name)
                if channel is None or channel.closed:
                    channel = self._channels[name] = Channel(self._store, self._feeds, name, lambda: self.ending())
            if channel.join(listener, last_id):
                return channel

    def leave(self, name: str, channel: Channel, listener: Listener) -> None:
        """The listener is gone."""
        channel.leave(listener)
        with self._lock:
            if channel.closed and self._channels.get(name) is channel:
                del self._channels[name]


def state(record: StudyRecord, found: Figures, now: float) -> dict[str, object]:
    """How a study stands, as the event `changed` tells it."""
    best = found.best
    return {
        "version": found.version,
        "status": record.status.value,
        "message": record.message,
        "evaluations": found.evaluations,
        "cost": found.cost,
        "budget": found.budget,
        "best": best and best.text,
        "best_number": best and best.number,
        "best_mean": best and finite(best.mean),
        "front_size": found.front_size,
        "hypervolume": found.volume.value,
        "failures": found.failures,
        "seconds": record.seconds,
        "seconds_left": seconds_left(record, found, now),
    }


def event(kind: str, data: object, id_: str = "") -> bytes:
    """One server-sent event."""
    return (f"id: {id_}\n" if id_ else "").encode() + f"event: {kind}\ndata: ".encode() + as_json(data) + b"\n\n"


def _log(feed: Feed, first: int, end: int) -> list[bytes]:
    """The event `log` with the lines of the log from `first` to `end`, of many only the last; none for no lines.

    It comes before `changed`: who has seen an id has seen all up to it.
    """
    lines = [log_line(feed.view.results, feed.log[i]) for i in range(max(first, end - 2 * MOST_LINES), end)]
    told = [line for line in lines if line["kind"] != "asked"][-MOST_LINES:]
    return [event("log", {"lines": told}, _id(feed))] if told else []


def _id(feed: Feed) -> str:
    return f"{_mark(feed.view.record)}-{feed.view.results.last_seq}"


def _mark(record: StudyRecord) -> str:
    return str(int(record.created * 1000))
