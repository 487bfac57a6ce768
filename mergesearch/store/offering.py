"""Offers: evaluations that are made outside, by whoever asks the service for them. See `pool/external.py`.

An offer is an evaluation of the log that a controller waits for. Whoever scores it holds it under a lease of its own;
what comes back is an answer, which the controller takes and writes into the log as any other outcome.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mergesearch.types import Outcome, Split


class State(StrEnum):
    """Where an offer stands. TOLD: nobody need work on it any more."""

    OPEN = "open"
    LEASED = "leased"
    TOLD = "told"


class Receipt(StrEnum):
    """What became of an answer. AGAIN: equal to the first one, nothing was written. OTHER: it is not, and was kept
    beside it, once. Answers are equal if the objectives' own scores are, to the last bit; a failure has none."""

    FIRST = "first"
    AGAIN = "again"
    OTHER = "other"


@dataclass(frozen=True)
class Offer:
    """One evaluation to be made outside.

    `body` is what is to be evaluated, as text that the pool writes; '' once it was told. `key` is a secret of the
    offer, a part of its tokens. A lease of it runs for `seconds`. `holders` are the names of all who leased it, in
    their order. `offered`, `leased` (by the last of them) and `until` are seconds since the epoch by the store's
    clock, 0.0 where it was never leased.
    """

    number: int
    split: Split
    body: str
    key: str
    state: State = State.OPEN
    holders: tuple[str, ...] = ()
    offered: float = 0.0
    leased: float = 0.0
    until: float = 0.0
    seconds: float = 300.0

    @property
    def token(self) -> str:
        """What its present holder has to show."""
        return f"{self.key}.{len(self.holders)}"

    def attempt(self, token: str) -> int:
        """The so-many-th holder had `token`; 0 if none had."""
        key, _, count = token.rpartition(".")
        attempt = int(count) if count.isascii() and count.isdecimal() and len(count) < 10 else 0
        return attempt if key == self.key and 1 <= attempt <= len(self.holders) else 0


@dataclass(frozen=True, eq=False)
class Answer:
    """What was told of an offer by its `attempt`-th holder, who had leased it at `leased`. `id` grows with each."""

    id: int
    number: int
    split: Split
    outcome: Outcome
    holder: str
    attempt: int
    offered: float
    leased: float
    told: float


class OfferStore(Protocol):
    """The offers of a store's studies, kept with them and removed with them.

    Every method may be called from any process and is one transaction, durable when it returns. None takes the study's
    lease: nothing here is the study's log. `now` is as in `StudyStore`. Raises StoreError and StudyNotFound as that.
    """

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
        """Offer an evaluation that the log waits for.

        One that is there stands as it is: leased it stays leased; told it stays told while an answer waits to be
        taken. Told with nothing left to take (another pool worked on it meanwhile), it is offered anew.
        """
        ...

    def waiting(self, name: str) -> Sequence[Offer]:
        """All that were not told, in the order they were put."""
        ...

    def counts(self, name: str) -> Mapping[State, int]:
        """How many there are in each state; one whose lease ran out is still LEASED."""
        ...

    def free(self, name: str, now: float | None = None) -> bool:
        """Whether there is one to lease: open, or with a lease that ran out."""
        ...

    def lease(
        self, name: str, holder: str, count: int, seconds: float | None = None, now: float | None = None
    ) -> Sequence[Offer]:
        """Lease up to `count` that are free, the oldest first, for `seconds` (None: each offer's own); each then has
        one more holder, and a new token."""
        ...

    def renew(
        self, name: str, number: int, split: Split, token: str, seconds: float | None = None, now: float | None = None
    ) -> Offer:
        """Prolong its present holder's lease, also one that ran out. Raises LeaseError if it was told, or another
        leased it since; NotOffered if there is no such offer, or nobody ever had that token."""
        ...

    def tell(
        self, name: str, number: int, split: Split, token: str, outcome: Outcome, now: float | None = None
    ) -> Receipt:
        """Keep the answer of whoever had `token`, also when that lease ran out. Raises as `renew` does, but for
        LeaseError."""
        ...

    def answers(self, name: str) -> Sequence[Answer]:
        """Those that were not taken, in the order they came."""
        ...

    def take(self, name: str, answers: Sequence[Answer]) -> None:
        """Mark answers as taken, once what they say is in the log. Taken ones are no error."""
        ...

    def withdraw(self, name: str) -> None:
        """Offer nothing any more: what was not told counts as told, and an answer is still kept."""
        ...
