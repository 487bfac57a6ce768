"""What the SQL store wants of a database, and its patience with one that is away."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, Double, Engine, bindparam, func
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from mergesearch.errors import StoreError
from mergesearch.store.interrupts import held

T = TypeVar("T")
FIRST_PAUSE: Final = 0.05  # seconds before the second attempt; each next one waits twice as long
LONGEST_PAUSE: Final = 2.0  # seconds

_log = logging.getLogger(__name__)


class Database(Protocol):
    """One opened database. `where` names it in messages, without a password; `timeout`: seconds that it is waited for
    while it is away. Transactions of `reader` see one state of it; those of `writer` take turns.
    """

    where: str
    timeout: float
    reader: Engine
    writer: Engine

    def check(self, connection: Connection) -> None:
        """Raises StoreError where this version of the database is too old."""
        ...

    def lock_schema(self, connection: Connection) -> None:
        """Let one transaction at a time change the tables."""
        ...

    def is_away(self, error: DBAPIError) -> bool:
        """Whether a later attempt may succeed: the database or the way to it is gone, or it asks to try again."""
        ...

    def sentence(self, error: DBAPIError) -> str:
        """What `error` means, and what to do."""
        ...

    def describe(self, connection: Connection) -> tuple[str, int]:
        """What it is ('SQLite 3.40.1') and its bytes."""
        ...

    def compact(self) -> tuple[int, int]:
        """Bytes before and after giving free space back. Raises DBAPIError."""
        ...


@dataclass(frozen=True)
class Earlier(Generic[T]):
    """What an attempt had done whose commit broke off: it may have arrived or not. Its connection may even live on
    within the database; whoever locks the row that it had locked waits for its end, and can then tell."""

    result: T


def patiently(database: Database, work: Callable[[], T], seconds: float | None = None) -> T:
    """The answer of `work`, which is called again while the database is away, for `seconds` (None: its timeout).

    Raises:
        StoreError: the database refused, or stayed away.
    """
    patience = _Patience(database, database.timeout if seconds is None else seconds)
    while True:
        try:
            answer = work()
        except DBAPIError as error:
            patience.wait_after(error)
        else:
            patience.over()
            return answer


def read(database: Database, work: Callable[[Connection], T]) -> T:
    """What `work` reads, in one transaction, which an interrupt waits for. Raises StoreError as `patiently` does."""

    def once() -> T:
        connection = database.reader.connect()
        with held(), connection, connection.begin():
            return work(connection)

    return patiently(database, once)


def write(database: Database, work: Callable[[Connection, Earlier[T] | None], T]) -> T:
    """The answer of `work`, made in one transaction that is durable on return. An interrupt waits for its end.

    `work` is called again if the database went away. It is given what it had answered before if it may be that this
    arrived, and then has to find out: if it did, it answers the same and writes nothing. Raises as `patiently` does.
    """
    earlier: Earlier[T] | None = None

    def once() -> T:
        nonlocal earlier
        connection = database.writer.connect()
        with held(), connection:
            result = work(connection, earlier)
            try:
                connection.commit()
            except DBAPIError:
                earlier = Earlier(result)
                raise
        return result

    return patiently(database, once)


class _Patience:
    """Waits longer and longer between attempts, and says once that it waits."""

    def __init__(self, database: Database, seconds: float) -> None:
        self._database, self._seconds = database, seconds
        self._since: float | None = None
        self._pause = FIRST_PAUSE

    def wait_after(self, error: DBAPIError) -> None:
        """Sleep until the next attempt. Raises StoreError if there shall be none."""
        if not self._database.is_away(error):
            raise StoreError(self._database.sentence(error)) from error
        now = time.monotonic()
        reason = " ".join(str(error.orig).split("\n")[0].split())
        if self._since is None:
            self._since = now
            _log.warning("%s is away, waiting up to %g s for it: %s", self._database.where, self._seconds, reason)
        left = self._since + self._seconds - now
        if left <= 0.0:
            raise StoreError(
                f"{self._database.where} was away for {self._seconds:g} s ({reason}); nothing that was recorded is "
                "lost: bring it back, then continue with `mergesearch resume STUDY`"
            ) from error
        # Not all at the same moment: many that wait would keep a database that is starting from doing so.
        time.sleep(min(left, self._pause * random.uniform(0.5, 1.0)))
        self._pause = min(LONGEST_PAUSE, 2.0 * self._pause)

    def over(self) -> None:
        """Say that the database is back, if it was said to be away."""
        if self._since is not None:
            seconds = time.monotonic() - self._since
            _log.warning("%s is back after %.1f s", self._database.where, seconds)


class clock(FunctionElement[float]):
    """Seconds since the epoch, by the database's own clock."""

    type = Double()
    inherit_cache = True


@compiles(clock, "sqlite")
def _sqlite_clock(element: clock, compiler: Any, **options: Any) -> str:  # noqa: ARG001
    return "((julianday('now') - 2440587.5) * 86400.0)"  # unixepoch('subsec') needs SQLite 3.42


@compiles(clock, "postgresql")
def _postgresql_clock(element: clock, compiler: Any, **options: Any) -> str:  # noqa: ARG001
    return "extract(epoch from clock_timestamp())::double precision"


def moment(now: float | None) -> dict[str, float | None]:
    """The parameter of NOW."""
    return {"b_now": None if now is None else float(now)}


# The moment that was passed in, else the database's clock, in the same statement: no further round trip.
NOW: Final[ColumnElement[float]] = func.coalesce(bindparam("b_now", type_=Double()), clock(), type_=Double())
