"""What is made of an outcome: checked and joined before it is recorded, turned into losses for the strategy."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mergesearch.results import Results
from mergesearch.strategies.base import Observation
from mergesearch.types import (
    Candidate,
    Failed,
    Objective,
    Outcome,
    Request,
    Score,
    Scored,
    Told,
    told_losses,
)

Examples: TypeAlias = Mapping[str, NDArray[np.float32]]


def recorded(
    objectives: tuple[Objective, ...],
    candidate: Candidate,
    outcome: Outcome,
    results: Results,
    examples: Callable[[int], Examples],
) -> Outcome:
    """What is kept of a search candidate's outcome: `Failed` where the gradients it asked for did not come as they
    should; joined with the earlier window where it continues one (`examples` gives that one's by its number)."""
    if isinstance(outcome, Failed):
        return outcome
    request = candidate.request
    if request.gradient and candidate.point is not None:
        return _with_gradients(objectives, request.gradient, len(candidate.point), outcome)
    if request.continues is None:
        return outcome
    earlier = results.candidates.get(request.continues)
    before = results.outcome(request.continues)
    if before is None or earlier is None or not _continues(earlier, candidate):
        return Failed(
            "no_beginning",
            f"candidate {candidate.number} continues candidate {request.continues}, which was not scored at the same "
            f"point on exactly the first {request.offset:.4g} of the examples",
        )
    return _joined(before, outcome, examples(request.continues), request)


def _continues(earlier: Candidate, later: Candidate) -> bool:
    first = earlier.request
    same = earlier.point is not None and later.point is not None and np.array_equal(earlier.point, later.point)
    from_start = first.offset == 0.0 or first.continues is not None
    return same and from_start and math.isclose(first.covers, later.request.offset, abs_tol=1e-9)


def _with_gradients(objectives: tuple[Objective, ...], loss: str, dim: int, outcome: Scored) -> Outcome:
    for objective in objectives:
        gradient = outcome.gradients.get(objective.name)
        if gradient is None or loss not in outcome.metrics.get(objective.name, {}):
            return Failed("no_gradient", f"objective {objective.name!r} gave no gradient of {loss!r}", outcome.timing)
        if gradient.shape != (dim,):
            sentence = f"objective {objective.name!r}: a gradient must have shape ({dim},), it has {gradient.shape}"
            return Failed("no_gradient", sentence, outcome.timing)
        if not (np.isfinite(gradient).all() and math.isfinite(outcome.metrics[objective.name][loss].value)):
            return Failed("not_finite", f"objective {objective.name!r}: its gradient is not finite", outcome.timing)
    return outcome


def _joined(before: Scored, after: Scored, examples: Examples, request: Request) -> Outcome:
    if any(name not in before.scores for name in after.scores):
        return Failed("no_beginning", f"candidate {request.continues} has no score of some objective", after.timing)
    metrics = {
        objective: {
            metric: pooled(before.metrics[objective][metric], score)
            for metric, score in named.items()
            if metric in before.metrics.get(objective, {})
        }
        for objective, named in after.metrics.items()
    }
    scores = {name: pooled(before.scores[name], score) for name, score in after.scores.items()}
    joined = {
        name: values if scores[name].n == after.scores[name].n else np.concatenate([examples[name], values])
        for name, values in after.examples.items()
        if name in examples
    }
    return replace(after, scores=scores, metrics=metrics, examples=joined)


def pooled(first: Score, second: Score) -> Score:
    """The score over two windows' examples from those of each: mean, standard error (std / sqrt(n)) and n.

    One value each, and the same: a value of how the candidate is built, which has no examples; it stays one value.
    """
    if first.n == second.n == 1 and first.value == second.value:
        return second
    n = first.n + second.n
    value = (first.n * first.value + second.n * second.value) / n
    spread = sum(s.n * (s.n * s.stderr**2 + (s.value - value) ** 2) for s in (first, second)) / n
    return Score(value, math.sqrt(spread / n), n)


def observation(
    objectives: tuple[Objective, ...], told: Told, examples: Callable[[int], Examples] | None = None
) -> Observation | None:
    """What a strategy is told of an outcome; None if it failed.

    `examples` gives a candidate's per-example scores, None where the strategy needs none. An objective with a guide
    has none to tell: what is kept are the examples of its own metric.
    """
    outcome = told.outcome
    if not isinstance(outcome, Scored):
        return None
    scores = [o.told_score(outcome) for o in objectives]
    guides = gradients = None
    if loss := told.candidate.request.gradient:
        guides = np.array([outcome.metrics[o.name][loss].value for o in objectives])
        gradients = np.array([outcome.gradients[o.name] for o in objectives])
    kept = None
    if examples is not None and all(o.guide is None for o in objectives):
        kept = _losses_by_example(objectives, examples(told.candidate.number))
    return Observation(
        told_losses(objectives, outcome),
        np.array([s.stderr for s in scores]),
        np.array([float(s.n) for s in scores]),
        guides,
        gradients,
        kept,
    )


def _losses_by_example(objectives: tuple[Objective, ...], examples: Examples) -> tuple[NDArray[np.float32], ...] | None:
    if any(o.name not in examples for o in objectives):
        return None
    return tuple(np.float32(o.loss(1.0)) * examples[o.name] for o in objectives)
