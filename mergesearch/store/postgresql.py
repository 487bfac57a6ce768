"""All that is special about PostgreSQL: how it is reached, when it is away, and what its errors mean for the user."""

import re
from dataclasses import dataclass, field
from typing import Any, Final, final
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from psycopg import pq
from sqlalchemy import Connection, Engine, QueuePool, create_engine, text
from sqlalchemy.exc import DBAPIError

from mergesearch.errors import SpecError, StoreError
from mergesearch.plugins import did_you_mean
from mergesearch.store.schema import metadata
from mergesearch.store.sql import SqlStore
from mergesearch.store.urls import shown

OLDEST: Final = 13
TIMEOUT: Final = 120.0  # seconds that a database that went away is waited for
PATIENCE: Final = 10.0  # seconds, the same on opening: then the address may just as well be wrong
# A cut link is noticed within about 10 s, by this side and by the server, which then gives up its locks.
NETWORK: Final = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
SESSION: Final = {
    "tcp_keepalives_idle": "4",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "idle_in_transaction_session_timeout": "15s",
    "lock_timeout": "20s",
    "statement_timeout": "300s",
    "synchronous_commit": "on",
}
AWAY: Final = ("08", "57P01", "57P02", "57P03", "57P05", "25P03", "53300", "40001", "40P01", "55P03")
# A refused login has no code, only the server's words; whatever else ends an attempt to connect may pass.
_FOR_GOOD: Final = re.compile(
    r"authentication|no password supplied|pg_hba\.conf|database .* does not exist|role .* does not exist|"
    r"permission denied|certificate|SSL|GSSAPI|invalid .*option|unsupported",
    re.IGNORECASE,
)
_LOCK: Final = 7_263_545_881  # any number, the same in every version


class BinaryCursor(psycopg.Cursor[Any]):
    """Fetches in binary: points and arrays come as they are, not as hexadecimal text."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.format = pq.Format.BINARY


@dataclass(frozen=True)
class Server:
    """A parsed 'postgresql://' URL: what libpq is told, which may hold a password, and how messages call it."""

    options: dict[str, Any] = field(repr=False)
    where: str
    timeout: float = TIMEOUT
    patience: float = PATIENCE

    @property
    def database(self) -> str:
        """The name of the database."""
        return str(self.options["dbname"])


def parse(url: str) -> Server:
    """The database that `url` names.

    Raises:
        SpecError: no database, an unknown option, or a value that does not fit.
    """
    plain = shown(url)
    try:
        parts = urlsplit(url)
        address = {"host": parts.hostname, "port": parts.port, "user": parts.username, "password": parts.password}
        asked = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise SpecError(f"store {plain!r} cannot be understood; write 'postgresql://user@host:5432/database'") from None
    options = {key: unquote(str(value)) for key, value in address.items() if value is not None}
    options["dbname"] = unquote(parts.path.removeprefix("/"))
    known = sorted({"timeout"} | {option.keyword.decode() for option in pq.Conninfo.get_defaults()})
    for key in asked:
        if key not in known:
            raise SpecError(f"store {plain!r}: option {key!r} is unknown{did_you_mean(key, known)}")
    try:
        timeout = float(asked.get("timeout", TIMEOUT))
    except ValueError:
        raise SpecError(f"store {plain!r}: timeout is a number of seconds, got {asked['timeout']!r}") from None
    patience = timeout if "timeout" in asked else PATIENCE
    options |= {key: value for key, value in asked.items() if key != "timeout"}
    if not options["dbname"]:
        raise SpecError(f"store {plain!r} names no database; write 'postgresql://user@host:5432/database'")
    session = " ".join(f"-c {key}={value}" for key, value in SESSION.items())
    options["options"] = f"{session} {options.get('options', '')}".strip()
    return Server({"application_name": "mergesearch", **NETWORK, **options}, f"store {plain}", timeout, patience)


@final
class PostgresqlDatabase:
    """Database; see `store/database.py` for the contract.

    READ COMMITTED and the lock of the study's row put writers in order; readers see one snapshot.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.where, self.timeout = server.where, server.timeout
        # The address goes past SQLAlchemy, so that no engine and no message of its can show a password.
        engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: psycopg.connect(**server.options, cursor_factory=BinaryCursor),
            poolclass=QueuePool,
            max_overflow=-1,
            isolation_level="READ COMMITTED",
            use_native_hstore=False,
        )
        self.reader: Engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self.writer: Engine = engine

    def check(self, connection: Connection) -> None:
        version = connection.dialect.server_version_info or (0,)
        if int(version[0]) < OLDEST:
            number = ".".join(map(str, version))
            raise StoreError(f"{self.where} is PostgreSQL {number}; mergesearch needs {OLDEST} or newer, upgrade it")

    def lock_schema(self, connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        connection.execute(text("SET LOCAL statement_timeout = 0"))

    def is_away(self, error: DBAPIError) -> bool:
        code: str | None = getattr(error.orig, "sqlstate", None)
        if code is not None:
            return code.startswith(AWAY)
        gone = isinstance(error.orig, psycopg.OperationalError | psycopg.InterfaceError)
        return gone and not _FOR_GOOD.search(str(error.orig))

    def sentence(self, error: DBAPIError) -> str:
        return sentence(error.orig, self._server)

    def describe(self, connection: Connection) -> tuple[str, int]:
        size: int = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
        return f"PostgreSQL {connection.execute(text('SHOW server_version')).scalar_one()}", size

    def compact(self) -> tuple[int, int]:
        size = text("SELECT pg_database_size(current_database())")
        tables = ", ".join(metadata.tables)
        with self.writer.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.detach()  # its settings end with it
            before: int = connection.execute(size).scalar_one()
            connection.execute(text("SET statement_timeout = 0"))
            connection.execute(text(f"VACUUM (FULL, ANALYZE) {tables}"))
            after: int = connection.execute(size).scalar_one()
        return before, after


def open_postgresql(url: str, *, create: bool = True) -> SqlStore:  # noqa: ARG001 (as every store)
    """The store in the database that `url` names, made if it is empty. Raises SpecError, StoreError."""
    server = parse(url)
    return SqlStore(PostgresqlDatabase(server), server.patience)


def sentence(error: BaseException | None, server: Server) -> str:
    """What `error` of psycopg means, and what to do."""
    code = getattr(error, "sqlstate", None) or ""
    said = " ".join(str(error).split("\n")[0].split())
    where, name, user = server.where, server.database, server.options.get("user", "this user")
    if code == "53100":
        return (
            f"{where}: the disk of the database is full; nothing that was recorded is lost: free some space, then "
            "continue with `mergesearch resume STUDY`"
        )
    if code == "42501" or "permission denied for database" in said:
        return (
            f"{where}: {user} lacks a right ({said}); let an administrator run "
            f"`GRANT ALL ON DATABASE {name} TO {user}; GRANT ALL ON SCHEMA public TO {user};`"
        )
    if code == "25006":
        return f"{where} can only be read ({said}); name the primary server, or a user that may write"
    if code == "57014":
        return f"{where}: a statement took longer than the database allows ({said}); try again, or raise its limit"
    if "does not exist" in said and "database" in said:
        return f"{where}: there is no database {name!r}; let an administrator make it with `createdb {name}`"
    if "no password supplied" in said:
        return (
            f"{where}: the database wants a password; put it into ~/.pgpass, or name its file in PGPASSFILE, or set "
            "PGPASSWORD"
        )
    if "authentication" in said or "pg_hba.conf" in said or "role" in said:
        return f"{where}: the login was refused ({said}); check the user, and its password in ~/.pgpass or PGPASSWORD"
    if isinstance(error, psycopg.OperationalError) and not code:
        return f"{where} cannot be reached: {said}"
    return f"{where}: the database refused: {said}"
