"""Stores written by every earlier schema open, are upgraded in place, and read as what was put in, on each database.

PostgreSQL came with schema 3; there the rows of an older saved store are put into tables of its own version.
"""

import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic import op
from contracts.store import same
from contracts.store_offers import plain_answer
from postgres import Server
from sqlalchemy import Boolean, Column, MetaData, create_engine, text
from upgrade.saved import FILLS, FOLDER

from mergesearch.store.base import StudyStore
from mergesearch.store.memory import MemoryStore
from mergesearch.store.migrate import upgrade
from mergesearch.store.open import open_store
from mergesearch.store.schema import SCHEMA_VERSION
from mergesearch.types import Asked, Candidate, Request, Scored, Split

SAVED = sorted(FOLDER.glob("store_v*.sql"))


def version_of(saved: Path) -> int:
    """The schema version of a saved store."""
    return int(re.sub(r"\D", "", saved.stem))


def restore(saved: Path, folder: Path) -> str:
    """The URL of a SQLite file that holds a saved store."""
    connection = sqlite3.connect(folder / "study.db")
    connection.executescript(saved.read_text(encoding="utf-8"))
    connection.close()
    return f"sqlite:///{folder}/study.db"


def restore_in_postgresql(saved: Path, folder: Path, server: Server) -> str:
    """The URL of a PostgreSQL database that holds a saved store, in the tables of its version."""
    url = server.url(server.new_database())
    restore(saved, folder)
    source = sqlite3.connect(folder / "study.db")
    source.row_factory = sqlite3.Row
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        upgrade(connection, f"{version_of(saved):04d}")
        tables = MetaData()
        tables.reflect(connection)
        for table in tables.sorted_tables:
            if table.name == "alembic_version":
                continue
            rows = [dict(row) for row in source.execute(f"SELECT * FROM {table.name}")]
            for column in (column.name for column in table.columns if isinstance(column.type, Boolean)):
                rows = [{**row, column: bool(row[column])} for row in rows]
            if rows:
                connection.execute(table.insert(), rows)
            if "id" in table.columns:  # rows with their numbers do not move the counter of numbers
                last = f"(SELECT coalesce(max(id), 0) + 1 FROM {table.name})"
                connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), {last}, false)"))
    engine.dispose()
    source.close()
    return url


def check(store: StudyStore, version: int) -> None:
    """That `store` reads as what the fill of that version put in, and can be gone on with."""
    expected = MemoryStore()
    FILLS[version](expected)
    assert store.studies() == expected.studies()
    for name in (study.name for study in expected.studies()):
        pairs = zip(store.events(name), expected.events(name), strict=True)
        assert all(same(*pair) for pair in pairs)
        assert store.facts(name) == expected.facts(name)
        assert store.open_commands(name) == expected.open_commands(name)
        assert store.artifacts(name) == expected.artifacts(name)
        for one, other in zip(store.repeats(name), expected.repeats(name), strict=True):
            assert (one.number, one.split, one.told) == (other.number, other.split, other.told)
            assert same(one.outcome, other.outcome)
        assert store.offers.waiting(name) == expected.offers.waiting(name)
        assert store.offers.counts(name) == expected.offers.counts(name)
        for one, other in zip(store.offers.answers(name), expected.offers.answers(name), strict=True):
            assert plain_answer(one) == plain_answer(other)
    values = store.examples("digits-3", 1, Split.SEARCH)
    assert {name: array.tolist() for name, array in values.items()} == {"mnist": [1, 1, 0, 1, 1, 0, 1, 1]}
    digests = {"mnist": "ab" * 32, "cost": "cd" * 32}
    assert same(store.cached(digests), expected.cached(digests))
    lease = store.acquire("digits-3", "new-host:1", 60.0, 2000.0)
    open_ask = store.events("digits-3")[-1]
    assert isinstance(open_ask, Asked)
    assert store.ask(lease, open_ask.candidate, Split.TEST, 2001.0).seq == open_ask.seq + 1
    fresh = Candidate(9, np.array([0.5]), "sample", Request(0.5, gradient="kl"), 1.5)
    assert same(store.ask(lease, fresh, Split.SEARCH, 2002.0).candidate, fresh)
    assert store.tell(lease, 9, Split.SEARCH, Scored({}), 2003.0) is not None
    store.create("new", "", "", 2004.0)
    made = store.offers.put("digits-3", 9, Split.TEST, "{}", "key", 2005.0)
    assert store.offers.lease("digits-3", "w", 9, 60.0, 2006.0)[0].body == made.body


def test_every_version_has_a_saved_store() -> None:
    """No schema version goes without its saved store."""
    assert sorted(version_of(path) for path in SAVED) == list(range(1, SCHEMA_VERSION + 1))


@pytest.mark.parametrize("saved", SAVED, ids=lambda path: path.stem)
def test_saved_store_reads_as_it_was_written(saved: Path, tmp_path: Path) -> None:
    """All of an old store is there in SQLite; it goes on."""
    store = open_store(restore(saved, tmp_path))
    check(store, version_of(saved))
    store.close()


@pytest.mark.postgres
@pytest.mark.parametrize("saved", SAVED, ids=lambda path: path.stem)
def test_saved_store_reads_as_it_was_written_in_postgresql(saved: Path, tmp_path: Path, postgres: Server) -> None:
    """All of an old store is there in PostgreSQL; it goes on."""
    store = open_store(restore_in_postgresql(saved, tmp_path, postgres))
    check(store, version_of(saved))
    store.close()


OPENING = "import sys; from mergesearch.store.open import open_store; sys.stdin.readline(); open_store(sys.argv[1])"


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_processes_may_upgrade_one_store_at_once(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Several processes that open an old store in the same moment all get it, upgraded once."""
    if kind == "postgresql":
        url = restore_in_postgresql(SAVED[0], tmp_path, request.getfixturevalue("postgres"))
    else:
        url = restore(SAVED[0], tmp_path)
    processes = [
        subprocess.Popen([sys.executable, "-c", OPENING, url], stdin=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    store = open_store(url)
    check(store, version_of(SAVED[0]))
    store.close()


def break_the_third_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a migration end after two columns."""
    added, add = [], op.add_column

    def breaking(table: str, column: Column[Any]) -> None:
        if len(added) == 2:
            raise RuntimeError("power cut")
        added.append(column)
        add(table, column)

    monkeypatch.setattr(op, "add_column", breaking)


def test_an_upgrade_that_breaks_off_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of an upgrade or nothing: the file is then still of its old version, and a later upgrade finds all of it."""
    url = restore(FOLDER / "store_v1.sql", tmp_path)
    break_the_third_column(monkeypatch)
    with pytest.raises(RuntimeError, match="power cut"):
        open_store(url)
    connection = sqlite3.connect(tmp_path / "study.db")
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
    assert len(connection.execute("PRAGMA table_info(candidates)").fetchall()) == 5
    connection.close()
    monkeypatch.undo()
    store = open_store(url)
    assert len(store.events("digits-3")) == 5
    store.close()


@pytest.mark.postgres
def test_an_upgrade_that_breaks_off_leaves_the_database_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: Server
) -> None:
    """The same in PostgreSQL."""
    url = restore_in_postgresql(FOLDER / "store_v1.sql", tmp_path, postgres)
    with monkeypatch.context() as patch:
        break_the_third_column(patch)
        with pytest.raises(RuntimeError, match="power cut"):
            open_store(url)
    with postgres.admin(url.rpartition("/")[2]) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
        columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'candidates'"
        assert connection.execute(columns).fetchone() == (5,)
    store = open_store(url)
    assert len(store.events("digits-3")) == 5
    store.close()
