"""The log in SQL: reading what came after a number, and per-example values. Runs inside the caller's transaction."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, or_, select

from mergesearch.store.log import CANDIDATE, STORED, TIMING, candidate_from, of_study, timing_from
from mergesearch.store.schema import arrays, candidates, evaluations, scores
from mergesearch.store.values import array_from, number_from
from mergesearch.types import Asked, Event, Failed, Outcome, Score, Scored, Split, Told, Vector

Scores: TypeAlias = dict[str, Score]
Metrics: TypeAlias = dict[str, dict[str, Score]]

LAST: Final = 2**31 - 1  # the greatest number that a log can have
_e, _c, _s = evaluations.c, candidates.c, scores.c
_was_asked = _e.asked_seq.between(bindparam("b_first"), bindparam("b_last"))
_was_told = _e.told_seq.between(bindparam("b_first"), bindparam("b_last"))
_is_new = or_(_was_asked, _was_told)
_NEW_EVALUATIONS = select(
    _e.id, _e.candidate_id, _e.split, _e.status, _e.asked_seq, _e.told_seq, _e.kind, _e.message,
    _e.worker, *TIMING,
).where(of_study, _is_new)  # fmt: skip
_NEW_CANDIDATES = select(_c.id, *CANDIDATE).where(_c.id.in_(select(_e.candidate_id).where(of_study, _is_new)))
_NEW_SCORES = (
    select(_s.evaluation_id, _s.objective, _s.metric, _s.value, _s.stderr, _s.n)
    .where(_s.evaluation_id.in_(select(_e.id).where(of_study, _was_told)))
    .order_by(_s.evaluation_id, _s.position)
)
_NEW_GRADIENTS = select(
    arrays.c.evaluation_id, arrays.c.objective, arrays.c.dtype, arrays.c.shape, arrays.c.data
).where(
    arrays.c.kind == "gradient",
    arrays.c.evaluation_id.in_(select(_e.id).where(of_study, _was_told)),
)
_TIMES = select(_c.number, _e.split, _e.asked, _e.told).join(evaluations, _e.candidate_id == _c.id).where(of_study)
_EXAMPLES = (
    select(arrays.c.objective, arrays.c.dtype, arrays.c.shape, arrays.c.data)
    .join(evaluations, _e.id == arrays.c.evaluation_id)
    .where(of_study, _e.candidate_id == STORED.with_only_columns(_c.id).scalar_subquery())
    .where(_e.split == bindparam("b_split"))
    .where(arrays.c.kind == "examples")
)


def read_events(connection: Connection, study_id: int, after: int, last: int = LAST) -> Sequence[Event]:
    """The log of the study behind `after`, up to `last`, in order, without per-example arrays. Four queries."""
    bound = {"b_study": study_id, "b_first": after + 1, "b_last": last}
    rows = connection.execute(_NEW_EVALUATIONS, bound).all()
    if not rows:
        return []
    found = {key: candidate_from(*columns) for key, *columns in connection.execute(_NEW_CANDIDATES, bound)}
    own, metrics = _read_scores(connection, bound)
    gradients: dict[int, dict[str, Vector]] = defaultdict(dict)
    for key, objective, *fields in connection.execute(_NEW_GRADIENTS, bound):
        gradients[key][objective] = array_from(*fields)
    events: list[Event] = []
    for key, candidate_id, split, status, asked_seq, told_seq, kind, message, worker, *timings in rows:
        candidate = found[candidate_id]
        if after < asked_seq <= last:
            events.append(Asked(asked_seq, candidate, Split(split)))
        if told_seq is not None and after < told_seq <= last:
            timing = timing_from(timings)
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


def read_times(connection: Connection, study_id: int) -> Mapping[tuple[int, Split], tuple[float, float | None]]:
    """(candidate, split) -> when it was asked and told."""
    rows = connection.execute(_TIMES, {"b_study": study_id})
    return {(number, Split(split)): (asked, told) for number, split, asked, told in rows}


def read_examples(
    connection: Connection, study_id: int, number: int, split: Split
) -> Mapping[str, NDArray[np.float32]]:
    """Per-example values of one evaluation: objective -> (n,)."""
    bound = {"b_study": study_id, "b_number": number, "b_split": split.value}
    found = {name: array_from(*fields) for name, *fields in connection.execute(_EXAMPLES, bound)}
    return dict(sorted(found.items()))
