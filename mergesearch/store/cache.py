"""What any study of a SQL store has scored, found by digest. Runs inside the caller's transaction."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, select

from mergesearch.store.schema import arrays, evaluations, scores
from mergesearch.store.values import CACHE, array_from, number_from
from mergesearch.types import Score, Scored, Vector

_s, _a = scores.c, arrays.c
_FOUND = (
    select(_s.digest, _s.evaluation_id, _s.objective, _s.value, _s.stderr, _s.n)
    .join(evaluations, evaluations.c.id == _s.evaluation_id)
    .where(_s.digest.in_(bindparam("b_digests", expanding=True)), _s.is_objective)
    .order_by(evaluations.c.told, evaluations.c.id)
)
_METRICS = (
    select(_s.metric, _s.value, _s.stderr, _s.n)
    .where(_s.evaluation_id == bindparam("b_evaluation"), _s.objective == bindparam("b_objective"))
    .where(~_s.is_objective)
    .order_by(_s.position)
)
_ARRAYS = select(_a.kind, _a.dtype, _a.shape, _a.data).where(
    _a.evaluation_id == bindparam("b_evaluation"), _a.objective == bindparam("b_objective")
)


def find(connection: Connection, digests: Mapping[str, str]) -> Scored | None:
    """The earliest score of each digest, under the names of `digests`; None unless all are there."""
    if not digests:
        return None
    earliest: dict[str, tuple[Any, ...]] = {}
    for digest, *row in connection.execute(_FOUND, {"b_digests": sorted(set(digests.values()))}):
        earliest.setdefault(digest, tuple(row))
    if len(earliest) < len(set(digests.values())):
        return None
    own: dict[str, Score] = {}
    metrics: dict[str, Mapping[str, Score]] = {}
    examples: dict[str, NDArray[np.float32]] = {}
    gradients: dict[str, Vector] = {}
    for name, digest in digests.items():
        evaluation, objective, *fields = earliest[digest]
        own[name] = _score(*fields)
        bound = {"b_evaluation": evaluation, "b_objective": objective}
        if found := {metric: _score(*rest) for metric, *rest in connection.execute(_METRICS, bound)}:
            metrics[name] = found
        for kind, *rest in connection.execute(_ARRAYS, bound):
            (examples if kind == "examples" else gradients)[name] = array_from(*rest)
    return Scored(own, metrics, examples, gradients, worker=CACHE)


def _score(value: float | None, stderr: float | None, n: int) -> Score:
    return Score(number_from(value), number_from(stderr), n)
