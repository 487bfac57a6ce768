"""What choosing the best of N noisy scores does, simulated: the winner's score flatters it, a second look does not.

N candidates that are all equally good (accuracy p) are scored on n examples each. The best score lies above p by about
sqrt(p (1 - p) / n) times the mean maximum of N standard normals. With shared examples the scores are correlated and the
gap shrinks by sqrt(1 - rho). Scored again on fresh examples, the winner is worth p: hence the confirm split.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

TABLE = {(10, 100): 7.5, (10, 500): 3.4, (10, 2000): 1.7, (100, 100): 12.3, (100, 500): 5.5, (100, 2000): 2.7}
TABLE |= {(1000, 100): 15.9, (1000, 500): 7.1, (1000, 2000): 3.5}
"""Expected inflation in points at p = 0.6 by (candidates, examples): standard error times the mean maximum."""


@dataclass(frozen=True)
class Bias:
    """Means over repetitions, in points: how far the winner's search score lies above its true accuracy, how far its
    score on fresh examples does, and the standard error of the former mean."""

    candidates: int
    examples: int
    correlation: float
    search: float
    confirm: float
    stderr: float


def selection_bias(
    candidates: int,
    examples: int,
    accuracy: float = 0.6,
    correlation: float = 0.0,
    repeats: int = 400,
    seed: int = 0,
) -> Bias:
    """Simulate choosing the best of `candidates` by their scores on `examples`.

    `correlation` between the per-example results of two candidates: each takes a shared draw with probability
    sqrt(correlation), else its own.
    """
    generator = np.random.default_rng([seed, candidates, examples])
    gaps, fresh = np.empty(repeats), np.empty(repeats)
    for r in range(repeats):
        scores = _scores(generator, candidates, examples, accuracy, correlation)
        gaps[r] = scores.max() - accuracy
        fresh[r] = generator.binomial(examples, accuracy) / examples - accuracy
    error = float(100 * gaps.std(ddof=1) / np.sqrt(repeats))
    return Bias(candidates, examples, correlation, float(100 * gaps.mean()), float(100 * fresh.mean()), error)


def _scores(
    generator: np.random.Generator, candidates: int, examples: int, accuracy: float, correlation: float
) -> NDArray[np.float64]:
    """Accuracies (candidates,) on one set of examples."""
    if correlation == 0.0:
        return generator.binomial(examples, accuracy, candidates) / examples
    shared = generator.random(examples) < accuracy
    takes = generator.random((candidates, examples)) < np.sqrt(correlation)
    own = generator.random((candidates, examples)) < accuracy
    return np.where(takes, shared, own).mean(axis=1)


def bias_rows(repeats: int = 400) -> list[dict[str, float]]:
    """The table of nine cells, and one with shared examples."""
    rows = [asdict(selection_bias(*cell, repeats=repeats)) | {"expected": TABLE[cell]} for cell in sorted(TABLE)]
    shared = selection_bias(100, 500, correlation=0.9, repeats=min(repeats, 100))
    return [*rows, asdict(shared) | {"expected": 1.7}]
