"""All that is special about SQLite: how a file is opened, and what its errors mean for the user."""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final
from urllib.parse import parse_qsl

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError

from mergesearch.errors import SpecError, StoreError
from mergesearch.plugins import did_you_mean
from mergesearch.store.network import mounts, network_kind
from mergesearch.store.sql import SqlStore

PREFIX: Final = "sqlite:///"
OPTIONS: Final = ("timeout", "mode", "max_pages")


@dataclass(frozen=True)
class SqliteFile:
    """A parsed 'sqlite:///' URL. `timeout`: seconds to wait for a locked file; `max_pages`: 0 for no limit."""

    path: Path
    timeout: float = 30.0
    read_only: bool = False
    max_pages: int = 0


@final
class SqliteDatabase:
    """Database; see `store/database.py` for the contract. A file is never away: a locked one is waited for."""

    def __init__(self, file: SqliteFile, *, create: bool) -> None:
        """Raises StoreError: the file lies on a network, is missing and shall not be created, or cannot be."""
        if (kind := network_kind(file.path, mounts())) is not None:
            raise StoreError(on_a_network(file, kind))
        self._file = file
        self.where = f"store {file.path}"
        self.timeout = file.timeout
        self.reader: Engine = open_engine(file, create=create)
        self.writer: Engine = self.reader.execution_options(write=True)

    def check(self, connection: Connection) -> None:
        """Every version that Python comes with will do."""

    def lock_schema(self, connection: Connection) -> None:
        """A transaction of `writer` is the only one that writes."""

    def is_away(self, error: DBAPIError) -> bool:  # noqa: ARG002 (as every database)
        return False

    def sentence(self, error: DBAPIError) -> str:
        return sentence(error.orig, self._file)

    def describe(self, connection: Connection) -> tuple[str, int]:  # noqa: ARG002 (as every database)
        return f"SQLite {sqlite3.sqlite_version}", self._bytes()

    def compact(self) -> tuple[int, int]:
        before = self._bytes()
        try:
            connection = _connect(self._file)
            try:
                connection.execute("VACUUM")
                # Into the file, else the freed space stays with the write-ahead log until the last reader goes.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise StoreError(sentence(error, self._file)) from error
        return before, self._bytes()

    def _bytes(self) -> int:
        paths = [self._file.path, Path(f"{self._file.path}-wal")]
        return sum(os.path.getsize(path) for path in paths if path.exists())


def open_sqlite(url: str, *, create: bool = True) -> SqlStore:
    """The store in the file that `url` names. Raises SpecError, StoreError."""
    file = parse(url)
    return SqlStore(SqliteDatabase(file, create=create), file.timeout)


def on_a_network(file: SqliteFile, kind: str) -> str:
    """Why a file on a network file system of that kind is refused."""
    return (
        f"store {file.path} lies on a network file system ({kind}), where SQLite's locks and its write-ahead log do "
        "not hold and a study can be damaged; name a path on a local disk, or use PostgreSQL: "
        "'postgresql://user@host:5432/database'"
    )


def parse(url: str) -> SqliteFile:
    """The file that `url` names.

    Raises:
        SpecError: no path, an unknown option, or a value that does not fit.
    """
    body, _, query = url.removeprefix(PREFIX).partition("?")
    if not url.startswith(PREFIX) or not body or body == ":memory:":
        raise SpecError(f"store {url!r} names no file; write 'sqlite:///folder/file.db', or 'memory://' for none")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for key in options:
        if key not in OPTIONS:
            raise SpecError(f"store {url!r}: option {key!r} is unknown{did_you_mean(key, OPTIONS)}")
    if options.get("mode", "ro") != "ro":
        raise SpecError(f"store {url!r}: mode {options['mode']!r} is unknown; 'ro' opens the file for reading only")
    try:
        timeout, max_pages = float(options.get("timeout", "30")), int(options.get("max_pages", "0"))
    except ValueError as error:
        raise SpecError(f"store {url!r}: timeout and max_pages are numbers ({error})") from None
    return SqliteFile(Path(body).absolute(), timeout, "mode" in options, max_pages)


def open_engine(file: SqliteFile, *, create: bool) -> Engine:
    """An engine on `file`. Transactions of connections with the execution option `write` take the write lock at once.

    Raises:
        StoreError: the file does not exist and shall not be created, or its folder cannot be made.
    """
    if file.read_only or not create:
        if not file.path.is_file():
            raise StoreError(f"there is no store at {file.path}; check the path, or launch a study to create it")
    else:
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the folder of store {file.path} cannot be made: {error.strerror}") from None
    # A pool of its own, since SQLAlchemy chooses one by the database name, which a creator hides from it.
    engine = create_engine("sqlite://", creator=lambda: _connect(file), poolclass=QueuePool, max_overflow=-1)
    event.listen(engine, "begin", _begin)
    return engine


def _connect(file: SqliteFile) -> sqlite3.Connection:
    mode = "ro" if file.read_only else "rwc"
    # isolation_level None: the driver starts no transactions of its own, `_begin` does.
    connection = sqlite3.connect(
        f"{file.path.as_uri()}?mode={mode}", file.timeout, isolation_level=None, check_same_thread=False, uri=True
    )
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        # FULL: a commit is on the disk when it returns, so that a power cut loses nothing that was told.
        connection.execute("PRAGMA synchronous = FULL")
        if not file.read_only and connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            connection.execute("PRAGMA journal_mode = WAL")
        if file.max_pages:
            connection.execute(f"PRAGMA max_page_count = {file.max_pages}")
    except BaseException:
        connection.close()
        raise
    return connection


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later may find that it cannot; IMMEDIATE waits for its turn instead.
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def sentence(error: BaseException | None, file: SqliteFile) -> str:
    """What `error` of the sqlite3 module means, and what to do."""
    name = (error.sqlite_errorname if isinstance(error, sqlite3.Error) else None) or ""
    where = f"store {file.path}"
    if name == "SQLITE_FULL":
        limit = f" (or its limit of {file.max_pages} pages is reached)" if file.max_pages else ""
        return (
            f"{where}: the disk is full{limit}; nothing that was recorded is lost: "
            "free some space, then continue with `mergesearch resume STUDY`"
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return (
            f"{where} was locked by another program for {file.timeout:g} s; nothing that was recorded is lost: "
            "close that program, then continue with `mergesearch resume STUDY`"
        )
    if name.startswith("SQLITE_READONLY"):
        return (
            f"{where} can only be read; open it without 'mode=ro', or give this user the right to write to it "
            "and to its folder"
        )
    if name.startswith("SQLITE_CANTOPEN"):
        return f"{where} cannot be opened; check that it is a file, and the rights to it and to its folder"
    if name == "SQLITE_NOTADB":
        return f"{where} is not a SQLite database; name another file"
    if name.startswith("SQLITE_CORRUPT"):
        return f"{where} is damaged ({error}); restore a copy, or save what can be read with `sqlite3 FILE .recover`"
    if name.startswith("SQLITE_IOERR"):
        return (
            f"{where}: the disk could not be read or written ({name}); what was recorded stays recorded: check the "
            "disk, its free space and its quota, then continue with `mergesearch resume STUDY`"
        )
    return f"{where}: the database refused: {error}"
