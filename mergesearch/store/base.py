"""What a study store is: an ordered log of what was asked and what was told, and the lease of the one who writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mergesearch.types import Asked, Candidate, Event, Outcome, Split, Status, Told


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


class StudyStore(Protocol):
    """Keeps studies. Every method may be called from any process; each is one transaction, durable when it returns.

    Writes take a lease and raise LeaseError when it is not, or no longer, the study's. Reads need none. `now` is
    always passed in (seconds since the epoch). Raises StoreError with one sentence for anything the database refuses
    (a full disk, a locked file), StudyNotFound for an unknown name.
    """

    def create(
        self, name: str, spec: str, digest: str, now: float, facts: Mapping[str, object] | None = None
    ) -> StudyRecord:
        """A new study with status NEW and its first facts (see `set_facts`). Raises StoreError if the name is taken."""
        ...

    def study(self, name: str) -> StudyRecord: ...

    def studies(self) -> Sequence[StudyRecord]:
        """All studies, newest first."""
        ...

    def acquire(self, name: str, owner: str, seconds: float, now: float, replacing: str = "") -> Lease:
        """Take the lease. Raises LeaseError that names the holder while another's lease runs, unless the holder is
        exactly `replacing`, an owner that the caller has seen dead."""
        ...

    def renew(self, lease: Lease, seconds: float, now: float) -> Lease:
        """Prolong; adds the time since the last renewal to the study's `seconds`."""
        ...

    def release(self, lease: Lease, now: float) -> None:
        """Give the lease back. A lease that is gone already is no error."""
        ...

    def set_status(self, lease: Lease, status: Status, message: str, now: float) -> None: ...

    def set_facts(self, lease: Lease, facts: Mapping[str, object]) -> None:
        """Keep JSON values under the study (surrogate R², the chosen candidate); the same key is replaced."""
        ...

    def facts(self, name: str) -> Mapping[str, object]: ...

    def ask(self, lease: Lease, candidate: Candidate, split: Split, now: float) -> Asked:
        """Record that a candidate is to be evaluated, before it is submitted. Candidate rows are written on their
        first split. Raises StoreError if this (candidate, split) was asked before."""
        ...

    def tell(self, lease: Lease, number: int, split: Split, outcome: Outcome, now: float) -> Told | None:
        """Record how it ended, with scores and per-example arrays; None, and no change, if it was told before."""
        ...

    def events(self, name: str, after: int = 0) -> Sequence[Event]:
        """The log from `seq > after` on, in order. Outcomes come without their per-example arrays."""
        ...

    def examples(self, name: str, number: int, split: Split) -> Mapping[str, NDArray[np.float32]]:
        """Per-example values of one evaluation: objective -> (n,). Empty where none were kept."""
        ...

    def command(self, name: str, action: str, now: float) -> Command:
        """Ask the study's controller for something."""
        ...

    def open_commands(self, name: str) -> Sequence[Command]: ...

    def finish_command(self, lease: Lease, command: Command, now: float) -> None: ...

    def add_artifact(self, name: str, artifact: Artifact) -> None: ...

    def artifacts(self, name: str) -> Sequence[Artifact]: ...

    def close(self) -> None: ...
