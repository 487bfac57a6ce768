"""Offers in this process's memory, beside `store/memory.py`."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

from mergesearch.store.offer_values import (
    check_renewable,
    checked_attempt,
    no_offer,
    outcome_digest,
    outcome_from,
    outcome_text,
)
from mergesearch.store.offering import Answer, Offer, Receipt, State
from mergesearch.store.values import clean_text
from mergesearch.types import Outcome, Split


@dataclass
class StudyOffers:
    """One study's. `digests`: of the answers to each offer, in the order they came."""

    offers: dict[tuple[int, Split], Offer] = field(default_factory=dict)
    digests: dict[tuple[int, Split], list[str]] = field(default_factory=dict)
    answers: dict[int, Answer] = field(default_factory=dict)


@final
class MemoryOffers:
    """OfferStore; see `store/offering.py` for the contract. `of` gives a study's, or raises StudyNotFound."""

    def __init__(self, of: Callable[[str], StudyOffers], lock: threading.RLock) -> None:
        self._of, self._lock = of, lock
        self._answers = 0

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
        with self._lock:
            study, place = self._of(name), (number, split)
            found = study.offers.get(place)
            untaken = any((answer.number, answer.split) == place for answer in study.answers.values())
            if found is not None and (found.state is not State.TOLD or untaken):
                return found
            study.digests.pop(place, None)
            made = study.offers[place] = Offer(number, split, body, key, offered=_moment(now), seconds=seconds)
            return made

    def waiting(self, name: str) -> Sequence[Offer]:
        with self._lock:
            return [offer for offer in self._of(name).offers.values() if offer.state is not State.TOLD]

    def counts(self, name: str) -> Mapping[State, int]:
        with self._lock:
            states = [offer.state for offer in self._of(name).offers.values()]
            return {state: states.count(state) for state in State}

    def free(self, name: str, now: float | None = None) -> bool:
        with self._lock:
            return any(_free(offer, _moment(now)) for offer in self._of(name).offers.values())

    def lease(
        self, name: str, holder: str, count: int, seconds: float | None = None, now: float | None = None
    ) -> Sequence[Offer]:
        with self._lock:
            study, at = self._of(name), _moment(now)
            made: list[Offer] = []
            for key, offer in study.offers.items():
                if len(made) < count and _free(offer, at):
                    holders = (*offer.holders, clean_text(holder))
                    leased = replace(
                        offer, state=State.LEASED, holders=holders, leased=at, until=at + _length(offer, seconds)
                    )
                    study.offers[key] = leased
                    made.append(leased)
            return made

    def renew(
        self, name: str, number: int, split: Split, token: str, seconds: float | None = None, now: float | None = None
    ) -> Offer:
        with self._lock:
            study, offer = self._find(name, number, split)
            check_renewable(name, offer, offer.state is State.TOLD, token)
            study.offers[number, split] = replace(offer, until=_moment(now) + _length(offer, seconds))
            return study.offers[number, split]

    def tell(
        self, name: str, number: int, split: Split, token: str, outcome: Outcome, now: float | None = None
    ) -> Receipt:
        digest, kept = outcome_digest(outcome), outcome_from(outcome_text(outcome))
        with self._lock:
            study, offer = self._find(name, number, split)
            attempt = checked_attempt(name, offer, token)
            before = study.digests.setdefault((number, split), [])
            if digest in before:
                return Receipt.AGAIN if before[0] == digest else Receipt.OTHER
            before.append(digest)
            self._answers += 1
            times = (offer.offered, offer.leased, _moment(now))
            study.answers[self._answers] = Answer(
                self._answers, number, split, kept, offer.holders[attempt - 1], attempt, *times
            )
            study.offers[number, split] = replace(offer, state=State.TOLD, body="")
            return Receipt.OTHER if len(before) > 1 else Receipt.FIRST

    def answers(self, name: str) -> Sequence[Answer]:
        with self._lock:
            return list(self._of(name).answers.values())

    def take(self, name: str, answers: Sequence[Answer]) -> None:
        with self._lock:
            for answer in answers:
                self._of(name).answers.pop(answer.id, None)

    def withdraw(self, name: str) -> None:
        with self._lock:
            offers = self._of(name).offers
            offers.update({k: replace(o, state=State.TOLD, body="") for k, o in offers.items()})

    def _find(self, name: str, number: int, split: Split) -> tuple[StudyOffers, Offer]:
        study = self._of(name)
        if (number, split) not in study.offers:
            raise no_offer(name, number, split)
        return study, study.offers[number, split]


def _moment(now: float | None) -> float:
    return time.time() if now is None else float(now)


def _length(offer: Offer, seconds: float | None) -> float:
    return offer.seconds if seconds is None else seconds


def _free(offer: Offer, now: float) -> bool:
    return offer.state is State.OPEN or (offer.state is State.LEASED and offer.until <= now)
