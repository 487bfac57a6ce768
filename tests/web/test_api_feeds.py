"""Feeds: studies in memory that follow their logs, forget what was deleted, and serve many threads."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from web.stores import fill

from mergesearch.errors import StoreError, StudyNotFound
from mergesearch.store.base import StudyStore
from mergesearch.store.open import open_store
from mergesearch.stored import read_stored
from mergesearch.types import Candidate, Score, Scored, Split, Status
from mergesearch.web import feeds as feeds_module
from mergesearch.web.feeds import Feeds
from mergesearch.web.streams import Listener, Streams
from mergesearch.web.summaries import Summaries


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StudyStore]:
    monkeypatch.setattr(feeds_module, "FRESH_SECONDS", 0.0)
    opened = open_store(f"sqlite:///{tmp_path}/a.db")
    yield opened
    opened.close()


def _more(store: StudyStore, name: str, first: int, count: int, value: float = 0.5) -> None:
    lease = store.acquire(name, "here:1:1:more", 60.0)
    for number in range(first, first + count):
        store.ask(lease, Candidate(number, np.full(4, 0.25)), Split.SEARCH)
        store.tell(lease, number, Split.SEARCH, Scored({"a": Score(value), "b": Score(value)}))
    store.release(lease)


def test_a_feed_grows_with_the_log_and_its_version_with_it(store: StudyStore) -> None:
    """What is folded bit by bit is what is folded at once; nothing new leaves the version as it is."""
    fill(store, "one", evaluations=20)
    feeds = Feeds(store)
    versions = []
    for first in (1000, 1010, 1020):
        with feeds.reading("one") as feed:
            versions.append(feed.version)
            assert feed.kept("count", lambda view: len(view.results.scored)) == len(feed.view.results.scored)
        with feeds.reading("one") as feed:
            assert feed.version == versions[-1]
        _more(store, "one", first, 10, value=first / 2000)
    with feeds.reading("one") as feed:
        whole = read_stored(store, "one").results
        assert (feed.view.results.scored, feed.view.results.front) == (whole.scored, whole.front)
        assert feed.view.results.hypervolume() == whole.hypervolume()
        assert len(feed.log) == 2 * len(whole.outcomes)
        assert [feed.log[i].seq for i in range(len(feed.log))] == list(range(1, len(feed.log) + 1))
        assert sorted({*versions, feed.version}) == [*versions, feed.version]


def test_a_study_that_is_made_again_shows_nothing_of_the_old_one(store: StudyStore) -> None:
    """Deleted and launched under the same name: other results, and a version above the old one's."""
    fill(store, "one", evaluations=30, seed=1)
    feeds = Feeds(store)
    with feeds.reading("one") as feed:
        old, version = feed.kept("front", lambda view: list(view.results.front)), feed.version
        assert old
    store.remove("one")
    with pytest.raises(StudyNotFound), feeds.reading("one"):
        pass
    assert len(feeds) == 0
    fill(store, "one", evaluations=3, seed=2, fail=0)
    with feeds.reading("one") as feed:
        assert feed.view.results.search_told == 3
        assert feed.kept("front", lambda view: list(view.results.front)) == read_stored(store, "one").results.front
    store.remove("one")
    fill(store, "one", evaluations=5, seed=3, fail=0)
    with feeds.reading("one") as feed:
        assert feed.view.results.search_told == 5
        assert len(feed.log) == 2 * (5 + 5)
        assert feed.version > version


def test_many_threads_read_while_the_study_grows(store: StudyStore) -> None:
    """Every reading sees one state of the study, whole, and none sees an older one after a newer."""
    fill(store, "one", evaluations=10, status=Status.RUNNING)
    feeds, faults, ended = Feeds(store), [], threading.Event()

    def look() -> None:
        last = 0
        while not ended.is_set():
            with feeds.reading("one") as feed:
                results = feed.view.results
                columns, told = results.columns(), results.search_told
                if len(columns.numbers) + results.failed != len(results.outcomes) or told < last:
                    faults.append((len(columns.numbers), results.failed, len(results.outcomes), told, last))
                last = told

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        _more(store, "one", 1000, 25)
    finally:
        ended.set()
        for thread in threads:
            thread.join(20.0)
    assert not faults
    with feeds.reading("one") as feed:
        assert feed.view.results.search_told == 35


def test_feeds_that_nobody_looks_at_are_dropped(store: StudyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their number, and by their age."""
    for name in ("one", "two", "three"):
        fill(store, name, evaluations=2)
    feeds = Feeds(store)
    monkeypatch.setattr(feeds_module, "MOST_FEEDS", 2)
    for name in ("one", "two", "one", "three"):
        with feeds.reading(name):
            pass
    assert ("one" in feeds, "two" in feeds, "three" in feeds) == (True, False, True)
    monkeypatch.setattr(feeds_module, "IDLE_SECONDS", -1.0)
    with feeds.reading("three"):
        pass
    assert len(feeds) == 0


def test_the_list_keeps_figures_but_no_feeds(store: StudyStore) -> None:
    """Studies that do not run are folded once for the list, and forgotten but for their figures."""
    for name in ("one", "two"):
        fill(store, name, evaluations=5)
    feeds = Feeds(store)
    summaries = Summaries(store, feeds)
    assert [s.figures and s.figures.evaluations for s in summaries.read()] == [5, 5]
    assert len(feeds) == 0
    _more(store, "one", 1000, 2)
    store.remove("two")
    assert [(s.record.name, s.figures and s.figures.evaluations) for s in summaries.read()] == [("one", 7)]


def test_the_list_is_read_behind(store: StudyStore) -> None:
    """With its thread, the list answers at once and knows more soon."""
    for place in range(5):
        fill(store, f"s{place}", evaluations=3)
    summaries = Summaries(store, Feeds(store))
    summaries.start()
    try:
        end = time.monotonic() + 20.0
        while any(s.figures is None for s in summaries.read()):
            assert time.monotonic() < end
        assert len(summaries.read()) == 5
    finally:
        summaries.stop()


def test_no_odd_name_reaches_the_database(store: StudyStore) -> None:
    """They are names of no study."""
    for name in ("", "a b", "../x", "a\n", "ä", "x" * 201, "a\0", "-a"):
        with pytest.raises(StudyNotFound), Feeds(store).reading(name):
            pass


@pytest.mark.parametrize("breaks", ["repeats", "study", "facts"])
def test_what_was_folded_before_an_error_of_the_store_is_not_lost(
    store: StudyStore, monkeypatch: pytest.MonkeyPatch, breaks: str
) -> None:
    """A store that fails in the midst of a reading costs that reading alone: the next one shows what is new."""
    fill(store, "one", evaluations=5)
    feeds = Feeds(store)
    with feeds.reading("one") as feed:
        version, before = feed.version, feed.kept("count", lambda view: len(view.results.scored))
    _more(store, "one", 100, 1)
    right, calls = getattr(store, breaks), []

    def broken(name: str) -> object:
        calls.append(name)
        if breaks == "study" and len(calls) == 1:
            return right(name)
        raise StoreError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(store, breaks, broken)
        with pytest.raises(StoreError, match="gone"):
            feeds.reading("one").__enter__()
    with feeds.reading("one") as feed:
        assert feed.version > version
        assert feed.kept("count", lambda view: len(view.results.scored)) == before + 1


def test_a_stream_ends_where_its_reader_breaks(store: StudyStore) -> None:
    """Who listens would wait for ever else; a browser comes back by itself, to a new reader."""
    fill(store, "one", evaluations=5)
    streams = Streams(store, Feeds(store))

    def broken(_: object) -> tuple[list[bytes], bool]:
        raise ValueError("a mistake of ours")

    async def listen() -> list[bytes]:
        listener = Listener()
        channel = await asyncio.to_thread(streams.join, "one", listener, "")
        channel._news = broken  # type: ignore[method-assign]
        return [message async for message in listener.messages()]

    said = asyncio.run(asyncio.wait_for(listen(), 20))
    assert b"event: changed" in said[-1]
