"""Stores written by every earlier schema open, are upgraded in place, and read as what was put in."""

import re
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic import op
from contracts.store import same
from sqlalchemy import Column
from upgrade.saved import FILLS, FOLDER

from mergesearch.store.memory import MemoryStore
from mergesearch.store.open import open_store
from mergesearch.store.schema import SCHEMA_VERSION
from mergesearch.types import Asked, Candidate, Request, Split

SAVED = sorted(FOLDER.glob("store_v*.sql"))


def test_every_version_has_a_saved_store() -> None:
    """No schema version goes without its saved store."""
    versions = [int(re.sub(r"\D", "", path.stem)) for path in SAVED]
    assert sorted(versions) == list(range(1, SCHEMA_VERSION + 1))


@pytest.mark.parametrize("saved", SAVED, ids=lambda path: path.stem)
def test_saved_store_reads_as_it_was_written(saved: Path, tmp_path: Path) -> None:
    """Records, log, examples, gradients, facts, commands and artifacts of an old store are all there; it goes on."""
    connection = sqlite3.connect(tmp_path / "study.db")
    connection.executescript(saved.read_text(encoding="utf-8"))
    connection.close()
    store, expected = open_store(f"sqlite:///{tmp_path}/study.db"), MemoryStore()
    FILLS[int(re.sub(r"\D", "", saved.stem))](expected)
    assert store.studies() == expected.studies()
    for name in (study.name for study in expected.studies()):
        pairs = zip(store.events(name), expected.events(name), strict=True)
        assert all(same(*pair) for pair in pairs)
        assert store.facts(name) == expected.facts(name)
        assert store.open_commands(name) == expected.open_commands(name)
        assert store.artifacts(name) == expected.artifacts(name)
    values = store.examples("digits-3", 1, Split.SEARCH)
    assert {name: array.tolist() for name, array in values.items()} == {"mnist": [1, 1, 0, 1, 1, 0, 1, 1]}
    lease = store.acquire("digits-3", "new-host:1", 60.0, 2000.0)
    open_ask = store.events("digits-3")[-1]
    assert isinstance(open_ask, Asked)
    assert store.ask(lease, open_ask.candidate, Split.TEST, 2001.0).seq == open_ask.seq + 1
    fresh = Candidate(9, np.array([0.5]), "sample", Request(0.5, gradient="kl"), 1.5)
    assert same(store.ask(lease, fresh, Split.SEARCH, 2002.0).candidate, fresh)
    store.close()


def test_an_upgrade_that_breaks_off_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of an upgrade or nothing: the file is then still of its old version, and a later upgrade finds all of it."""
    connection = sqlite3.connect(tmp_path / "study.db")
    connection.executescript((FOLDER / "store_v1.sql").read_text(encoding="utf-8"))
    connection.close()
    added, add = [], op.add_column

    def breaking(table: str, column: Column[Any]) -> None:
        if len(added) == 2:
            raise RuntimeError("power cut")
        added.append(column)
        add(table, column)

    monkeypatch.setattr(op, "add_column", breaking)
    with pytest.raises(RuntimeError, match="power cut"):
        open_store(f"sqlite:///{tmp_path}/study.db")
    connection = sqlite3.connect(tmp_path / "study.db")
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
    assert len(connection.execute("PRAGMA table_info(candidates)").fetchall()) == 5
    connection.close()
    monkeypatch.undo()
    store = open_store(f"sqlite:///{tmp_path}/study.db")
    assert len(store.events("digits-3")) == 5
    store.close()
