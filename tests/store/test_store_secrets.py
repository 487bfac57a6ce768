"""A password is in no message, no log, no list of processes; it comes from where only its owner reads."""

import logging
import os
import subprocess
import sys
import traceback

import pytest
from contracts.store import SEARCH, begin, point
from postgres import Server
from proxy import proxy_to

from mergesearch.errors import MergesearchError, SpecError
from mergesearch.store.open import open_store
from mergesearch.store.urls import has_password, shown
from mergesearch.types import Candidate

MARK = "Xq9/p@ss:w0rd"
QUOTED = "Xq9%2Fp%40ss%3Aw0rd"
PARTS = (MARK, QUOTED, "Xq9", "w0rd")


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("postgresql://me@host:5432/db?sslmode=require", "postgresql://me@host:5432/db?sslmode=require"),
        (f"postgresql://me:{QUOTED}@host/db", "postgresql://me:***@host/db"),
        (f"postgresql://me:{MARK}@host/db", "postgresql://me:***@host/db"),
        (f"postgresql://:{QUOTED}@host/db", "postgresql://:***@host/db"),
        (f"postgres://host/db?password={QUOTED}&a=b", "postgres://host/db?password=***&a=b"),
        (f"postgresql://host/db?a=b&sslpassword={QUOTED}", "postgresql://host/db?a=b&sslpassword=***"),
        ("sqlite:///odd:name@home.db?mode=ro", "sqlite:///odd:name@home.db?mode=ro"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, plain: str) -> None:
    """Every place where a password can stand is covered, also where it was not quoted; files are left alone."""
    assert shown(url) == plain
    assert has_password(url) == (url != plain)


def test_a_password_in_a_file_or_an_argument_is_refused() -> None:
    """The sentence names where it belongs, and does not repeat it."""
    for url in (f"postgresql://me:{QUOTED}@host/db", f"postgres://host/db?password={QUOTED}"):
        with pytest.raises(SpecError) as error:
            open_store(url)
        for place in ("~/.pgpass", "PGPASSFILE", "PGPASSWORD", "MERGESEARCH_STORE"):
            assert place in str(error.value)
        assert not any(part in str(error.value) for part in PARTS)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresq://me:{QUOTED}@host/db",
        f"postgresql://me:{QUOTED}@host",
        f"postgresql://me:{QUOTED}@host:port/db",
        f"postgresql://me:{QUOTED}@host/db?nonsense=1",
        f"postgresql://me:{QUOTED}@host/db?timeout=x",
        f"postgresql://me:{QUOTED}@127.0.0.1:1/db?timeout=0.1",
        f"postgresql://me:{QUOTED}@127.0.0.1:1/db?timeout=0.1&sslmode=nonsense",
        f"postgresql://me@127.0.0.1:1/db?timeout=0.1&port=x&password={QUOTED}",
        f"postgresql://me:{MARK}@127.0.0.1:1/db?timeout=0.1",
    ],
)
def test_a_url_that_cannot_be_opened_does_not_tell_its_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the sentence nor anything behind it, nor a log line."""
    with caplog.at_level(logging.DEBUG), pytest.raises(MergesearchError) as error:
        open_store(url, secret=True)
    told = "".join(traceback.format_exception(error.value)) + caplog.text
    assert not any(part in told for part in PARTS)


WORKING = """
import os, sys
from mergesearch.store.open import open_store
store = open_store(os.environ["MERGESEARCH_STORE"], secret=True)
lease = store.acquire("digits", "child", 60.0)
print("ready", flush=True)
sys.stdin.readline()
store.release(lease)
"""


@pytest.mark.postgres
def test_a_password_is_seen_nowhere_while_a_store_works(postgres: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the list of processes (the server's own included), the server's log, ours, a repr, or an error."""
    name = postgres.new_database()
    with postgres.admin(name) as connection:
        connection.execute(f"CREATE ROLE marked LOGIN SUPERUSER PASSWORD '{MARK}'")
    url = postgres.url(name).replace("mergesearch@", f"marked:{QUOTED}@")
    seen = []
    with caplog.at_level(logging.DEBUG), proxy_to(postgres.port) as proxy:
        store = open_store(url.replace(f":{postgres.port}/", f":{proxy.port}/") + "?timeout=1", secret=True)
        lease = begin(store)
        store.release(lease)
        child = subprocess.Popen(
            [sys.executable, "-c", WORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "MERGESEARCH_STORE": url},
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        seen.append(subprocess.run(["ps", "-efww"], capture_output=True, text=True, check=True).stdout)
        seen.extend(child.communicate("go\n"))
        database = store._database  # type: ignore[attr-defined]
        seen += map(repr, (store, database, database._server, database.reader, database.writer, database.reader.pool))
        lease = store.acquire("digits", "host:1", 60.0)
        proxy.cut_after(0, "to")
        store.ask(lease, Candidate(0, point(0)), SEARCH)
    with caplog.at_level(logging.DEBUG), pytest.raises(MergesearchError) as error:
        store.ask(lease, Candidate(1, point(1)), SEARCH)
    seen += ["".join(traceback.format_exception(error.value)), str(error.value), repr(error.value)]
    seen += [caplog.text, postgres.log()]
    assert "postgres" in seen[0]
    assert "is away" in caplog.text
    for part in PARTS:
        assert not any(part in text for text in seen)
    store.close()
