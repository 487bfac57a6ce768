"""SIGKILL at any moment: what the store acknowledged is there, once, whole, and the next writer goes on."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from contracts.store import point, same, scored, url_of

from mergesearch.store.base import StudyStore
from mergesearch.store.open import open_store
from mergesearch.types import Asked, Candidate, Scored, Split, Told

KILLS = 20
TESTS = Path(__file__).parents[1]


def check_log(store: StudyStore) -> dict[str, set[int]]:
    """The numbers asked and told, after checking that each stands once, in order, whole."""
    log = store.events("digits")
    assert [event.seq for event in log] == list(range(1, len(log) + 1))
    asked = [event.candidate.number for event in log if isinstance(event, Asked)]
    told = [event.candidate.number for event in log if isinstance(event, Told)]
    assert asked == list(range(len(asked)))
    assert told == asked[: len(told)]
    assert len(asked) - len(told) <= 1
    for event in log:
        number = event.candidate.number
        assert same(event.candidate, Candidate(number, point(number)))
        if isinstance(event, Told):
            assert isinstance(event.outcome, Scored)
            assert (event.outcome.scores, event.outcome.metrics) == (scored(number).scores, scored(number).metrics)
    return {"asked": set(asked), "told": set(told)}


@contextmanager
def writers(url: str) -> Iterator[tuple[IO[str], IO[str]]]:
    """Pipes to and from `killed_writer.py`."""
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    helper = subprocess.Popen(
        [sys.executable, str(TESTS / "store" / "killed_writer.py"), url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert helper.stdin is not None
    assert helper.stdout is not None
    with helper:
        yield helper.stdin, helper.stdout
    assert helper.returncode == 0


def run_one(pipes: tuple[IO[str], IO[str]], wait_for: int, delay: float) -> dict[str, set[int]]:
    """Start a writer, kill it `delay` seconds after `wait_for` acknowledgements; what it had acknowledged."""
    to_helper, from_helper = pipes
    to_helper.write("go\n")
    to_helper.flush()
    acknowledged: dict[str, set[int]] = {"asked": set(), "told": set()}
    killer: threading.Timer | None = None
    writer = 0
    for line in from_helper:
        word, _, number = line.strip().partition(" ")
        if word == "dead":
            assert int(number) == -signal.SIGKILL
            return acknowledged
        if word == "pid":
            writer = int(number)
        else:
            acknowledged[word].add(int(number))
            wait_for -= 1
        if wait_for <= 0 and killer is None:
            killer = threading.Timer(delay, os.kill, (writer, signal.SIGKILL))
            killer.start()
    raise AssertionError("the helper ended before its writer was killed")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new store of each kind that several processes can share."""
    return url_of(request.param, tmp_path, request)


def test_killed_twenty_times(url: str, tmp_path: Path) -> None:
    """Twenty writers, each killed at a random moment: no acknowledged entry is lost, none stands twice."""
    store = open_store(url)
    store.create("digits", "", "", 0.0)
    chance = random.Random(0)
    told: set[int] = set()
    with writers(url) as pipes:
        for kill in range(KILLS):
            # 0 acknowledgements: it may still be opening the store. The delay ends within a statement or a commit.
            acknowledged = run_one(pipes, chance.randrange(0, 12), chance.uniform(0.0, 0.006))
            found = check_log(store)
            assert acknowledged["asked"] <= found["asked"], kill
            assert acknowledged["told"] <= found["told"], kill
            told |= acknowledged["told"]
    assert len(told) > KILLS
    for number in told:
        values = store.examples("digits", number, Split.SEARCH)["mnist"]
        assert values.tobytes() == scored(number).examples["mnist"].tobytes()
    store.close()
    if not url.startswith("sqlite"):
        return
    connection = sqlite3.connect(tmp_path / "study.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


def test_readers_see_whole_entries_while_another_process_writes(url: str) -> None:
    """Readers in threads, beside a writer in another process, see a log that only grows, never half an entry."""
    store = open_store(url)
    store.create("digits", "", "", 0.0)
    over, sizes = threading.Event(), [[0], [0]]
    faults: list[Exception | AssertionError] = []

    def read(mine: list[int]) -> None:
        try:
            while not over.is_set():
                mine.append(len(check_log(store)["asked"]))
        except (Exception, AssertionError) as error:  # noqa: BLE001 (shown by the test)
            faults.append(error)

    threads = [threading.Thread(target=read, args=(mine,)) for mine in sizes]
    for thread in threads:
        thread.start()
    with writers(url) as pipes:
        run_one(pipes, 200, 0.0)
    over.set()
    for thread in threads:
        thread.join()
    assert faults == []
    for mine in sizes:
        assert mine == sorted(mine)
        assert len(set(mine)) > 3
    store.close()
