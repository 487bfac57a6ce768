"""Stores written by every earlier schema open, are upgraded in place, and read as what was put in."""

import re
import sqlite3
from pathlib import Path

import pytest
from contracts.store import same
from upgrade.saved import FOLDER, fill_v1

from mergesearch.store.memory import MemoryStore
from mergesearch.store.open import open_store
from mergesearch.store.schema import SCHEMA_VERSION
from mergesearch.types import Asked, Split

SAVED = sorted(FOLDER.glob("store_v*.sql"))


def test_every_version_has_a_saved_store() -> None:
    """No schema version goes without its saved store."""
    versions = [int(re.sub(r"\D", "", path.stem)) for path in SAVED]
    assert sorted(versions) == list(range(1, SCHEMA_VERSION + 1))


@pytest.mark.parametrize("saved", SAVED, ids=lambda path: path.stem)
def test_saved_store_reads_as_it_was_written(saved: Path, tmp_path: Path) -> None:
    """Records, log, examples, facts, commands and artifacts of an old store are all there, and it can be continued."""
    connection = sqlite3.connect(tmp_path / "study.db")
    connection.executescript(saved.read_text(encoding="utf-8"))
    connection.close()
    store, expected = open_store(f"sqlite:///{tmp_path}/study.db"), MemoryStore()
    fill_v1(expected)
    assert store.studies() == expected.studies()
    for name in ("empty", "digits-3"):
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
    store.close()
