"""What of a store can be deleted: studies that were named or are long over, their controls, records of lost files."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mergesearch.errors import LeaseError, SpecError
from mergesearch.export.inside import Amount, amount
from mergesearch.plugins import did_you_mean
from mergesearch.store.base import Artifact, StudyRecord, StudyStore
from mergesearch.stored import read_stored
from mergesearch.types import Status

CONTROL: Final = "--"  # between a study's name and what its control is called
UNITS: Final = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@dataclass(frozen=True)
class Choice:
    """Which studies are to go: those of `names`, and those of `statuses` that have not changed for `seconds`."""

    names: tuple[str, ...] = ()
    statuses: frozenset[Status] = frozenset()
    seconds: float = 0.0


@dataclass(frozen=True)
class Doomed:
    """A study that is to go, and why: 'named', 'failed, unchanged for 31 d', 'control of …'."""

    record: StudyRecord
    why: str
    amount: Amount


@dataclass(frozen=True)
class Kept:
    """A study that was chosen, and stays: a controller holds it."""

    record: StudyRecord
    why: str


@dataclass(frozen=True)
class Plan:
    """What is to go. `bytes` is about what that takes in the database."""

    studies: tuple[Doomed, ...]
    kept: tuple[Kept, ...]
    artifacts: tuple[tuple[str, Artifact], ...]

    @property
    def bytes(self) -> int:
        """Of all the studies, about."""
        return sum(doomed.amount.bytes for doomed in self.studies)


def choice(names: Sequence[str], statuses: str | None, older_than: str | None) -> Choice:
    """What the options mean: `statuses` is 'failed,stopped', `older_than` '30d' (m, h, d or w).

    Raises:
        SpecError: an unknown status, an age that is none, or an age for no status.
    """
    known = [status.value for status in Status if status is not Status.RUNNING]
    wanted = [word.strip() for word in statuses.split(",")] if statuses else []
    for word in wanted:
        if word not in known:
            raise SpecError(f"--status {word!r} is unknown, or not one to delete{did_you_mean(word, known)}")
    if older_than and not wanted:
        raise SpecError("--older-than needs --status: say which studies, such as --status failed,stopped")
    return Choice(tuple(names), frozenset(map(Status, wanted)), age(older_than) if older_than else 0.0)


def age(text: str) -> float:
    """Seconds of '90m', '12h', '30d' or '2w'. Raises SpecError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text.strip())
    if found is None:
        raise SpecError(f"an age is a number with m, h, d or w behind it, such as 30d; got {text!r}")
    return float(found[1]) * UNITS[found[2]]


def plan(store: StudyStore, chosen: Choice, now: float) -> Plan:
    """What would go from `store`. `now`: seconds since the epoch.

    Besides the chosen studies: the controls of those, controls whose study is gone, and the records of artifacts
    whose files are gone. A study that a controller holds stays. Raises StudyNotFound for an unknown name.
    """
    records = {record.name: record for record in reversed(store.studies())}
    for name in chosen.names:
        store.study(name)  # raises with a hint
    why = dict.fromkeys(chosen.names, "named")
    for record in records.values():
        if record.status in chosen.statuses and now - record.updated >= chosen.seconds:
            why.setdefault(record.name, f"{record.status.value}, unchanged for {_days(now - record.updated)}")
    for name in records:
        parent, separator, _ = name.rpartition(CONTROL)
        if separator and parent not in records:
            why.setdefault(name, f"control of {parent!r}, which is gone")
        elif separator and parent in why and not _held(records[parent], now):
            why.setdefault(name, f"control of {parent!r}")
    held = {name: _held(records[name], now) for name in why}
    doomed = [
        Doomed(records[n], why[n], amount(read_stored(store, n), len(store.repeats(n)))) for n in why if not held[n]
    ]
    kept = [Kept(records[n], f"held by {records[n].owner}") for n in why if held[n]]
    return Plan(tuple(doomed), tuple(kept), tuple(_lost_files(store, [n for n in records if n not in why])))


def carry_out(store: StudyStore, planned: Plan) -> tuple[list[str], tuple[int, int]]:
    """Delete what is planned and give the space back. Returns the studies that went, and the bytes before and after.

    A study that a controller has taken since stays.
    """
    gone = []
    for doomed in planned.studies:
        try:
            store.remove(doomed.record.name)
        except LeaseError:
            continue
        gone.append(doomed.record.name)
    for name, artifact in planned.artifacts:
        store.remove_artifact(name, artifact)
    return gone, store.compact()


def _held(record: StudyRecord, now: float) -> bool:
    return record.owner != "" and record.until > now


def _lost_files(store: StudyStore, names: Collection[str]) -> list[tuple[str, Artifact]]:
    return [(name, a) for name in names for a in store.artifacts(name) if not Path(a.path).exists()]


def _days(seconds: float) -> str:
    return f"{seconds / UNITS['d']:.0f} d" if seconds >= UNITS["d"] else f"{seconds / UNITS['h']:.1f} h"
