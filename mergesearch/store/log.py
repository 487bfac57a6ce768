"""The log in SQL: writing one ask or tell, reading what came after a number. Runs inside the caller's transaction."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from mergesearch.store import refusals
from mergesearch.store.schema import arrays, candidates, evaluations, scores
from mergesearch.store.values import (
    array_fields,
    array_from,
    number_from,
    number_or_null,
    point_bytes,
    point_from,
    without_examples,
)
from mergesearch.types import (
    Asked,
    Candidate,
    Event,
    Failed,
    Outcome,
    Request,
    Score,
    Scored,
    Split,
    Timing,
    Told,
    Vector,
)

Scores: TypeAlias = dict[str, Score]
Metrics: TypeAlias = dict[str, dict[str, Score]]

# Built once: an ask and a tell take a few milliseconds, which building statements would double.
_e, _c = evaluations.c, candidates.c
_of_study = _e.study_id == bindparam("b_study")
_CANDIDATE = (_c.number, _c.point, _c.origin, _c.share, _c.offset, _c.gradient, _c.continues, _c.cost)
_STORED = select(_c.id, *_CANDIDATE).where(_c.study_id == bindparam("b_study"), _c.number == bindparam("b_number"))
_TOLD_COLUMNS = (
    *("status", "told_seq", "told", "kind", "message", "worker"),
    *("queue_seconds", "build_seconds", "score_seconds"),
)
_TELL = (
    update(evaluations)
    .where(_of_study, _e.candidate_id == bindparam("b_candidate"), _e.split == bindparam("b_split"))
    .where(_e.status == "asked")
    .values({name: bindparam(f"v_{name}") for name in _TOLD_COLUMNS})
    .returning(_e.id)
)
_IS_ASKED = select(_e.id).where(
    _of_study, _e.candidate_id == bindparam("b_candidate"), _e.split == bindparam("b_split")
)
_is_new = or_(_e.asked_seq > bindparam("b_after"), _e.told_seq > bindparam("b_after"))
_NEW_EVALUATIONS = select(
    _e.id, _e.candidate_id, _e.split, _e.status, _e.asked_seq, _e.told_seq, _e.kind, _e.message,
    _e.queue_seconds, _e.build_seconds, _e.score_seconds, _e.worker,
).where(_of_study, _is_new)  # fmt: skip
_NEW_CANDIDATES = select(_c.id, *_CANDIDATE).where(_c.id.in_(select(_e.candidate_id).where(_of_study, _is_new)))
_s = scores.c
_NEW_SCORES = (
    select(_s.evaluation_id, _s.objective, _s.metric, _s.value, _s.stderr, _s.n)
    .where(_s.evaluation_id.in_(select(_e.id).where(_of_study, _e.told_seq > bindparam("b_after"))))
    .order_by(_s.evaluation_id, _s.position)
)
_NEW_GRADIENTS = select(
    arrays.c.evaluation_id, arrays.c.objective, arrays.c.dtype, arrays.c.shape, arrays.c.data
).where(
    arrays.c.kind == "gradient",
    arrays.c.evaluation_id.in_(select(_e.id).where(_of_study, _e.told_seq > bindparam("b_after"))),
)
_EXAMPLES = (
    select(arrays.c.objective, arrays.c.dtype, arrays.c.shape, arrays.c.data)
    .join(evaluations, _e.id == arrays.c.evaluation_id)
    .where(_of_study, _e.candidate_id == _STORED.with_only_columns(_c.id).scalar_subquery())
    .where(_e.split == bindparam("b_split"))
    .where(arrays.c.kind == "examples")
    .order_by(arrays.c.objective)
)


def write_ask(
    connection: Connection, study: tuple[int, str], seq: int, candidate: Candidate, split: Split, now: float
) -> Asked:
    """Record the ask numbered `seq` in `study` (id, name). Raises StoreError if it was asked before."""
    key, name = study
    found = connection.execute(_STORED, {"b_study": key, "b_number": int(candidate.number)}).one_or_none()
    point = point_bytes(candidate.point)
    if found is None:
        row = {"study_id": key, "number": int(candidate.number), "point": point, **_asked_columns(candidate)}
        candidate_id = connection.execute(insert(candidates).returning(_c.id), row).scalar_one()
    elif found.point != point:
        raise refusals.other_point(name, candidate.number)
    else:
        candidate_id, candidate = found.id, _candidate(*found[1:])
    entry: dict[str, object] = {"study_id": key, "candidate_id": candidate_id, "split": split.value}
    entry |= {"status": "asked", "asked_seq": seq, "asked": now}
    try:
        connection.execute(insert(evaluations), entry)
    except IntegrityError:
        raise refusals.asked_before(name, candidate.number, split) from None
    return Asked(seq, candidate, split)


def write_tell(
    connection: Connection, study: tuple[int, str], seq: int, number: int, split: Split, outcome: Outcome, now: float
) -> Told | None:
    """Record the tell numbered `seq` in `study` (id, name); None, and nothing written, if it was told before."""
    key, name = study
    found = connection.execute(_STORED, {"b_study": key, "b_number": int(number)}).one_or_none()
    if found is None:
        raise refusals.never_asked(name, number, split)
    bound = {"b_study": key, "b_candidate": found.id, "b_split": split.value}
    kept = without_examples(outcome)
    evaluation = connection.execute(_TELL, {**bound, **_told_columns(kept, seq, now)}).scalar_one_or_none()
    if evaluation is None:
        if connection.execute(_IS_ASKED, bound).one_or_none() is None:
            raise refusals.never_asked(name, number, split)
        return None
    if isinstance(kept, Scored) and (rows := list(_score_rows(evaluation, kept))):
        connection.execute(insert(scores), rows)
    if isinstance(outcome, Scored) and (rows := list(_array_rows(evaluation, outcome))):  # `kept` has no examples
        connection.execute(insert(arrays), rows)
    return Told(seq, _candidate(*found[1:]), split, kept)


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


def _candidate(
    number: int,
    point: bytes | None,
    origin: str,
    share: float,
    offset: float,
    gradient: str,
    continues: int | None,
    cost: float,
) -> Candidate:
    """A candidate from its columns."""
    return Candidate(number, point_from(point), origin, Request(share, offset, gradient, continues), cost)


def _array_rows(evaluation: int, outcome: Scored) -> Iterator[dict[str, Any]]:
    for kind, dtype, named in (("examples", "<f4", outcome.examples), ("gradient", "<f8", outcome.gradients)):
        for objective, values in named.items():
            head = {"evaluation_id": evaluation, "kind": kind, "objective": objective}
            yield {**head, **array_fields(values, dtype)}


def _told_columns(outcome: Outcome, seq: int, now: float) -> dict[str, object]:
    failed = isinstance(outcome, Failed)
    return {
        "v_status": "failed" if failed else "scored",
        "v_told_seq": seq,
        "v_told": now,
        "v_kind": outcome.kind if isinstance(outcome, Failed) else None,
        "v_message": outcome.message if isinstance(outcome, Failed) else None,
        "v_worker": outcome.worker,
        "v_queue_seconds": outcome.timing.queue,
        "v_build_seconds": outcome.timing.build,
        "v_score_seconds": outcome.timing.score,
    }


def _score_rows(evaluation: int, outcome: Scored) -> Iterator[dict[str, Any]]:
    """The objectives' own scores first, then every metric, in the order given."""
    named = [(objective, "", score) for objective, score in outcome.scores.items()]
    named += [(objective, metric, score) for objective, m in outcome.metrics.items() for metric, score in m.items()]
    for position, (objective, metric, score) in enumerate(named):
        yield {
            "evaluation_id": evaluation,
            "position": position,
            "objective": objective,
            "metric": metric,
            "is_objective": position < len(outcome.scores),
            "value": number_or_null(score.value),
            "stderr": number_or_null(score.stderr),
            "n": int(score.n),
        }


def read_events(connection: Connection, study_id: int, after: int) -> Sequence[Event]:
    """The log of the study from `seq > after` on, in order, without per-example arrays. Four queries."""
    bound = {"b_study": study_id, "b_after": after}
    rows = connection.execute(_NEW_EVALUATIONS, bound).all()
    if not rows:
        return []
    found = {key: _candidate(*columns) for key, *columns in connection.execute(_NEW_CANDIDATES, bound)}
    own, metrics = _read_scores(connection, bound)
    gradients: dict[int, dict[str, Vector]] = defaultdict(dict)
    for key, objective, *fields in connection.execute(_NEW_GRADIENTS, bound):
        gradients[key][objective] = array_from(*fields)
    events: list[Event] = []
    for key, candidate_id, split, status, asked_seq, told_seq, kind, message, queue, build, score, worker in rows:
        candidate = found[candidate_id]
        if asked_seq > after:
            events.append(Asked(asked_seq, candidate, Split(split)))
        if status != "asked":
            timing = Timing(queue, build, score)
            outcome: Outcome = Failed(kind, message, timing, worker)
            if status == "scored":
                outcome = Scored(own.get(key, {}), metrics.get(key, {}), {}, gradients.get(key, {}), timing, worker)
            events.append(Told(told_seq, candidate, Split(split), outcome))
    events.sort(key=lambda event: event.seq)
    return events


def _read_scores(connection: Connection, bound: Mapping[str, int]) -> tuple[dict[int, Scores], dict[int, Metrics]]:
    """Evaluation id -> the objectives' own scores, and -> all metrics."""
    own: dict[int, Scores] = defaultdict(dict)
    metrics: dict[int, Metrics] = defaultdict(dict)
    # In chunks, so that rows and scores are not all alive at once: a long log's time would go to garbage collection.
    for rows in connection.execute(_NEW_SCORES, bound).partitions(1000):
        for key, objective, metric, value, stderr, n in rows:
            score = Score(number_from(value), number_from(stderr), n)
            if metric:
                metrics[key].setdefault(objective, {})[metric] = score
            else:
                own[key][objective] = score
    return own, metrics


def read_examples(
    connection: Connection, study_id: int, number: int, split: Split
) -> Mapping[str, NDArray[np.float32]]:
    """Per-example values of one evaluation: objective -> (n,)."""
    bound = {"b_study": study_id, "b_number": number, "b_split": split.value}
    return {name: array_from(*fields) for name, *fields in connection.execute(_EXAMPLES, bound)}
