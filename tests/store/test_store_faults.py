"""What a full disk and a locked file do: one sentence, nothing recorded is lost, the store works again afterwards."""

import sqlite3
from pathlib import Path

import pytest
from contracts.store import SEARCH, begin, point, same, scored

from mergesearch.errors import StoreError
from mergesearch.store.base import Lease, StudyStore
from mergesearch.store.open import open_store
from mergesearch.types import Candidate


def fill(store: StudyStore, lease: Lease, first: int) -> None:
    """Ask and tell candidates from `first` on, more than any limit here holds."""
    for number in range(first, first + 1000):
        store.ask(lease, Candidate(number, point(number, 384)), SEARCH, 101.0)
        store.tell(lease, number, SEARCH, scored(number), 102.0)


def test_full_disk_loses_nothing_and_can_be_mended(tmp_path: Path) -> None:
    """A write that finds no space is refused whole; what was recorded reads back; once space is freed it goes on."""
    path = tmp_path / "study.db"
    store = open_store(f"sqlite:///{path}")
    lease = begin(store)
    store.close()
    other = sqlite3.connect(path)  # takes up the space that the limit leaves
    other.executescript("CREATE TABLE filler (data BLOB); INSERT INTO filler VALUES (zeroblob(1000000));")
    pages = other.execute("PRAGMA page_count").fetchone()[0]

    store = open_store(f"sqlite:///{path}?max_pages={pages + 30}")
    with pytest.raises(StoreError) as error:
        fill(store, lease, 0)
    assert "the disk is full" in str(error.value)
    assert "nothing that was recorded is lost" in str(error.value)
    assert "`mergesearch resume STUDY`" in str(error.value)
    assert "\n" not in str(error.value)
    before = store.events("digits")
    assert len(before) > 6
    assert [event.seq for event in before] == list(range(1, len(before) + 1))
    with pytest.raises(StoreError, match="the disk is full"):
        fill(store, lease, 1000)

    other.execute("DROP TABLE filler")
    other.close()
    seq = len(store.events("digits")) + 1
    assert store.ask(lease, Candidate(5000, point(1, 384)), SEARCH, 104.0).seq == seq
    assert store.tell(lease, 5000, SEARCH, scored(1), 105.0) is not None
    log = store.events("digits")
    assert [event.seq for event in log] == list(range(1, seq + 2))
    assert all(same(*pair) for pair in zip(before, log[: len(before)], strict=True))
    store.close()
    check = sqlite3.connect(path)
    assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check.close()


def test_locked_store_is_a_sentence_and_readable(tmp_path: Path) -> None:
    """While another program holds the write lock, writes give up after the timeout; reads go on; later writes work."""
    path = tmp_path / "study.db"
    store = open_store(f"sqlite:///{path}?timeout=0.05")
    lease = begin(store)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"was locked by another program for 0\.05 s; nothing that was recorded"):
        store.ask(lease, Candidate(0, point(0)), SEARCH, 101.0)
    assert store.study("digits").owner == "host:1"
    other.execute("ROLLBACK")
    other.close()
    assert store.ask(lease, Candidate(0, point(0)), SEARCH, 102.0).seq == 1
    store.close()


def test_damaged_store_is_a_sentence(tmp_path: Path) -> None:
    """A file overwritten in part says that it is damaged."""
    path = tmp_path / "study.db"
    open_store(f"sqlite:///{path}").close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"is damaged .*restore a copy"):
        open_store(f"sqlite:///{path}").studies()


def test_outside_writes_cannot_break_the_log(tmp_path: Path) -> None:
    """The tables themselves refuse a second evaluation, a used number and an evaluation told without a number."""
    path = tmp_path / "study.db"
    store = open_store(f"sqlite:///{path}")
    lease = begin(store)
    for number in range(2):
        store.ask(lease, Candidate(number, point(number)), SEARCH, 101.0)
        store.tell(lease, number, SEARCH, scored(number), 102.0)
    store.close()
    other = sqlite3.connect(path)
    entry = "INSERT INTO evaluations (study_id, candidate_id, split, status, asked_seq, asked) "
    for statement in (
        entry + "VALUES (1, 1, 'search', 'asked', 9, 0)",
        entry + "VALUES (1, 1, 'test', 'asked', 1, 0)",
        "UPDATE evaluations SET told_seq = 2",
        "UPDATE evaluations SET told_seq = NULL WHERE id = 1",
        "UPDATE evaluations SET status = 'lost' WHERE id = 1",
        "INSERT INTO candidates (study_id, number, origin) VALUES (1, 0, '')",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            other.execute(statement)
    other.close()
