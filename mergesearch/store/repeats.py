"""Further outcomes of evaluations that had been told, in SQL. Runs inside the caller's transaction."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from mergesearch.store import leases
from mergesearch.store.base import Lease, Repeat
from mergesearch.store.database import NOW, Earlier, moment
from mergesearch.store.log import TIMING, evaluation, outcome_columns, score_columns, timing_from
from mergesearch.store.schema import candidates, evaluations, repeat_scores, repeats, scores
from mergesearch.store.values import number_from, repeated, same_scores
from mergesearch.types import Failed, Outcome, Score, Scored, Split, Told

_r, _rs, _s = repeats.c, repeat_scores.c, scores.c
_SCORES = select(_s.objective, _s.value, _s.stderr, _s.n).where(
    _s.evaluation_id == bindparam("b_evaluation"), _s.is_objective
)
_ARRIVED = select(_r.id).where(_r.id == bindparam("b_id"), _r.evaluation_id == bindparam("b_evaluation"))
_OF_STUDY = (
    select(_r.id, candidates.c.number, evaluations.c.split, _r.told, _r.status, _r.kind, _r.message, _r.worker)
    .add_columns(*(_r[column.name] for column in TIMING))
    .join(evaluations, evaluations.c.id == _r.evaluation_id)
    .join(candidates, candidates.c.id == evaluations.c.candidate_id)
    .where(evaluations.c.study_id == bindparam("b_study"))
    .order_by(_r.id)
)
_OF_STUDY_SCORES = (
    select(_rs.repeat_id, _rs.objective, _rs.value, _rs.stderr, _rs.n)
    .join(repeats, _r.id == _rs.repeat_id)
    .join(evaluations, evaluations.c.id == _r.evaluation_id)
    .where(evaluations.c.study_id == bindparam("b_study"))
    .order_by(_rs.repeat_id, _rs.position)
)


def write_repeat(
    connection: Connection,
    lease: Lease,
    key: tuple[int, Split],
    outcome: Outcome,
    now: float | None,
    arrived: Told | None,
    earlier: Earlier[Told | int | None] | None,
) -> Told | int | None:
    """Keep an outcome of the evaluation `key` (number, split), told before, if its scores are others.

    Returns `arrived`, what an earlier attempt to tell it had answered, if that is what stands in the log; otherwise
    the id of the repeat, None where there is none. Raises LeaseError.
    """
    found = evaluation(connection, leases.hold(connection, lease), *key)
    assert found is not None, "what was told is not removed while its study's lease is held"
    evaluation_id, _, told_seq = found
    if arrived is not None and told_seq == arrived.seq:
        return arrived
    if earlier is not None and isinstance(earlier.result, int):
        bound = {"b_id": earlier.result, "b_evaluation": evaluation_id}
        if connection.execute(_ARRIVED, bound).one_or_none() is not None:
            return earlier.result
    stored = connection.execute(_SCORES, {"b_evaluation": evaluation_id})
    if same_scores(Scored({name: _score(*fields) for name, *fields in stored}), outcome):
        return None
    kept = repeated(outcome)
    at = connection.execute(select(NOW), moment(now)).scalar_one()
    row = {"evaluation_id": evaluation_id, **outcome_columns(kept, at)}
    repeat: int = connection.execute(insert(repeats).returning(_r.id), row).scalar_one()
    if isinstance(kept, Scored) and kept.scores:
        rows = [score_columns(name, position, score) for position, (name, score) in enumerate(kept.scores.items())]
        connection.execute(insert(repeat_scores), [{"repeat_id": repeat, **row} for row in rows])
    return repeat


def read_repeats(connection: Connection, study: int) -> list[Repeat]:
    """All repeats of a study, in the order they came."""
    bound = {"b_study": study}
    own: dict[int, dict[str, Score]] = defaultdict(dict)
    for repeat, objective, *fields in connection.execute(_OF_STUDY_SCORES, bound):
        own[repeat][objective] = _score(*fields)
    return [_repeat(own.get(row[0], {}), *row[1:]) for row in connection.execute(_OF_STUDY, bound)]


def _repeat(
    own: dict[str, Score], number: int, split: str, told: float, status: str, kind: str, message: str, *rest: Any
) -> Repeat:
    worker, *seconds = rest
    outcome: Outcome = Failed(kind, message) if status == "failed" else Scored(own)
    return Repeat(number, Split(split), replace(outcome, timing=timing_from(seconds), worker=worker), told)


def _score(value: float | None, stderr: float | None, n: int) -> Score:
    return Score(number_from(value), number_from(stderr), n)
