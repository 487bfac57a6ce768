"""Offers in SQL. Every write locks the row of its study first, which orders it with all other writes of the study."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, final

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, update

from mergesearch.store import leases
from mergesearch.store.database import NOW, Database, Earlier, moment, read, write
from mergesearch.store.offer_values import (
    check_renewable,
    checked_attempt,
    no_offer,
    outcome_digest,
    outcome_from,
    outcome_text,
)
from mergesearch.store.offering import Answer, Offer, Receipt, State
from mergesearch.store.schema import answers as answer_rows
from mergesearch.store.schema import offers
from mergesearch.store.values import clean_text
from mergesearch.types import Outcome, Split

_o, _a = offers.c, answer_rows.c
_WAITING = or_(_o.state == State.OPEN.value, _o.state == State.LEASED.value)
_ANSWERS = (
    select(_a.id, _o.number, _o.split, _a.outcome, _a.holder, _a.attempt, _o.offered, _a.leased, _a.told)
    .join(offers, _o.id == _a.offer_id)
    .where(_a.outcome.is_not(None))
    .order_by(_a.id)
)


@final
class SqlOffers:
    """OfferStore; see `store/offering.py` for the contract."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(
        self,
        name: str,
        number: int,
        split: Split,
        body: str,
        key: str,
        now: float | None = None,
        seconds: float = 300.0,
    ) -> Offer:
        def work(connection: Connection, _: Earlier[Offer] | None) -> Offer:
            study = leases.locked(connection, name, now)
            found = _find(connection, study.id, number, split)
            if found is not None and (found.state != State.TOLD.value or _untaken(connection, found.id)):
                return _offer(found)
            row = {"body": body, "key": key, "state": State.OPEN.value, "holders": "[]", "offered": study.moment}
            row |= {"leased": 0.0, "until": 0.0, "seconds": seconds}
            if found is None:
                row |= {"study_id": study.id, "number": number, "split": split.value}
                connection.execute(insert(offers), row)
            else:
                connection.execute(delete(answer_rows).where(_a.offer_id == found.id))
                connection.execute(update(offers).where(_o.id == found.id).values(**row))
            return Offer(number, split, body, key, offered=study.moment, seconds=seconds)

        return write(self._database, work)

    def waiting(self, name: str) -> Sequence[Offer]:
        def work(connection: Connection) -> list[Offer]:
            query = select(offers).where(_o.study_id == leases.key(connection, name), _WAITING).order_by(_o.id)
            return [_offer(row) for row in connection.execute(query)]

        return read(self._database, work)

    def counts(self, name: str) -> Mapping[State, int]:
        def work(connection: Connection) -> Mapping[State, int]:
            query = select(_o.state, func.count()).where(_o.study_id == leases.key(connection, name))
            found = {state: int(count) for state, count in connection.execute(query.group_by(_o.state))}
            return {state: found.get(state.value, 0) for state in State}

        return read(self._database, work)

    def free(self, name: str, now: float | None = None) -> bool:
        def work(connection: Connection) -> bool:
            query = select(_o.id).where(_o.study_id == leases.key(connection, name), _free(NOW)).limit(1)
            return connection.execute(query, moment(now)).one_or_none() is not None

        return read(self._database, work)

    def lease(
        self, name: str, holder: str, count: int, seconds: float | None = None, now: float | None = None
    ) -> Sequence[Offer]:
        who = clean_text(holder)

        def work(connection: Connection, earlier: Earlier[list[Offer]] | None) -> list[Offer]:
            study = leases.locked(connection, name, now)
            if earlier is not None and earlier.result:
                first = earlier.result[0]
                found = _find(connection, study.id, first.number, first.split)
                if found is not None and _offer(found) == first:
                    return earlier.result
            free = select(offers).where(_o.study_id == study.id, _free(study.moment)).order_by(_o.id).limit(count)
            made = []
            for row in connection.execute(free).all():
                values = {"state": State.LEASED.value, "holders": json.dumps([*json.loads(row.holders), who])}
                values |= {
                    "leased": study.moment,
                    "until": study.moment + (row.seconds if seconds is None else seconds),
                }
                connection.execute(update(offers).where(_o.id == row.id).values(**values))
                made.append(_offer(connection.execute(select(offers).where(_o.id == row.id)).one()))
            return made

        return write(self._database, work)

    def renew(
        self, name: str, number: int, split: Split, token: str, seconds: float | None = None, now: float | None = None
    ) -> Offer:
        def work(connection: Connection, _: Earlier[Offer] | None) -> Offer:
            study = leases.locked(connection, name, now)
            row = _needed(connection, name, study.id, number, split)
            check_renewable(name, _offer(row), row.state == State.TOLD.value, token)
            until = study.moment + (row.seconds if seconds is None else seconds)
            connection.execute(update(offers).where(_o.id == row.id).values(until=until))
            return _offer(_needed(connection, name, study.id, number, split))

        return write(self._database, work)

    def tell(
        self, name: str, number: int, split: Split, token: str, outcome: Outcome, now: float | None = None
    ) -> Receipt:
        digest, text = outcome_digest(outcome), outcome_text(outcome)

        def work(connection: Connection, earlier: Earlier[Receipt] | None) -> Receipt:
            study = leases.locked(connection, name, now)
            row = _needed(connection, name, study.id, number, split)
            offer = _offer(row)
            attempt = checked_attempt(name, offer, token)
            before = connection.execute(select(_a.digest).where(_a.offer_id == row.id).order_by(_a.id)).scalars().all()
            if digest in before:
                again = Receipt.AGAIN if before[0] == digest else Receipt.OTHER
                return again if earlier is None else earlier.result
            made = {"study_id": study.id, "offer_id": row.id, "digest": digest, "outcome": text, "attempt": attempt}
            made |= {"holder": offer.holders[attempt - 1], "leased": offer.leased, "told": study.moment}
            connection.execute(insert(answer_rows), made)
            connection.execute(update(offers).where(_o.id == row.id).values(state=State.TOLD.value, body=""))
            return Receipt.OTHER if before else Receipt.FIRST

        return write(self._database, work)

    def answers(self, name: str) -> Sequence[Answer]:
        def work(connection: Connection) -> list[Answer]:
            query = _ANSWERS.where(_a.study_id == leases.key(connection, name))
            return [_answer(*row) for row in connection.execute(query)]

        return read(self._database, work)

    def take(self, name: str, answers: Sequence[Answer]) -> None:
        ids = [answer.id for answer in answers]

        def work(connection: Connection, _: Earlier[None] | None) -> None:
            study = leases.locked(connection, name)
            connection.execute(update(answer_rows).where(_a.study_id == study.id, _a.id.in_(ids)).values(outcome=None))

        if ids:
            write(self._database, work)

    def withdraw(self, name: str) -> None:
        def work(connection: Connection, _: Earlier[None] | None) -> None:
            study = leases.locked(connection, name)
            gone = update(offers).where(_o.study_id == study.id, _WAITING)
            connection.execute(gone.values(state=State.TOLD.value, body=""))

        if any(self.waiting(name)):
            write(self._database, work)


def _free(now: Any) -> ColumnElement[bool]:
    return or_(_o.state == State.OPEN.value, and_(_o.state == State.LEASED.value, _o.until <= now))


def _find(connection: Connection, study: int, number: int, split: Split) -> Any:
    query = select(offers).where(_o.study_id == study, _o.number == number, _o.split == split.value)
    return connection.execute(query).one_or_none()


def _untaken(connection: Connection, offer: int) -> bool:
    query = select(_a.id).where(_a.offer_id == offer, _a.outcome.is_not(None)).limit(1)
    return connection.execute(query).one_or_none() is not None


def _needed(connection: Connection, name: str, study: int, number: int, split: Split) -> Any:
    row = _find(connection, study, number, split)
    if row is None:
        raise no_offer(name, number, split)
    return row


def _offer(row: Any) -> Offer:
    holders = tuple(json.loads(row.holders))
    times = (row.offered, row.leased, row.until, row.seconds)
    return Offer(row.number, Split(row.split), row.body, row.key, State(row.state), holders, *times)


def _answer(key: int, number: int, split: str, outcome: str, holder: str, attempt: int, *times: float) -> Answer:
    return Answer(key, number, Split(split), outcome_from(outcome), holder, attempt, *times)
