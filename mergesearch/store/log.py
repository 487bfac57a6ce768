"""The log in SQL: writing one ask or tell. Runs inside the caller's transaction; `store/reading.py` reads it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from mergesearch.store import leases, refusals
from mergesearch.store.base import Lease
from mergesearch.store.database import Earlier
from mergesearch.store.schema import arrays, candidates, evaluations, scores
from mergesearch.store.values import array_fields, number_or_null, point_bytes, point_from, without_examples
from mergesearch.types import Asked, Candidate, Failed, Outcome, Request, Score, Scored, Split, Timing, Told

# Built once: an ask and a tell take a few milliseconds, which building statements would double.
_e, _c = evaluations.c, candidates.c
of_study = _e.study_id == bindparam("b_study")
CANDIDATE = (_c.number, _c.point, _c.origin, _c.share, _c.offset, _c.gradient, _c.continues, _c.cost)
STORED = select(_c.id, *CANDIDATE).where(_c.study_id == bindparam("b_study"), _c.number == bindparam("b_number"))
TIMING = (_e.queue_seconds, _e.build_seconds, _e.score_seconds, _e.record_seconds, _e.gpu_seconds)
_OUTCOME = ("status", "told", "kind", "message", "worker", *(column.name for column in TIMING))
_TELL = (
    update(evaluations)
    .where(of_study, _e.candidate_id == bindparam("b_candidate"), _e.split == bindparam("b_split"))
    .where(_e.status == "asked")
    .values({name: bindparam(f"v_{name}") for name in (*_OUTCOME, "told_seq")})
    .returning(_e.id)
)
_EVALUATION = select(_e.id, _e.asked_seq, _e.told_seq).where(
    of_study, _e.candidate_id == STORED.with_only_columns(_c.id).scalar_subquery(), _e.split == bindparam("b_split")
)
_NEW_CANDIDATE = insert(candidates).returning(_c.id)
_NEW_ASK = insert(evaluations)


class ToldBefore(Exception):
    """The evaluation was told. `arrived`: what an attempt had answered whose commit broke off, which it may be."""

    def __init__(self, arrived: Told | None) -> None:
        self.arrived = arrived


def write_ask(
    connection: Connection,
    lease: Lease,
    candidate: Candidate,
    split: Split,
    now: float | None,
    earlier: Earlier[Asked] | None,
) -> Asked:
    """Record an ask. Raises LeaseError, and StoreError if it was asked before."""
    if earlier is not None:
        found = evaluation(connection, leases.hold(connection, lease), candidate.number, split)
        if found is not None and found[1] == earlier.result.seq:
            return earlier.result
    study, seq, moment = leases.advance(connection, lease, now)
    stored = connection.execute(STORED, {"b_study": study, "b_number": int(candidate.number)}).one_or_none()
    point = point_bytes(candidate.point)
    if stored is None:
        row = {"study_id": study, "number": int(candidate.number), "point": point, **_asked_columns(candidate)}
        candidate_id = connection.execute(_NEW_CANDIDATE, row).scalar_one()
    elif stored.point != point:
        raise refusals.other_point(lease.study, candidate.number)
    else:
        candidate_id, candidate = stored.id, candidate_from(*stored[1:])
    entry: dict[str, object] = {"study_id": study, "candidate_id": candidate_id, "split": split.value}
    entry |= {"status": "asked", "asked_seq": seq, "asked": moment}
    try:
        connection.execute(_NEW_ASK, entry)
    except IntegrityError:
        raise refusals.asked_before(lease.study, candidate.number, split) from None
    return Asked(seq, candidate, split)


def write_tell(
    connection: Connection,
    lease: Lease,
    key: tuple[int, Split],
    outcome: Outcome,
    digests: Mapping[str, str],
    now: float | None,
    earlier: Earlier[Told] | None,
) -> Told:
    """Record how the evaluation `key` (number, split) ended. Raises LeaseError, StoreError, ToldBefore."""
    number, split = key
    study, seq, moment = leases.advance(connection, lease, now)
    bound: dict[str, object] = {"b_study": study, "b_number": int(number), "b_split": split.value}
    stored = connection.execute(STORED, bound).one_or_none()
    if stored is None:
        raise refusals.never_asked(lease.study, number, split)
    kept = without_examples(outcome)
    told = {f"v_{name}": value for name, value in outcome_columns(kept, moment).items()}
    bound |= {"b_candidate": stored.id, "v_told_seq": seq, **told}
    evaluation_id = connection.execute(_TELL, bound).scalar_one_or_none()
    if evaluation_id is None:
        if evaluation(connection, study, number, split) is None:
            raise refusals.never_asked(lease.study, number, split)
        raise ToldBefore(None if earlier is None else earlier.result)
    if isinstance(kept, Scored) and (rows := list(_score_rows(evaluation_id, kept, digests))):
        connection.execute(insert(scores), rows)
    if isinstance(outcome, Scored) and (rows := list(_array_rows(evaluation_id, outcome))):  # `kept` has no examples
        connection.execute(insert(arrays), rows)
    return Told(seq, candidate_from(*stored[1:]), split, kept)


def evaluation(connection: Connection, study: int, number: int, split: Split) -> tuple[int, int, int | None] | None:
    """Id, asked_seq and told_seq of an evaluation; None if it was never asked."""
    bound = {"b_study": study, "b_number": int(number), "b_split": split.value}
    row = connection.execute(_EVALUATION, bound).one_or_none()
    return None if row is None else (row.id, row.asked_seq, row.told_seq)


def outcome_columns(outcome: Outcome, moment: float) -> dict[str, object]:
    """The columns of an outcome, its scores aside, in `evaluations` and `repeats`."""
    failed = outcome if isinstance(outcome, Failed) else None
    seconds = zip((column.name for column in TIMING), astuple(outcome.timing), strict=True)
    return {
        "status": "scored" if failed is None else "failed",
        "told": moment,
        "kind": None if failed is None else failed.kind,
        "message": None if failed is None else failed.message,
        "worker": outcome.worker,
        **dict(seconds),
    }


def timing_from(seconds: Sequence[float | None]) -> Timing:
    """The columns TIMING as a value; NULL, of a row that an earlier version wrote, is 0."""
    return Timing(*(value or 0.0 for value in seconds))


def candidate_from(
    number: int,
    point: bytes | None,
    origin: str,
    share: float,
    offset: float,
    gradient: str,
    continues: int | None,
    cost: float,
) -> Candidate:
    """A candidate from the columns CANDIDATE."""
    return Candidate(number, point_from(point), origin, Request(share, offset, gradient, continues), cost)


def score_columns(objective: str, position: int, score: Score) -> dict[str, object]:
    """The columns that `scores` and `repeat_scores` share."""
    return {
        "position": position,
        "objective": objective,
        "value": number_or_null(score.value),
        "stderr": number_or_null(score.stderr),
        "n": int(score.n),
    }


def _asked_columns(candidate: Candidate) -> dict[str, object]:
    request = candidate.request
    return {
        "origin": candidate.origin,
        "share": float(request.share),
        "offset": float(request.offset),
        "gradient": request.gradient,
        "continues": None if request.continues is None else int(request.continues),
        "cost": float(candidate.cost),
    }


def _array_rows(evaluation_id: int, outcome: Scored) -> Iterator[dict[str, Any]]:
    for kind, dtype, named in (("examples", "<f4", outcome.examples), ("gradient", "<f8", outcome.gradients)):
        for objective, values in named.items():
            head = {"evaluation_id": evaluation_id, "kind": kind, "objective": objective}
            yield {**head, **array_fields(values, dtype)}


def _score_rows(evaluation_id: int, outcome: Scored, digests: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The objectives' own scores first, then every metric, in the order given."""
    own = [(objective, "", score) for objective, score in outcome.scores.items()]
    metrics = [(objective, metric, score) for objective, m in outcome.metrics.items() for metric, score in m.items()]
    for position, (objective, metric, score) in enumerate(own + metrics):
        is_own = position < len(own)
        yield {
            "evaluation_id": evaluation_id,
            "metric": metric,
            "is_objective": is_own,
            "digest": digests.get(objective) if is_own else None,
            **score_columns(objective, position, score),
        }
