"""What a study store is: an ordered log of what was asked and what was told, and the lease of the one who writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mergesearch.store.offering import OfferStore
from mergesearch.types import Asked, Candidate, Event, Outcome, Scored, Split, Status, Told


@dataclass(frozen=True)
class StudyRecord:
    """One study as the store knows it.

    `spec` is the study file's text, `digest` that of what decides its results. `created` and `updated` are seconds
    since the epoch, UTC. `seconds` is the time controllers have spent running it. `message` says why it stopped.
    `owner` holds its lease until `until`, or did when its process died; '' and 0.0 once the lease was released.
    """

    name: str
    spec: str
    digest: str
    status: Status
    created: float
    updated: float
    seconds: float = 0.0
    message: str = ""
    owner: str = ""
    until: float = 0.0


@dataclass(frozen=True)
class Lease:
    """The right to write a study until `until` (seconds since the epoch). `token` grows with every new holder: a
    write with an older token is refused, so a controller that slept through its lease cannot spoil the log."""

    study: str
    owner: str
    token: int
    until: float


@dataclass(frozen=True)
class Command:
    """A person's wish for a study: 'pause', 'resume' or 'cancel'. The controller obeys and marks it done."""

    id: int
    action: str
    created: float


@dataclass(frozen=True)
class Artifact:
    """A file or folder that was made from a study, with the candidate it holds and its SHA-256."""

    candidate: int
    kind: str
    path: str
    sha256: str
    created: float


@dataclass(frozen=True, eq=False)
class Repeat:
    """A further outcome of an evaluation that was told before, with other scores: a worker that was believed lost and
    came back late, a result that does not repeat. `told` is when it came; its outcome has scores, no metrics."""

    number: int
    split: Split
    outcome: Outcome
    told: float


class StudyStore(Protocol):
    """Keeps studies. Every method may be called from any process; each is one transaction, durable when it returns.

    Writes take a lease and raise LeaseError when it is not, or no longer, the study's. Reads need none. `now` is in
    seconds since the epoch; None, as everywhere but in tests, is the database's own clock, so that machines whose
    clocks differ agree on who holds a lease. Raises StoreError with one sentence for anything the database refuses (a
    full disk, a locked file), StudyNotFound for an unknown name.

    A database that goes away for a while is waited for, up to the `timeout` of its URL: a write is then made once,
    whether or not the one that broke off had arrived.
    """

    @property
    def offers(self) -> OfferStore:
        """The evaluations of its studies that are made outside."""
        ...

    def create(
        self, name: str, spec: str, digest: str, now: float | None = None, facts: Mapping[str, object] | None = None
    ) -> StudyRecord:
        """A new study with status NEW and its first facts (see `set_facts`). Raises StoreError if the name is taken."""
        ...

    def study(self, name: str) -> StudyRecord: ...

    def studies(self) -> Sequence[StudyRecord]:
        """All studies, newest first."""
        ...

    def acquire(self, name: str, owner: str, seconds: float, now: float | None = None, replacing: str = "") -> Lease:
        """Take the lease. Raises LeaseError that names the holder while another's lease runs, unless the holder is
        exactly `replacing`, an owner that the caller has seen dead."""
        ...

    def renew(self, lease: Lease, seconds: float, now: float | None = None) -> Lease:
        """Prolong; adds the time since the last renewal to the study's `seconds`."""
        ...

    def release(self, lease: Lease, now: float | None = None) -> None:
        """Give the lease back. A lease that is gone already is no error."""
        ...

    def set_status(self, lease: Lease, status: Status, message: str, now: float | None = None) -> None: ...

    def set_facts(self, lease: Lease, facts: Mapping[str, object]) -> None:
        """Keep JSON values under the study (surrogate R², the chosen candidate); the same key is replaced."""
        ...

    def facts(self, name: str) -> Mapping[str, object]: ...

    def ask(self, lease: Lease, candidate: Candidate, split: Split, now: float | None = None) -> Asked:
        """Record that a candidate is to be evaluated, before it is submitted. Candidate rows are written on their
        first split. Raises StoreError if this (candidate, split) was asked before."""
        ...

    def tell(
        self,
        lease: Lease,
        number: int,
        split: Split,
        outcome: Outcome,
        now: float | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> Told | None:
        """Record how it ended, with scores and per-example arrays. `digests`: objective -> what its score is known by
        in every study of this store, see `cached`.

        None if it was told before. The log stays as it was; where the objectives' scores differ from those it holds,
        the outcome is kept beside it as a `Repeat`.
        """
        ...

    def repeats(self, name: str) -> Sequence[Repeat]:
        """The further outcomes of evaluations that had been told, in the order they came."""
        ...

    def cached(self, digests: Mapping[str, str]) -> Scored | None:
        """What any study of this store has scored under the digest of each objective: its score, metrics, per-example
        values and gradient, under the names of `digests`. None unless all of them are there. The earliest one of each
        digest; `timing` is that of an evaluation that took no time, `worker` is 'cache'."""
        ...

    def remove(self, name: str) -> None:
        """Delete a study and all that is its own. Raises LeaseError while a controller holds it."""
        ...

    def compact(self) -> tuple[int, int]:
        """Give the space of what was deleted back to the disk: bytes of the database before and after."""
        ...

    def events(self, name: str, after: int = 0, limit: int | None = None) -> Sequence[Event]:
        """The log from `seq > after` on, in order, at most `limit` entries of it. Outcomes come without their
        per-example arrays."""
        ...

    def examples(self, name: str, number: int, split: Split) -> Mapping[str, NDArray[np.float32]]:
        """Per-example values of one evaluation: objective -> (n,). Empty where none were kept."""
        ...

    def command(self, name: str, action: str, now: float | None = None) -> Command:
        """Ask the study's controller for something."""
        ...

    def open_commands(self, name: str) -> Sequence[Command]: ...

    def finish_command(self, lease: Lease, command: Command, now: float | None = None) -> None: ...

    def add_artifact(self, name: str, artifact: Artifact) -> None: ...

    def artifacts(self, name: str) -> Sequence[Artifact]: ...

    def remove_artifact(self, name: str, artifact: Artifact) -> None:
        """Delete the record of an artifact; its files are not touched. One that is not there is no error."""
        ...

    def times(self, name: str) -> Mapping[tuple[int, Split], tuple[float, float | None]]:
        """(candidate, split) -> when it was asked and told, by the store's clock; None while it is open."""
        ...

    def clock(self) -> float:
        """What the store's own clock says now, seconds since the epoch: what leases are compared with."""
        ...

    def info(self) -> Mapping[str, object]:
        """What the database is: 'kind' ('SQLite 3.40.1'), 'schema' (its version), 'bytes' (its size)."""
        ...

    def close(self) -> None: ...
