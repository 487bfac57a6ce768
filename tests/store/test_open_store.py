"""From a URL to a store: what can be opened, and what each thing that cannot says."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from contracts.store import SEARCH, begin, point, scored

from mergesearch.errors import SpecError, StoreError, StoreVersionError
from mergesearch.store.memory import MemoryStore
from mergesearch.store.open import open_store
from mergesearch.types import Candidate


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("study.db", "store 'study.db' is not a URL; write 'sqlite:///"),
        ("sqlit:///study.db", "scheme 'sqlit' is unknown; did you mean 'sqlite'"),
        ("postgresql://host", "names no database; write 'postgresql://user@host:5432/database'"),
        ("postgres://host:port/db", "cannot be understood; write 'postgresql://user@host:5432/database'"),
        ("postgresql+psycopg://host/db?sslmod=require", "option 'sslmod' is unknown; did you mean 'sslmode'"),
        ("postgresql://host/db?timeout=soon", "timeout is a number of seconds, got 'soon'"),
        ("postgresql://user:pw@host/db", "store 'postgresql://user:***@host/db' holds a password"),
        ("postgresql://host/db?user=u&password=pw", "holds a password"),
        ("sqlite://study.db", "names no file; write 'sqlite:///"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "or 'memory://'"),
        ("sqlite:///a.db?timout=1", "option 'timout' is unknown; did you mean 'timeout'"),
        ("sqlite:///a.db?timeout=soon", "timeout and max_pages are numbers"),
        ("sqlite:///a.db?mode=rw", "mode 'rw' is unknown; 'ro' opens"),
    ],
)
def test_a_wrong_url_is_explained(url: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL that cannot be understood gets one sentence, and no file is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as error:
        open_store(url)
    assert sentence in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_memory_stores_are_apart() -> None:
    """Each memory store is new and empty."""
    one, two = open_store("memory://"), open_store("memory://")
    one.create("digits", "", "", 1.0)
    assert isinstance(two, MemoryStore)
    assert two.studies() == []


@pytest.mark.parametrize("name", ["new/folder/study.db", "50% of it%3F.db", "päth with space.db"])
def test_file_and_folders_are_made_and_found_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing folder is made, a relative path keeps its meaning, and a second opening reads the first's study."""
    monkeypatch.chdir(tmp_path)
    first = open_store(f"sqlite:///{name}")
    monkeypatch.chdir("/")
    begin(first)
    first.close()
    assert (tmp_path / name).is_file()
    second = open_store(f"sqlite:///{tmp_path}/{name}", create=False)
    assert second.study("digits").owner == "host:1"
    second.close()


def test_nothing_is_created_where_only_reading_is_meant(tmp_path: Path) -> None:
    """A mistyped path does not leave an empty store behind."""
    for url, create in ((f"sqlite:///{tmp_path}/no.db", False), (f"sqlite:///{tmp_path}/no.db?mode=ro", True)):
        with pytest.raises(StoreError, match=r"there is no store at .*no\.db"):
            open_store(url, create=create)
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Text, another program's database, a folder, a file as folder: refused in one sentence, not a byte changed."""
    prose, foreign = tmp_path / "notes.txt", tmp_path / "other.db"
    prose.write_text("not a database, and long enough to be read as one " * 100)
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    before = prose.read_bytes()
    cases = {
        prose: "is not a SQLite database; name another file",
        foreign: "is a database, but not one of mergesearch",
        tmp_path: "cannot be opened",
        prose / "a.db": "the folder of store .* cannot be made",
    }
    for path, sentence in cases.items():
        with pytest.raises(StoreError, match=sentence) as error:
            open_store(f"sqlite:///{path}")
        assert "\n" not in str(error.value)
    assert prose.read_bytes() == before
    with sqlite3.connect(foreign) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]
    connection.close()


@pytest.mark.parametrize(
    ("version", "kind", "sentence"),
    [
        ("0099", StoreVersionError, "has schema version 99, this mergesearch knows up to 4; upgrade mergesearch"),
        ("ae1027a6acf", StoreError, "has schema version 'ae1027a6acf', which mergesearch never wrote"),
    ],
)
def test_store_of_another_version_is_left_alone(
    version: str, kind: type[StoreError], sentence: str, tmp_path: Path
) -> None:
    """A newer store is refused with both versions named, and is not touched."""
    path = tmp_path / "study.db"
    open_store(f"sqlite:///{path}").close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(kind, match=sentence):
        open_store(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_read_only_store_reads_and_refuses_writes(tmp_path: Path) -> None:
    """With `mode=ro` everything can be read and nothing written."""
    path = tmp_path / "study.db"
    store = open_store(f"sqlite:///{path}")
    lease = begin(store)
    store.ask(lease, Candidate(0, point(0)), SEARCH, 101.0)
    reader = open_store(f"sqlite:///{path}?mode=ro")
    assert len(reader.events("digits")) == 1
    for write in (
        lambda: reader.tell(lease, 0, SEARCH, scored(), 102.0),
        lambda: reader.create("other", "", "", 1.0),
        lambda: reader.command("digits", "pause", 1.0),
    ):
        with pytest.raises(StoreError, match="can only be read"):
            write()
    assert store.tell(lease, 0, SEARCH, scored(), 102.0) is not None
    assert len(reader.events("digits")) == 2
    reader.close()
    store.close()


OPENING = """
import logging, sys
from mergesearch.store.open import open_store
assert "sqlalchemy" not in sys.modules, "the table of stores imports no library"
open_store(sys.argv[1]).close()
assert "psycopg" not in sys.modules, "SQLite needs no driver of another database"
print("alembic" in sys.modules, logging.getLogger().handlers, logging.getLogger("alembic").level)
"""


def test_opening_is_quiet_and_light(tmp_path: Path) -> None:
    """Opening prints nothing and sets up no logging; Alembic is imported to create a store, not to open it again."""
    for imported in ("True", "False"):
        arguments = [sys.executable, "-c", OPENING, f"sqlite:///{tmp_path}/study.db"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        assert done.stdout == f"{imported} [] 0\n"
        assert done.stderr == ""


CREATING = """
import sys
from mergesearch.store.open import open_store
sys.stdin.readline()
open_store(sys.argv[1]).create(sys.argv[2], "", "", 1.0)
"""


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_processes_may_create_one_store_at_once(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Several processes that open a new store in the same moment all get it, with one set of tables."""
    url = f"sqlite:///{tmp_path}/study.db"
    if kind == "postgresql":
        server = request.getfixturevalue("postgres")
        url = server.url(server.new_database())
    makers = [
        subprocess.Popen([sys.executable, "-c", CREATING, url, f"study-{n}"], stdin=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()
    for maker in makers:
        maker.communicate()
        assert maker.returncode == 0
    store = open_store(url)
    assert {record.name for record in store.studies()} == {f"study-{n}" for n in range(4)}
    store.close()
