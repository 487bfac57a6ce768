"""How answers are kept: outcomes as JSON text, numbers bit for bit, and what two of them are equal by."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import numpy as np

from mergesearch.errors import LeaseError, NotOffered
from mergesearch.store.offering import Offer
from mergesearch.store.values import plain_scores, without_examples
from mergesearch.types import Failed, Outcome, Score, Scored, Split, Timing


def outcome_text(outcome: Outcome) -> str:
    """An outcome as JSON, its texts as every database takes them; arrays as little-endian bytes in base64, examples
    float32, gradients float64."""
    kept = without_examples(outcome)
    head: dict[str, Any] = {"timing": astuple(kept.timing), "worker": kept.worker}
    if isinstance(kept, Failed):
        return json.dumps({**head, "kind": kept.kind, "message": kept.message})
    assert isinstance(outcome, Scored)
    return json.dumps(
        {
            **head,
            "scores": {name: _numbers(score) for name, score in kept.scores.items()},
            "metrics": {o: {m: _numbers(s) for m, s in named.items()} for o, named in kept.metrics.items()},
            "examples": {name: _bytes(values, "<f4") for name, values in outcome.examples.items()},
            "gradients": {name: _bytes(values, "<f8") for name, values in kept.gradients.items()},
        }
    )


def outcome_from(text: str) -> Outcome:
    """Inverse of `outcome_text`."""
    body: dict[str, Any] = json.loads(text)
    timing, worker = Timing(*body["timing"]), body["worker"]
    if "kind" in body:
        return Failed(body["kind"], body["message"], timing, worker)
    return Scored(
        {name: Score(*fields) for name, fields in body["scores"].items()},
        {o: {m: Score(*fields) for m, fields in named.items()} for o, named in body["metrics"].items()},
        {name: _array(data, "<f4").astype(np.float32) for name, data in body["examples"].items()},
        {name: _array(data, "<f8").astype(np.float64) for name, data in body["gradients"].items()},
        timing,
        worker,
    )


def outcome_digest(outcome: Outcome) -> str:
    """SHA-256 of what makes answers equal: the objectives' own scores; '' in the place of a failure's."""
    if isinstance(outcome, Failed):
        return hashlib.sha256(b"failed").hexdigest()
    scores: Mapping[str, Any] = plain_scores(outcome)
    texts = {name: [None if x is None else float(x).hex() for x in fields] for name, fields in scores.items()}
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()


def no_offer(study: str, number: int, split: Split) -> NotOffered:
    """Nobody waits for that evaluation."""
    return NotOffered(
        f"study {study!r}: candidate {number} is not offered on split {split.value!r}; ask for work first"
    )


def checked_attempt(study: str, offer: Offer, token: str) -> int:
    """The so-many-th holder had `token`. Raises NotOffered if none had."""
    attempt = offer.attempt(token)
    if not attempt:
        where = f"candidate {offer.number} on split {offer.split.value!r}"
        raise NotOffered(f"study {study!r}: that token was never given out for {where}; send the one of the offer")
    return attempt


def check_renewable(study: str, offer: Offer, told: bool, token: str) -> None:
    """Raises LeaseError unless `token` is the present holder's of an offer that was not told; NotOffered as above."""
    attempt = checked_attempt(study, offer, token)
    where = f"study {study!r}: candidate {offer.number} on split {offer.split.value!r}"
    if told:
        raise LeaseError(f"{where} was told already; there is nothing left to do on it")
    if attempt != len(offer.holders):
        raise LeaseError(
            f"{where}: this lease ran out and {offer.holders[-1]} works on it now; what you find is still taken "
            "if you tell it first"
        )


def _numbers(score: Score) -> list[float | int]:
    return [float(score.value), float(score.stderr), int(score.n)]


def _bytes(values: Any, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode("ascii")


def _array(data: str, dtype: str) -> np.ndarray[Any, np.dtype[Any]]:
    return np.frombuffer(base64.b64decode(data), dtype=dtype)
