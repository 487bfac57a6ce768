"""The store in SQL, the same statements on every database; what is special about one stands in its own file.

Every write checks and locks the lease of its study within its own transaction, see `store/leases.py`. The lock also
lets a write be made again after its commit broke off: it waits for the end of the transaction that may live on in the
database, and then sees whether that arrived.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from json import loads
from typing import final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from mergesearch.errors import StudyNotFound
from mergesearch.store import cache, leases, log, reading, refusals, removal, repeats
from mergesearch.store.base import Artifact, Command, Lease, Repeat, StudyRecord
from mergesearch.store.database import NOW, Database, Earlier, moment, patiently, read, write
from mergesearch.store.database import clock as database_clock
from mergesearch.store.migrate import make_current
from mergesearch.store.schema import SCHEMA_VERSION, artifacts, commands
from mergesearch.store.schema import facts as fact_rows
from mergesearch.store.sql_offers import SqlOffers
from mergesearch.store.values import check_action, clean_text, facts_json
from mergesearch.types import Asked, Candidate, Event, Outcome, Scored, Split, Status, Told

_FINISH = update(commands).values(done=NOW)


@final
class SqlStore:
    """StudyStore; see `store/base.py` for the contract. Safe to use from several threads and processes."""

    def __init__(self, database: Database, patience: float) -> None:
        """The store in `database`, whose tables are made or upgraded if need be.

        Args:
            patience: seconds to wait for a database that is away now; later it is the database's own timeout.

        Raises:
            StoreVersionError: the store was written by a newer mergesearch.
            StoreError: the database cannot be opened or holds something else.
        """
        self._database = database
        self._offers = SqlOffers(database)
        patiently(database, partial(make_current, database), patience)

    @property
    def offers(self) -> SqlOffers:
        return self._offers

    def create(
        self, name: str, spec: str, digest: str, now: float | None = None, facts: Mapping[str, object] | None = None
    ) -> StudyRecord:
        texts = facts_json(facts or {})

        def work(connection: Connection, earlier: Earlier[StudyRecord] | None) -> StudyRecord:
            try:
                return leases.make(connection, name, spec, digest, now, texts)
            except IntegrityError:
                # Where our own transaction arrived after all, the row is ours to the last digit of the clock.
                connection.rollback()
                if earlier is not None and leases.record(connection, name).created == earlier.result.created:
                    return earlier.result
                raise refusals.name_taken(name) from None

        return write(self._database, work)

    def study(self, name: str) -> StudyRecord:
        return read(self._database, lambda connection: leases.record(connection, name))

    def studies(self) -> Sequence[StudyRecord]:
        return read(self._database, leases.records)

    def acquire(self, name: str, owner: str, seconds: float, now: float | None = None, replacing: str = "") -> Lease:
        wanted = Lease(name, owner, 0, 0.0)
        return write(
            self._database,
            lambda connection, earlier: leases.acquire(connection, wanted, seconds, now, replacing, earlier),
        )

    def renew(self, lease: Lease, seconds: float, now: float | None = None) -> Lease:
        return write(self._database, lambda connection, _: leases.renew(connection, lease, seconds, now))

    def release(self, lease: Lease, now: float | None = None) -> None:
        write(self._database, lambda connection, _: leases.release(connection, lease, now))

    def set_status(self, lease: Lease, status: Status, message: str, now: float | None = None) -> None:
        text = clean_text(message)
        write(self._database, lambda connection, _: leases.set_status(connection, lease, status, text, now))

    def set_facts(self, lease: Lease, facts: Mapping[str, object]) -> None:
        texts = facts_json(facts)

        def work(connection: Connection, _: Earlier[None] | None) -> None:
            study = leases.hold(connection, lease)
            kept = fact_rows.c
            connection.execute(delete(fact_rows).where(kept.study_id == study, kept.key.in_(list(texts))))
            leases.insert_facts(connection, study, texts)

        write(self._database, work)

    def facts(self, name: str) -> Mapping[str, object]:
        def work(connection: Connection) -> Mapping[str, object]:
            kept, study = fact_rows.c, leases.key(connection, name)
            query = select(kept.key, kept.value).where(kept.study_id == study)
            return {key: loads(value) for key, value in sorted(tuple(row) for row in connection.execute(query))}

        return read(self._database, work)

    def ask(self, lease: Lease, candidate: Candidate, split: Split, now: float | None = None) -> Asked:
        return write(
            self._database,
            lambda connection, earlier: log.write_ask(connection, lease, candidate, split, now, earlier),
        )

    def tell(
        self,
        lease: Lease,
        number: int,
        split: Split,
        outcome: Outcome,
        now: float | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> Told | None:
        key = (number, split)
        try:
            return write(
                self._database,
                lambda connection, earlier: log.write_tell(
                    connection, lease, key, outcome, digests or {}, now, earlier
                ),
            )
        except log.ToldBefore as told:
            arrived = told.arrived
        found = write(
            self._database,
            lambda connection, earlier: repeats.write_repeat(connection, lease, key, outcome, now, arrived, earlier),
        )
        return found if isinstance(found, Told) else None

    def repeats(self, name: str) -> Sequence[Repeat]:
        return read(self._database, lambda connection: repeats.read_repeats(connection, leases.key(connection, name)))

    def cached(self, digests: Mapping[str, str]) -> Scored | None:
        return read(self._database, lambda connection: cache.find(connection, digests))

    def remove(self, name: str) -> None:
        def work(connection: Connection, earlier: Earlier[None] | None) -> None:
            try:
                removal.remove(connection, name)
            except StudyNotFound:
                if earlier is None:
                    raise

        write(self._database, work)

    def compact(self) -> tuple[int, int]:
        return patiently(self._database, self._database.compact)

    def events(self, name: str, after: int = 0, limit: int | None = None) -> Sequence[Event]:
        first = max(0, after)
        last = reading.LAST if limit is None else min(reading.LAST, first + limit)
        return read(
            self._database,
            lambda connection: reading.read_events(connection, leases.key(connection, name), first, last),
        )

    def examples(self, name: str, number: int, split: Split) -> Mapping[str, NDArray[np.float32]]:
        return read(
            self._database,
            lambda connection: reading.read_examples(connection, leases.key(connection, name), number, split),
        )

    def command(self, name: str, action: str, now: float | None = None) -> Command:
        check_action(action)

        def work(connection: Connection, earlier: Earlier[Command] | None) -> Command:
            study, made = leases.locked(connection, name).id, commands.c
            if earlier is not None:
                old = earlier.result
                found = select(made.id).where(made.study_id == study, made.id == old.id, made.created == old.created)
                if connection.execute(found).one_or_none() is not None:
                    return old
            added = insert(commands).values(created=NOW).returning(made.id, made.created)
            row = connection.execute(added, {"study_id": study, "action": action, **moment(now)}).one()
            return Command(row.id, action, row.created)

        return write(self._database, work)

    def open_commands(self, name: str) -> Sequence[Command]:
        def work(connection: Connection) -> list[Command]:
            made = commands.c
            query = select(made.id, made.action, made.created).where(
                made.study_id == leases.key(connection, name), made.done.is_(None)
            )
            return [Command(*row) for row in connection.execute(query.order_by(made.id))]

        return read(self._database, work)

    def finish_command(self, lease: Lease, command: Command, now: float | None = None) -> None:
        def work(connection: Connection, _: Earlier[None] | None) -> None:
            study, at = leases.touch(connection, lease, now)
            found = (commands.c.id == command.id) & (commands.c.study_id == study)
            if connection.execute(_FINISH.where(found), moment(at)).rowcount == 0:
                raise refusals.unknown_command(lease.study, command)

        write(self._database, work)

    def add_artifact(self, name: str, artifact: Artifact) -> None:
        def work(connection: Connection, earlier: Earlier[int] | None) -> int:
            study, made = leases.locked(connection, name).id, artifacts.c
            row = {"study_id": study, "candidate": artifact.candidate, "kind": artifact.kind}
            row |= {"path": artifact.path, "sha256": artifact.sha256, "created": artifact.created}
            if earlier is not None:
                found = select(made.id).where(made.id == earlier.result, *(made[name] == row[name] for name in row))
                if connection.execute(found).one_or_none() is not None:
                    return earlier.result
            key: int = connection.execute(insert(artifacts).returning(made.id), row).scalar_one()
            return key

        write(self._database, work)

    def artifacts(self, name: str) -> Sequence[Artifact]:
        def work(connection: Connection) -> list[Artifact]:
            made = artifacts.c
            query = select(made.candidate, made.kind, made.path, made.sha256, made.created).where(
                made.study_id == leases.key(connection, name)
            )
            return [Artifact(*row) for row in connection.execute(query.order_by(made.id))]

        return read(self._database, work)

    def remove_artifact(self, name: str, artifact: Artifact) -> None:
        def work(connection: Connection, _: Earlier[None] | None) -> None:
            made, study = artifacts.c, leases.locked(connection, name).id
            gone = delete(artifacts).where(made.study_id == study, made.candidate == artifact.candidate)
            gone = gone.where(made.kind == artifact.kind, made.path == artifact.path, made.created == artifact.created)
            connection.execute(gone)

        write(self._database, work)

    def times(self, name: str) -> Mapping[tuple[int, Split], tuple[float, float | None]]:
        return read(self._database, lambda connection: reading.read_times(connection, leases.key(connection, name)))

    def clock(self) -> float:
        return float(read(self._database, lambda connection: connection.execute(select(database_clock())).scalar_one()))

    def info(self) -> Mapping[str, object]:
        kind, size = read(self._database, self._database.describe)
        return {"kind": kind, "schema": SCHEMA_VERSION, "bytes": size}

    def close(self) -> None:
        """Close every connection; SQLite then folds its write-ahead log into the file."""
        self._database.reader.dispose()
