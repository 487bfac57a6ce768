"""A link that breaks at any byte, also while a commit is on its way: every write is made once, with one answer."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from contracts.store import SEARCH, begin, point, same, scored
from postgres import Server
from proxy import Proxy, proxy_to

from mergesearch.errors import LeaseError, StoreError
from mergesearch.store import database
from mergesearch.store.base import Artifact, Lease, StudyStore
from mergesearch.store.open import open_store
from mergesearch.types import Asked, Candidate, Failed, Score, Status, Told

pytestmark = pytest.mark.postgres
STRIDE = 53  # bytes from one cut to the next


@pytest.fixture
def link(postgres: Server) -> Iterator[Proxy]:
    """A proxy before the server."""
    with proxy_to(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def stores(postgres: Server, link: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[StudyStore, StudyStore]]:
    """The store by way of the proxy, and straight."""
    monkeypatch.setattr(database, "FIRST_PAUSE", 0.001)
    name = postgres.new_database()
    broken, straight = open_store(postgres.url(name, port=link.port)), open_store(postgres.url(name))
    yield broken, straight
    broken.close()
    straight.close()


def moments(link: Proxy) -> Iterator[Callable[[], None]]:
    """Ways to arm the proxy: before and after a commit, then further and further along both ways, until a cut did not
    come any more within one call."""
    for when in ("before", "after"):
        yield partial(link.cut_at_commit, when)
        assert not link.disarm()
    for way in ("to", "from"):
        count = 0
        while True:
            yield partial(link.cut_after, count, way)
            if link.disarm():
                break
            count += STRIDE
        assert count > 2 * STRIDE


def test_asks_and_tells_are_made_once(stores: tuple[StudyStore, StudyStore], link: Proxy) -> None:
    """An ask and a tell cut at any point answer what they would have answered, and the log has each once, whole."""
    store, straight = stores
    lease, log = begin(store), []
    for number, arm in enumerate(moments(link)):
        arm()
        asked = store.ask(lease, Candidate(number, point(number)), SEARCH)
        assert asked.seq == len(log) + 1
        log.append(asked)
    known = len(log)
    for number, arm in enumerate(moments(link)):
        if number >= known:
            log.append(store.ask(lease, Candidate(number, point(number)), SEARCH))
        arm()
        told = store.tell(lease, number, SEARCH, scored(number))
        assert told is not None
        log.append(told)
    assert link.cuts > 40
    events = straight.events("digits")
    assert all(same(*pair) for pair in zip(events, log, strict=True))
    assert straight.repeats("digits") == []


def test_repeats_are_kept_once(stores: tuple[StudyStore, StudyStore], link: Proxy) -> None:
    """A second outcome that is cut at any point is kept once."""
    store, straight = stores
    lease = begin(store)
    store.ask(lease, Candidate(0, point(0)), SEARCH)
    store.tell(lease, 0, SEARCH, scored(0))
    count = 0
    for count, arm in enumerate(moments(link), start=1):
        arm()
        assert store.tell(lease, 0, SEARCH, replace(scored(0), scores={"mnist": Score(float(count))})) is None
    repeats = straight.repeats("digits")
    assert [repeat.outcome.scores["mnist"].value for repeat in repeats] == list(range(1, count + 1))


def test_studies_leases_wishes_and_artifacts_are_made_once(stores: tuple[StudyStore, StudyStore], link: Proxy) -> None:
    """What is not the log is made once as well, however the link breaks."""
    store, straight = stores
    begin(store)
    made: dict[str, list[Any]] = {"studies": ["digits"], "tokens": [1], "commands": [], "artifacts": []}
    for number, arm in enumerate(moments(link)):
        arm()
        made["studies"].append(store.create(f"study-{number}", "spec", "digest", facts={"a": number}).name)
    for arm in moments(link):
        arm()
        made["tokens"].append(store.acquire("digits", "host:1", 60.0).token)
    for arm in moments(link):
        arm()
        made["commands"].append(store.command("digits", "pause"))
    for number, arm in enumerate(moments(link)):
        arm()
        made["artifacts"].append(Artifact(number % 3, "export", "out", "ab" * 32, 5.0))
        store.add_artifact("digits", made["artifacts"][-1])
    assert [record.name for record in straight.studies()][::-1] == made["studies"]
    assert straight.facts("study-7") == {"a": 7}
    assert made["tokens"] == list(range(1, len(made["tokens"]) + 1))
    assert straight.open_commands("digits") == made["commands"]
    assert straight.artifacts("digits") == made["artifacts"]


def test_time_and_status_survive_cuts(stores: tuple[StudyStore, StudyStore], link: Proxy) -> None:
    """Renewing counts time once; status, facts, finished commands, releases and removals stand after any cut."""
    store, straight = stores
    lease = begin(store, now=0.0)
    spent = 0
    for spent, arm in enumerate(moments(link), start=1):
        arm()
        lease = store.renew(lease, 60.0, float(spent))
    assert straight.study("digits").seconds == float(spent)
    wish = store.command("digits", "pause")
    for when in ("before", "after"):
        calls: list[Callable[[], None]] = [
            partial(store.set_status, lease, Status.RUNNING, "because"),
            partial(store.set_facts, lease, {"a": 1}),
            partial(store.finish_command, lease, wish),
            partial(store.release, lease),
        ]
        for call in calls:
            link.cut_at_commit(when)
            call()
        lease = store.acquire("digits", "host:1", 60.0, 0.0)
    assert (straight.study("digits").status, straight.facts("digits")) == (Status.RUNNING, {"a": 1})
    assert straight.open_commands("digits") == []
    link.cut_at_commit("after")
    store.remove("digits")
    assert straight.studies() == []


def test_reads_are_made_again(stores: tuple[StudyStore, StudyStore], link: Proxy) -> None:
    """A read that is cut, at login too, is made again and whole."""
    store, _ = stores
    lease = begin(store)
    for number in range(20):
        store.ask(lease, Candidate(number, point(number)), SEARCH)
        store.tell(lease, number, SEARCH, scored(number))
    for count in range(0, 6000, 301):
        store.close()
        link.cut_after(count, "from")
        assert len(store.events("digits")) == 40
    link.disarm()
    assert link.cuts >= 15


def test_a_lease_taken_over_meanwhile_wins(stores: tuple[StudyStore, StudyStore], link: Proxy) -> None:
    """The second attempt of a write is fenced: if another holds the study by then, it is refused, even where the
    other has asked the same candidate at the same place of the log."""
    store, straight = stores
    lease = begin(store)
    taken: list[Lease] = []

    def take_over() -> None:
        taken.append(straight.acquire("digits", "host:2", 60.0, replacing="host:1"))
        straight.ask(taken[0], Candidate(0, point(0)), SEARCH)

    pauses = pytest.MonkeyPatch()
    pauses.setattr(database.time, "sleep", lambda seconds: take_over() if not taken else None)
    link.cut_at_commit("before")
    with pauses.context(), pytest.raises(LeaseError, match="host:2 took it over"):
        store.ask(lease, Candidate(0, point(0)), SEARCH)
    pauses.undo()
    assert [event.seq for event in straight.events("digits")] == [1]


def test_a_database_that_stays_away_is_a_sentence(postgres: Server, caplog: pytest.LogCaptureFixture) -> None:
    """After its timeout a write gives up in one sentence that says how to go on; it had said that it waits."""
    name = postgres.new_database()
    with proxy_to(postgres.port) as proxy:
        store = open_store(postgres.url(name, port=proxy.port, options="timeout=0.5"))
        lease = begin(store)
    with caplog.at_level(logging.WARNING), pytest.raises(StoreError) as error:
        store.ask(lease, Candidate(0, point(0)), SEARCH)
    assert "was away for 0.5 s" in str(error.value)
    assert "`mergesearch resume STUDY`" in str(error.value)
    assert "\n" not in str(error.value)
    assert "is away, waiting up to 0.5 s" in caplog.text
    store.close()


def test_a_server_restarted_under_load_loses_nothing(postgres: Server) -> None:
    """The server stops at once and starts seconds later, while two threads ask, tell and renew: nothing is lost,
    nothing stands twice, and nobody notices but the clock."""
    url = postgres.url(postgres.new_database())
    store = open_store(url)
    lease, answers, over = begin(store), [], threading.Event()

    def beat() -> None:
        while not over.is_set():
            store.renew(lease, 60.0)
            time.sleep(0.01)

    def work() -> None:
        number = 0
        while not over.is_set():
            answers.append(store.ask(lease, Candidate(number, point(number)), SEARCH))
            outcome = Failed("timeout", "too slow") if number % 7 == 0 else scored(number)
            answers.append(store.tell(lease, number, SEARCH, outcome))
            number += 1

    threads = [threading.Thread(target=work), threading.Thread(target=beat)]
    for thread in threads:
        thread.start()
    try:
        for pause in (0.0, 5.0):
            reached = len(answers) + 20
            wait_until(lambda: len(answers) >= reached)  # noqa: B023
            postgres.stop()
            time.sleep(pause)  # how long it is away
            postgres.start()
        reached = len(answers) + 20
        wait_until(lambda: len(answers) >= reached)
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    events = store.events("digits")
    assert [event.seq for event in events] == list(range(1, len(answers) + 1))
    assert all(same(*pair) for pair in zip(events, answers, strict=True))
    assert all(isinstance(event, Asked | Told) for event in answers)
    assert store.repeats("digits") == []
    store.close()


def wait_until(reached: Callable[[], bool], seconds: float = 30.0) -> None:
    """Until it is so; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)
