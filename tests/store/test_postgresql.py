"""What is special about PostgreSQL: how it is opened, what each refusal says, what the session asks of the server."""

import time
from pathlib import Path

import pytest
from contracts.store import SEARCH, begin, point, scored
from postgres import Server

from mergesearch.errors import StoreError, StoreVersionError
from mergesearch.store import postgresql
from mergesearch.store.open import open_store
from mergesearch.store.postgresql import parse
from mergesearch.types import Candidate

pytestmark = pytest.mark.postgres


def refusal(url: str, *, secret: bool = False) -> str:
    """The one sentence that opening `url` ends with, at once."""
    start = time.monotonic()
    with pytest.raises(StoreError) as error:
        open_store(url, secret=secret)
    assert time.monotonic() - start < 5.0
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 4
    return str(error.value)


def test_all_spellings_open_one_store(postgres: Server) -> None:
    """'postgres', 'postgresql+psycopg', TCP and the unix socket lead to the same studies."""
    name = postgres.new_database()
    url = postgres.url(name)
    store = open_store(url)
    begin(store)
    store.close()
    for other in (
        url.replace("postgresql://", "postgres://"),
        url.replace("postgresql://", "postgresql+psycopg://"),
        postgres.socket_url(name),
        f"{url}?application_name=tests&timeout=3&sslmode=disable",
    ):
        again = open_store(other, create=False)
        assert again.study("digits").owner == "host:1"
        again.close()


def test_the_session_is_set_up(postgres: Server) -> None:
    """The server sees our name, gives up locks of a broken link, waits for its disk, and reads one snapshot."""
    store = open_store(postgres.url(postgres.new_database(), options="options=-c%20statement_timeout%3D7s"))
    with store._database.writer.connect() as connection:  # type: ignore[attr-defined]
        shown = {
            key: connection.exec_driver_sql(f"SHOW {key}").scalar_one()
            for key in (
                *("application_name", "synchronous_commit", "lock_timeout", "idle_in_transaction_session_timeout"),
                *("transaction_isolation", "statement_timeout"),
            )
        }
    assert list(shown.values()) == ["mergesearch", "on", "20s", "15s", "read committed", "7s"]
    with store._database.reader.connect() as connection:  # type: ignore[attr-defined]
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "repeatable read"
        assert connection.exec_driver_sql("SHOW transaction_read_only").scalar_one() == "on"
    store.close()


def test_a_missing_database_is_named(postgres: Server) -> None:
    """It is not waited for, and the sentence says how it is made."""
    assert "there is no database 'nowhere'; let an administrator make it with `createdb nowhere`" in refusal(
        postgres.url("nowhere")
    )


def test_a_refused_login_is_explained(postgres: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wrong password, an unknown user and no password at all are not waited for."""
    name = postgres.new_database()
    wrong = postgres.url(name).replace("mergesearch@", "mergesearch:wrong@")
    for url in (wrong, postgres.url(name).replace("mergesearch@", "nobody:wrong@")):
        assert "the login was refused" in refusal(url, secret=True)
        assert "~/.pgpass" in refusal(url, secret=True)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    assert "wants a password; put it into ~/.pgpass" in refusal(postgres.url(name))


def test_missing_rights_are_named(postgres: Server) -> None:
    """Who may not make tables or write is told what an administrator should run."""
    name = postgres.new_database()
    with postgres.admin(name) as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    guest = postgres.url(name).replace("mergesearch@", "guest:guest@")
    assert "guest lacks a right (permission denied for schema public)" in refusal(guest, secret=True)
    owner = open_store(postgres.url(name))
    begin(owner)
    with postgres.admin(name) as connection:
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest")
    reader = open_store(guest, secret=True)
    assert reader.study("digits").name == "digits"
    with pytest.raises(StoreError, match=r"guest lacks a right \(permission denied for table studies\); .*`GRANT ALL"):
        reader.command("digits", "pause")
    reader.close()
    owner.close()


def test_a_database_that_cannot_be_reached(postgres: Server) -> None:
    """Opening waits as long as the URL says, then names what it tried."""
    start = time.monotonic()
    sentence = refusal("postgresql://me@127.0.0.1:1/studies?timeout=0.3")
    assert 0.3 <= time.monotonic() - start < 3.0
    assert "postgresql://me@127.0.0.1:1/studies" in sentence
    assert "Connection refused" in sentence
    assert parse("postgresql://me@host/studies").patience == 10.0
    assert parse("postgresql://me@host/studies").timeout == 120.0


def test_other_databases_are_left_alone(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Foreign tables, a newer store and a PostgreSQL that is too old are refused, and nothing is changed."""
    name = postgres.new_database()
    with postgres.admin(name) as connection:
        connection.execute("CREATE TABLE songs (title text)")
        assert "is a database, but not one of mergesearch; name another one" in refusal(postgres.url(name))
        assert connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall() == [
            ("songs",)
        ]
    newer = postgres.new_database()
    open_store(postgres.url(newer)).close()
    with postgres.admin(newer) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0099'")
    with pytest.raises(StoreVersionError, match="has schema version 99, this mergesearch knows up to"):
        open_store(postgres.url(newer))
    monkeypatch.setattr(postgresql, "OLDEST", 99)
    assert "mergesearch needs 99 or newer, upgrade it" in refusal(postgres.url(postgres.new_database()))


def test_a_lock_that_is_held_too_long_is_waited_out(postgres: Server) -> None:
    """A write that another session keeps from a row gives up after its timeout, in one sentence, and works later."""
    name = postgres.new_database()
    store = open_store(postgres.url(name, options="timeout=0.5&options=-c%20lock_timeout%3D200ms"))
    lease = begin(store)
    with postgres.admin(name) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM studies FOR UPDATE")
        with pytest.raises(StoreError, match=r"was away for 0\.5 s \(canceling statement due to lock timeout\)"):
            store.ask(lease, Candidate(0, point(0)), SEARCH)
        assert store.study("digits").owner == "host:1"
        connection.execute("ROLLBACK")
    assert store.ask(lease, Candidate(0, point(0)), SEARCH).seq == 1
    assert store.tell(lease, 0, SEARCH, scored(0)) is not None
    store.close()


def test_a_full_disk_is_a_sentence(postgres: Server) -> None:
    """What the server cannot write is refused at once, with what to do; what was recorded stays."""
    name = postgres.new_database()
    store = open_store(postgres.url(name))
    lease = begin(store)
    with postgres.admin(name) as connection:
        # The server's own code for a full disk, raised by the table: filling a real one is a test in tests/chaos.
        connection.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$"
        )
        connection.execute(
            "CREATE TRIGGER full_disk BEFORE INSERT ON candidates FOR EACH ROW EXECUTE FUNCTION full_disk()"
        )
        with pytest.raises(StoreError, match="the disk of the database is full; nothing that was recorded is lost"):
            store.ask(lease, Candidate(0, point(0)), SEARCH)
        connection.execute("DROP TRIGGER full_disk ON candidates")
    assert store.ask(lease, Candidate(0, point(0)), SEARCH).seq == 1
    store.close()
