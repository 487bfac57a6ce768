"""Whether a controller works on a study: who holds its lease, and whether that process still lives."""

from dataclasses import dataclass

from mergesearch.controller.owner import is_dead
from mergesearch.store.base import StudyRecord


@dataclass(frozen=True)
class Holder:
    """Who holds a study's lease. `where` is 'host:pid'; `alive` while its lease runs and its process was not seen
    dead (only its own machine can see that)."""

    where: str
    until: float
    alive: bool


def holder(record: StudyRecord, now: float) -> Holder | None:
    """The holder of a study's lease; None if it was released."""
    if not record.owner:
        return None
    where = ":".join(record.owner.split(":")[:-2]) or record.owner
    return Holder(where, record.until, record.until > now and not is_dead(record.owner))
