"""Deleting a study from a SQL store. Runs inside the caller's transaction."""

from sqlalchemy import Connection, delete, select

from mergesearch.store import leases, refusals
from mergesearch.store.schema import (
    answers,
    arrays,
    artifacts,
    candidates,
    commands,
    evaluations,
    facts,
    offers,
    repeat_scores,
    repeats,
    scores,
    studies,
)


def remove(connection: Connection, name: str) -> None:
    """Delete a study and all that is its own. Raises StudyNotFound, and LeaseError while a controller holds it."""
    row = leases.locked(connection, name)
    if row.lease_owner and row.lease_until > row.moment:
        raise refusals.held_while_removed(name, row.lease_owner, row.lease_until, row.moment)
    own = select(evaluations.c.id).where(evaluations.c.study_id == row.id)
    further = select(repeats.c.id).where(repeats.c.evaluation_id.in_(own))
    connection.execute(delete(repeat_scores).where(repeat_scores.c.repeat_id.in_(further)))
    for table in (repeats, scores, arrays):
        connection.execute(delete(table).where(table.c.evaluation_id.in_(own)))
    for table in (answers, offers, evaluations, candidates, commands, artifacts, facts):
        connection.execute(delete(table).where(table.c.study_id == row.id))
    connection.execute(delete(studies).where(studies.c.id == row.id))
