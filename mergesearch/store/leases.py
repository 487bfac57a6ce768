"""The rows of studies in SQL: making, finding and leasing them. Runs inside the caller's transaction.

Every write first updates or locks the study's row on condition that the lease is its own. That checks the lease, takes
the lock that orders writers, and gives the log's next number, all in the transaction of the write itself.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Double, Row, bindparam, case, insert, or_, select, update

from mergesearch.errors import StoreError
from mergesearch.store import refusals
from mergesearch.store.base import Lease, StudyRecord
from mergesearch.store.database import NOW, Earlier, moment
from mergesearch.store.schema import facts, studies
from mergesearch.types import Status

_s = studies.c
_NAME = _s.name == bindparam("b_name")
_IS_HELD = (
    _NAME,
    _s.lease_token == bindparam("b_token"),
    _s.lease_owner == bindparam("b_owner"),
    _s.lease_owner != "",
)
_HELD = update(studies).where(*_IS_HELD)
_ADVANCE = _HELD.values(seq=_s.seq + 1, updated=NOW).returning(_s.id, _s.seq, _s.updated)
_TOUCH = _HELD.values(updated=NOW).returning(_s.id, _s.updated)
# NO KEY: rows of other tables that point at the study may be inserted meanwhile.
_HOLD = select(_s.id).where(*_IS_HELD).with_for_update(key_share=True)
_STATUS = _HELD.values(status=bindparam("b_status"), message=bindparam("b_message"), updated=NOW).returning(_s.id)
_UNTIL = NOW + bindparam("b_seconds", type_=Double())
_SPENT = _s.seconds + case((_s.lease_renewed < NOW, NOW - _s.lease_renewed), else_=0.0)
_RENEW = _HELD.values(seconds=_SPENT, lease_until=_UNTIL, lease_renewed=NOW, updated=NOW).returning(_s.lease_until)
_RELEASE = _HELD.values(seconds=_SPENT, lease_owner="", lease_until=0.0, updated=NOW)
_FREE = or_(_s.lease_owner.in_(["", bindparam("b_owner"), bindparam("b_replacing")]), _s.lease_until <= NOW)
_ACQUIRE = (
    update(studies)
    .where(_NAME, _FREE)
    .values(
        lease_owner=bindparam("b_owner"),
        lease_token=_s.lease_token + 1,
        lease_until=_UNTIL,
        lease_renewed=NOW,
        updated=NOW,
    )
    .returning(_s.lease_token, _s.lease_until)
)
_BY_NAME = select(studies).where(_NAME)
_LOCKED = select(studies, NOW.label("moment")).where(_NAME).with_for_update(key_share=True)
_ID = select(_s.id).where(_NAME)
_INSERT = insert(studies).values(created=NOW, updated=NOW).returning(_s.id, _s.created)


def make(
    connection: Connection, name: str, spec: str, digest: str, now: float | None, texts: Mapping[str, str]
) -> StudyRecord:
    """Insert a study and its facts. Raises IntegrityError if the name is taken."""
    row = {"name": name, "spec": spec, "digest": digest, "status": Status.NEW.value, "message": ""}
    blank = {"seconds": 0.0, "seq": 0, "lease_owner": "", "lease_until": 0.0, "lease_renewed": 0.0}
    blank["lease_token"] = 0  # nosec B105  # a number that grows
    study, created = connection.execute(_INSERT, {**row, **blank, **moment(now)}).one()
    insert_facts(connection, study, texts)
    return StudyRecord(name, spec, digest, Status.NEW, created, created)


def acquire(
    connection: Connection,
    wanted: Lease,
    seconds: float,
    now: float | None,
    replacing: str,
    earlier: Earlier[Lease] | None,
) -> Lease:
    """Take the lease for the study and owner of `wanted`. Raises LeaseError while another's runs."""
    name, owner = wanted.study, wanted.owner
    row = locked(connection, name, now)
    if earlier is not None and (row.lease_owner, row.lease_token) == (owner, earlier.result.token):
        return earlier.result
    bound = {"b_name": name, "b_owner": owner, "b_replacing": replacing, "b_seconds": float(seconds), **moment(now)}
    taken = connection.execute(_ACQUIRE, bound).one_or_none()
    if taken is None:
        raise refusals.held_by_other(name, row.lease_owner, row.lease_until, row.moment)
    return Lease(name, owner, *taken)


def renew(connection: Connection, lease: Lease, seconds: float, now: float | None) -> Lease:
    """Prolong the lease. Raises LeaseError if it is gone."""
    bound = {**_key(lease), "b_seconds": float(seconds), **moment(now)}
    return replace(lease, until=_one(connection, lease, connection.execute(_RENEW, bound).one_or_none())[0])


def release(connection: Connection, lease: Lease, now: float | None) -> None:
    """Give the lease back if it is not gone."""
    connection.execute(_RELEASE, {**_key(lease), **moment(now)})


def advance(connection: Connection, lease: Lease, now: float | None) -> tuple[int, int, float]:
    """Take the log's next number: id of the study, that number, and the moment. Raises LeaseError."""
    row = _one(connection, lease, connection.execute(_ADVANCE, {**_key(lease), **moment(now)}).one_or_none())
    return row.id, row.seq, row.updated


def touch(connection: Connection, lease: Lease, now: float | None) -> tuple[int, float]:
    """Id of the lease's study and the moment, which is that of its last change now. Raises LeaseError."""
    row = _one(connection, lease, connection.execute(_TOUCH, {**_key(lease), **moment(now)}).one_or_none())
    return row.id, row.updated


def hold(connection: Connection, lease: Lease) -> int:
    """Id of the lease's study, locked until the transaction ends. Raises LeaseError."""
    study: int = _one(connection, lease, connection.execute(_HOLD, _key(lease)).one_or_none())[0]
    return study


def set_status(connection: Connection, lease: Lease, status: Status, message: str, now: float | None) -> None:
    """Set status and message. Raises LeaseError."""
    bound = {**_key(lease), "b_status": status.value, "b_message": message, **moment(now)}
    _one(connection, lease, connection.execute(_STATUS, bound).one_or_none())


def insert_facts(connection: Connection, study: int, texts: Mapping[str, str]) -> None:
    """Insert facts whose keys are not there."""
    if texts:
        connection.execute(insert(facts), [{"study_id": study, "key": k, "value": v} for k, v in texts.items()])


def record(connection: Connection, name: str) -> StudyRecord:
    """The study of that name. Raises StudyNotFound."""
    row = connection.execute(_BY_NAME, {"b_name": name}).one_or_none()
    if row is None:
        raise unknown(connection, name)
    return _record(row)


def records(connection: Connection) -> list[StudyRecord]:
    """All studies, newest first."""
    return [_record(row) for row in connection.execute(select(studies).order_by(_s.created.desc(), _s.id.desc()))]


def key(connection: Connection, name: str) -> int:
    """The id of a study. Raises StudyNotFound."""
    found: int | None = connection.execute(_ID, {"b_name": name}).scalar_one_or_none()
    if found is None:
        raise unknown(connection, name)
    return found


def locked(connection: Connection, name: str, now: float | None = None) -> Row[Any]:
    """The row of a study, locked until the transaction ends, and the `moment`. Raises StudyNotFound."""
    row = connection.execute(_LOCKED, {"b_name": name, **moment(now)}).one_or_none()
    if row is None:
        raise unknown(connection, name)
    return row


def unknown(connection: Connection, name: str) -> StoreError:
    """The refusal of a name that no study has."""
    return refusals.unknown_study(name, connection.execute(select(_s.name)).scalars())


def _one(connection: Connection, lease: Lease, row: Row[Any] | None) -> Row[Any]:
    if row is not None:
        return row
    found = connection.execute(_BY_NAME, {"b_name": lease.study}).one_or_none()
    raise unknown(connection, lease.study) if found is None else refusals.lease_lost(lease, found.lease_owner)


def _key(lease: Lease) -> dict[str, object]:
    return {"b_name": lease.study, "b_token": lease.token, "b_owner": lease.owner}


def _record(row: Row[Any]) -> StudyRecord:
    return StudyRecord(
        row.name, row.spec, row.digest, Status(row.status), row.created, row.updated,
        seconds=row.seconds, message=row.message, owner=row.lease_owner, until=row.lease_until,
    )  # fmt: skip
