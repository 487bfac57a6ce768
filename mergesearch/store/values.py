"""How values are kept: points and arrays as little-endian bytes, facts as JSON, texts that every database takes."""

import json
import math
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import SpecError, StoreError
from mergesearch.plugins import did_you_mean
from mergesearch.types import Failed, Outcome, Score, Scored, Timing, Vector, frozen_array

CACHE = "cache"  # the worker of an outcome that was not computed again
ACTIONS = ("pause", "resume", "cancel")


def point_bytes(point: Vector | None) -> bytes | None:
    """A point (D,) as 8 D bytes, float64 little-endian; None for a baseline."""
    return None if point is None else np.ascontiguousarray(point, dtype="<f8").tobytes()


def point_from(data: bytes | None) -> Vector | None:
    """Inverse of `point_bytes`, bit for bit."""
    return None if data is None else np.frombuffer(data, dtype="<f8").astype(np.float64, copy=False)


def array_fields(values: NDArray[Any], dtype: str = "<f4") -> dict[str, object]:
    """The columns dtype, shape and data that hold `values`, any shape, as little-endian float32 or another `dtype`."""
    array = np.ascontiguousarray(values, dtype=dtype)
    return {"dtype": array.dtype.str, "shape": json.dumps(list(np.shape(values))), "data": array.tobytes()}


def array_from(dtype: str, shape: str, data: bytes) -> NDArray[Any]:
    """Inverse of `array_fields`, bit for bit: a read-only array of this machine's byte order."""
    stored = np.dtype(dtype)
    array = np.frombuffer(data, dtype=stored).reshape(json.loads(shape)).astype(stored.newbyteorder("="), copy=False)
    array.setflags(write=False)
    return array


def number_or_null(value: float) -> float | None:
    """A plain float; None for NaN."""
    return None if math.isnan(value) else float(value)


def number_from(value: float | None) -> float:
    """Inverse of `number_or_null`."""
    return math.nan if value is None else value


def clean_text(text: str) -> str:
    """`text` without NUL and lone surrogates, which databases refuse: an odd message must not lose an evaluation."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")


def without_examples(outcome: Outcome) -> Outcome:
    """An independent copy of what the log hands out: cleaned texts, gradients, no per-example arrays."""
    timing = Timing(*map(float, astuple(outcome.timing)))
    worker = clean_text(outcome.worker)
    if isinstance(outcome, Failed):
        return Failed(clean_text(outcome.kind), clean_text(outcome.message), timing, worker)
    metrics = {objective: dict(named) for objective, named in outcome.metrics.items() if named}
    gradients = {objective: frozen_array(values) for objective, values in sorted(outcome.gradients.items())}
    return Scored(dict(outcome.scores), metrics, {}, gradients, timing, worker)


def repeated(outcome: Outcome) -> Outcome:
    """What is kept of an outcome that came after another: its scores or its message, neither metrics nor arrays."""
    kept = without_examples(outcome)
    return Scored(kept.scores, timing=kept.timing, worker=kept.worker) if isinstance(kept, Scored) else kept


def same_scores(one: Outcome, other: Outcome) -> bool:
    """Whether the objectives' own scores are equal, to the last bit; a failure has none."""
    return plain_scores(one) == plain_scores(other)


def plain_scores(outcome: Outcome) -> dict[str, tuple[float | None, float | None, int]]:
    """The objectives' own scores as values that compare, NaN as None; none of a failure."""
    scores: Mapping[str, Score] = outcome.scores if isinstance(outcome, Scored) else {}
    return {name: (number_or_null(s.value), number_or_null(s.stderr), int(s.n)) for name, s in scores.items()}


def facts_json(facts: Mapping[str, object]) -> dict[str, str]:
    """Each value as JSON text.

    Raises:
        StoreError: a value is not made of JSON's types.
    """
    texts = {}
    for key, value in facts.items():
        try:
            texts[key] = json.dumps(value)
        except (TypeError, ValueError) as error:
            raise StoreError(
                f"fact {key!r} cannot be kept as JSON: {error}; pass plain numbers, texts, lists"
            ) from None
    return texts


def check_action(action: str) -> None:
    """Raises SpecError unless `action` is one that controllers obey."""
    if action not in ACTIONS:
        raise SpecError(f"command {action!r} is unknown{did_you_mean(action, ACTIONS)}")
