"""What a store says when it refuses: one sentence each, the same from every store."""

from collections.abc import Iterable
from datetime import UTC, datetime

from mergesearch.errors import LeaseError, StoreError, StudyNotFound
from mergesearch.plugins import did_you_mean
from mergesearch.store.base import Command, Lease
from mergesearch.types import Split


def unknown_study(name: str, names: Iterable[str]) -> StudyNotFound:
    """No study of that name."""
    return StudyNotFound(f"study {name!r} is not in this store{did_you_mean(name, names)}")


def name_taken(name: str) -> StoreError:
    """Names are unique within a store."""
    return StoreError(f"study {name!r} stands in this store already; resume it, or give the new study another name")


def held_by_other(name: str, owner: str, until: float, now: float) -> LeaseError:
    """Another controller's lease still runs."""
    moment = datetime.fromtimestamp(until, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return LeaseError(
        f"study {name!r} is being run by {owner} until {moment} ({max(0.0, until - now):.0f} s from now); "
        "stop that controller, or wait: a lease that is not renewed runs out by itself"
    )


def held_while_removed(name: str, owner: str, until: float, now: float) -> LeaseError:
    """A study that a controller works on is not taken from under it."""
    return LeaseError(
        f"study {name!r} is being run by {owner} and is not removed; stop that controller, or wait "
        f"{max(0.0, until - now):.0f} s: a lease that is not renewed runs out by itself"
    )


def lease_lost(lease: Lease, owner: str) -> LeaseError:
    """The lease was released or taken over; `owner` holds the study now ('' for nobody)."""
    holder = f"{owner} took it over" if owner else "it was released"
    return LeaseError(
        f"study {lease.study!r}: the lease of {lease.owner} (token {lease.token}) is gone, {holder}; "
        "nothing was written, stop this controller"
    )


def asked_before(study: str, number: int, split: Split) -> StoreError:
    """A (candidate, split) is asked once."""
    return StoreError(f"study {study!r}: candidate {number} was asked on split {split.value!r} before")


def never_asked(study: str, number: int, split: Split) -> StoreError:
    """Only what was asked can be told."""
    return StoreError(f"study {study!r}: candidate {number} was never asked on split {split.value!r}; ask it first")


def other_point(study: str, number: int) -> StoreError:
    """A candidate's point never changes."""
    return StoreError(f"study {study!r}: candidate {number} stands in the log with another point; use a new number")


def unknown_command(study: str, command: Command) -> StoreError:
    """A command that was never given to this study."""
    return StoreError(f"study {study!r} has no command {command.id}")
