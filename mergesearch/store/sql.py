"""The store in SQL: SQLite today, written so that PostgreSQL needs a connection and no other statement.

Every write first updates the study's row on condition that the lease is its own. That checks the lease, takes the lock
that orders writers, and gives the log's next number, all in the transaction of the write itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from json import loads
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Row, bindparam, case, delete, insert, or_, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from mergesearch.errors import StoreError
from mergesearch.store import log, refusals, sqlite
from mergesearch.store.base import Artifact, Command, Lease, StudyRecord
from mergesearch.store.migrate import make_current
from mergesearch.store.schema import artifacts, commands, studies
from mergesearch.store.schema import facts as fact_rows
from mergesearch.store.values import check_action, clean_text, facts_json
from mergesearch.types import Asked, Candidate, Event, Outcome, Split, Status, Told

_NAME = studies.c.name == bindparam("b_name")
_HELD = (
    update(studies)
    .where(_NAME, studies.c.lease_token == bindparam("b_token"))
    .where(studies.c.lease_owner == bindparam("b_owner"), studies.c.lease_owner != "")
)
_HOLD = _HELD.values(lease_token=studies.c.lease_token).returning(studies.c.id, studies.c.seq)
_SPENT = studies.c.seconds + case(
    (bindparam("b_now") > studies.c.lease_renewed, bindparam("b_now") - studies.c.lease_renewed), else_=0.0
)
_RENEW = _HELD.values(
    seconds=_SPENT, lease_until=bindparam("b_until"), lease_renewed=bindparam("b_now"), updated=bindparam("b_now")
).returning(studies.c.id)
_RELEASE = _HELD.values(seconds=_SPENT, lease_owner="", lease_until=0.0, updated=bindparam("b_now"))
_ACQUIRE = (
    update(studies)
    .where(_NAME)
    .where(
        or_(
            studies.c.lease_owner.in_(["", bindparam("b_owner"), bindparam("b_replacing")]),
            studies.c.lease_until <= bindparam("b_now"),
        )
    )
    .values(
        lease_owner=bindparam("b_owner"),
        lease_token=studies.c.lease_token + 1,
        lease_until=bindparam("b_until"),
        lease_renewed=bindparam("b_now"),
        updated=bindparam("b_now"),
    )
    .returning(studies.c.lease_token)
)
_ADVANCE = (
    update(studies).where(studies.c.id == bindparam("b_id")).values(seq=bindparam("b_seq"), updated=bindparam("b_now"))
)
_BY_NAME = select(studies).where(_NAME)
_ID = select(studies.c.id).where(_NAME)


@final
class SqlStore:
    """StudyStore; see `store/base.py` for the contract. Safe to use from several threads and processes."""

    def __init__(self, url: str, *, create: bool = True) -> None:
        """Open the store at `url`, creating the file (unless `create` is False) and upgrading its tables if need be.

        Raises:
            SpecError: the URL cannot be understood.
            StoreVersionError: the store was written by a newer mergesearch.
            StoreError: the file cannot be opened or holds something else.
        """
        self._file = sqlite.parse(url)
        self._reader: Engine = sqlite.open_engine(self._file, create=create)
        self._writer: Engine = self._reader.execution_options(write=True)
        with self._faults():
            make_current(self._reader, self._writer, f"store {self._file.path}")

    def create(
        self, name: str, spec: str, digest: str, now: float, facts: Mapping[str, object] | None = None
    ) -> StudyRecord:
        texts = facts_json(facts or {})
        row = {"name": name, "spec": spec, "digest": digest, "status": Status.NEW.value, "message": ""}
        times = {"created": now, "updated": now, "seconds": 0.0, "seq": 0}
        lease = {"lease_owner": "", "lease_token": 0, "lease_until": 0.0, "lease_renewed": 0.0}
        with self._write() as connection:
            try:
                study = connection.execute(
                    insert(studies).returning(studies.c.id), {**row, **times, **lease}
                ).scalar_one()
            except IntegrityError:
                raise refusals.name_taken(name) from None
            _insert_facts(connection, study, texts)
        return StudyRecord(name, spec, digest, Status.NEW, float(now), float(now))

    def study(self, name: str) -> StudyRecord:
        with self._read() as connection:
            row = connection.execute(_BY_NAME, {"b_name": name}).one_or_none()
            if row is None:
                raise _unknown(connection, name)
            return _record(row)

    def studies(self) -> Sequence[StudyRecord]:
        with self._read() as connection:
            rows = connection.execute(select(studies).order_by(studies.c.created.desc(), studies.c.id.desc()))
            return [_record(row) for row in rows]

    def acquire(self, name: str, owner: str, seconds: float, now: float, replacing: str = "") -> Lease:
        bound = {"b_name": name, "b_owner": owner, "b_until": now + seconds, "b_now": now, "b_replacing": replacing}
        with self._write() as connection:
            token = connection.execute(_ACQUIRE, bound).scalar_one_or_none()
            if token is None:
                row = connection.execute(_BY_NAME, {"b_name": name}).one_or_none()
                if row is None:
                    raise _unknown(connection, name)
                raise refusals.held_by_other(name, row.lease_owner, row.lease_until, now)
        return Lease(name, owner, token, now + seconds)

    def renew(self, lease: Lease, seconds: float, now: float) -> Lease:
        with self._write() as connection:
            bound = {**_key(lease), "b_until": now + seconds, "b_now": now}
            if connection.execute(_RENEW, bound).one_or_none() is None:
                raise _lost(connection, lease)
        return replace(lease, until=now + seconds)

    def release(self, lease: Lease, now: float) -> None:
        with self._write() as connection:
            connection.execute(_RELEASE, {**_key(lease), "b_now": now})

    def set_status(self, lease: Lease, status: Status, message: str, now: float) -> None:
        values = {"status": status.value, "message": clean_text(message), "updated": now}
        with self._write() as connection:
            study, _ = _hold(connection, lease)
            connection.execute(update(studies).where(studies.c.id == study).values(values))

    def set_facts(self, lease: Lease, facts: Mapping[str, object]) -> None:
        texts = facts_json(facts)
        with self._write() as connection:
            study, _ = _hold(connection, lease)
            kept = fact_rows.c
            connection.execute(delete(fact_rows).where(kept.study_id == study, kept.key.in_(list(texts))))
            _insert_facts(connection, study, texts)

    def facts(self, name: str) -> Mapping[str, object]:
        with self._read() as connection:
            kept = fact_rows.c
            query = select(kept.key, kept.value).where(kept.study_id == _id(connection, name)).order_by(kept.key)
            return {key: loads(value) for key, value in connection.execute(query)}

    def ask(self, lease: Lease, candidate: Candidate, split: Split, now: float) -> Asked:
        with self._write() as connection:
            study, seq = _hold(connection, lease)
            asked = log.write_ask(connection, (study, lease.study), seq + 1, candidate, split, now)
            connection.execute(_ADVANCE, {"b_id": study, "b_seq": asked.seq, "b_now": now})
        return asked

    def tell(self, lease: Lease, number: int, split: Split, outcome: Outcome, now: float) -> Told | None:
        with self._write() as connection:
            study, seq = _hold(connection, lease)
            told = log.write_tell(connection, (study, lease.study), seq + 1, number, split, outcome, now)
            if told is not None:
                connection.execute(_ADVANCE, {"b_id": study, "b_seq": told.seq, "b_now": now})
        return told

    def events(self, name: str, after: int = 0) -> Sequence[Event]:
        with self._read() as connection:
            return log.read_events(connection, _id(connection, name), max(0, after))

    def examples(self, name: str, number: int, split: Split) -> Mapping[str, NDArray[np.float32]]:
        with self._read() as connection:
            return log.read_examples(connection, _id(connection, name), number, split)

    def command(self, name: str, action: str, now: float) -> Command:
        check_action(action)
        with self._write() as connection:
            row = {"study_id": _id(connection, name), "action": action, "created": now}
            key = connection.execute(insert(commands).returning(commands.c.id), row).scalar_one()
        return Command(key, action, float(now))

    def open_commands(self, name: str) -> Sequence[Command]:
        with self._read() as connection:
            query = select(commands.c.id, commands.c.action, commands.c.created).where(
                commands.c.study_id == _id(connection, name), commands.c.done.is_(None)
            )
            return [Command(*row) for row in connection.execute(query.order_by(commands.c.id))]

    def finish_command(self, lease: Lease, command: Command, now: float) -> None:
        with self._write() as connection:
            study, seq = _hold(connection, lease)
            found = (commands.c.id == command.id) & (commands.c.study_id == study)
            if connection.execute(update(commands).where(found).values(done=now)).rowcount == 0:
                raise refusals.unknown_command(lease.study, command)
            connection.execute(_ADVANCE, {"b_id": study, "b_seq": seq, "b_now": now})

    def add_artifact(self, name: str, artifact: Artifact) -> None:
        with self._write() as connection:
            row = {"study_id": _id(connection, name), "candidate": artifact.candidate, "kind": artifact.kind}
            made = {"path": artifact.path, "sha256": artifact.sha256, "created": artifact.created}
            connection.execute(insert(artifacts), {**row, **made})

    def artifacts(self, name: str) -> Sequence[Artifact]:
        made = artifacts.c
        with self._read() as connection:
            query = select(made.candidate, made.kind, made.path, made.sha256, made.created).where(
                made.study_id == _id(connection, name)
            )
            return [Artifact(*row) for row in connection.execute(query.order_by(made.id))]

    def close(self) -> None:
        """Close every connection; SQLite then folds its write-ahead log into the file."""
        self._reader.dispose()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._faults(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._faults(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turns what the database refuses into one sentence."""
        try:
            yield
        except DBAPIError as error:
            raise StoreError(sqlite.sentence(error.orig, self._file)) from error


def _key(lease: Lease) -> dict[str, object]:
    return {"b_name": lease.study, "b_token": lease.token, "b_owner": lease.owner}


def _hold(connection: Connection, lease: Lease) -> tuple[int, int]:
    """Id of the lease's study and the last number of its log; locks the study until the transaction ends."""
    row = connection.execute(_HOLD, _key(lease)).one_or_none()
    if row is None:
        raise _lost(connection, lease)
    return row.id, row.seq


def _insert_facts(connection: Connection, study: int, texts: Mapping[str, str]) -> None:
    if texts:
        connection.execute(insert(fact_rows), [{"study_id": study, "key": k, "value": v} for k, v in texts.items()])


def _lost(connection: Connection, lease: Lease) -> StoreError:
    row = connection.execute(_BY_NAME, {"b_name": lease.study}).one_or_none()
    return _unknown(connection, lease.study) if row is None else refusals.lease_lost(lease, row.lease_owner)


def _unknown(connection: Connection, name: str) -> StoreError:
    return refusals.unknown_study(name, connection.execute(select(studies.c.name)).scalars())


def _id(connection: Connection, name: str) -> int:
    key: int | None = connection.execute(_ID, {"b_name": name}).scalar_one_or_none()
    if key is None:
        raise _unknown(connection, name)
    return key


def _record(row: Row[Any]) -> StudyRecord:
    return StudyRecord(
        row.name, row.spec, row.digest, Status(row.status), row.created, row.updated,
        seconds=row.seconds, message=row.message, owner=row.lease_owner, until=row.lease_until,
    )  # fmt: skip
