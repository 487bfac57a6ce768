"""One candidate against every expert, objective by objective: difference, paired standard error and 95 % interval.

The bootstrap is that of `report.paired`: indices of examples are resampled within an objective, the same draw for both.
Where values are many (a loss, not an accuracy) one draw serves all experts of an objective, and there are as many draws
as DRAWS_AT_MOST indices allow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergesearch.report.estimate import Estimate
from mergesearch.report.paired import BOOTSTRAPS, FEW_VALUES, bootstrap, example_gains
from mergesearch.results import EXPERT, Results
from mergesearch.stats import Examples
from mergesearch.types import Objective, Score, Split, Vector

DRAWS_AT_MOST = 4_000_000
FEWEST_BOOTSTRAPS = 1_000
NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Pairing:
    """Two scores of an objective on a split: candidate `number` beside the expert `name`, candidate `expert`."""

    objective: Objective
    name: str
    number: int
    expert: int
    split: Split
    scores: tuple[Score, Score]


@dataclass(frozen=True)
class TaskDifference:
    """How much better a candidate is than an expert in one objective, in units of its score; positive is better.

    `low` and `high` bound the 95 % interval, None where no error is known. `paired` is False where no per-example
    values stand for the scores: the errors are then taken as independent, which makes the interval too wide or, for
    correlated examples, says less than it could. `examples` were compared (0 where unpaired).
    """

    objective: str
    name: str
    expert: int
    split: Split
    gain: Estimate
    low: float | None
    high: float | None
    paired: bool
    examples: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low is not None and self.high is not None and not self.low <= 0.0 <= self.high


def pairings(results: Results, number: int, split: Split) -> list[Pairing]:
    """A candidate beside every expert that was scored on the split, by objective; empty where it was not scored."""
    mine = results.outcome(number, split)
    if mine is None:
        return []
    found = []
    for objective in results.objectives:
        for origin, expert in results.baselines().items():
            theirs = results.outcome(expert, split) if origin.startswith(EXPERT) and expert != number else None
            if theirs is not None:
                scores = (mine.scores[objective.name], theirs.scores[objective.name])
                found.append(Pairing(objective, origin.removeprefix(EXPERT), number, expert, split, scores))
    return found


def task_differences(
    pairs: Sequence[Pairing], examples: Examples | None, generator: np.random.Generator
) -> list[TaskDifference]:
    """The difference of each pairing, in their order. `examples` are read once for each candidate."""
    kept: dict[int, dict[str, NDArray[np.float32]]] = {}
    for pair in pairs:
        for number in (pair.number, pair.expert):
            if number not in kept:
                kept[number] = {} if examples is None else dict(examples(number, pair.split))
    gains = [
        example_gains(p.objective, p.scores, kept[p.number].get(p.objective.name), kept[p.expert].get(p.objective.name))
        for p in pairs
    ]
    found: dict[int, TaskDifference] = {}
    for name in dict.fromkeys(pair.objective.name for pair in pairs):
        places = [i for i, pair in enumerate(pairs) if pair.objective.name == name]
        bounds = _bounds({i: values for i in places if (values := gains[i]) is not None}, generator)
        for i in places:
            found[i] = _difference(pairs[i], gains[i], bounds.get(i))
    return [found[i] for i in range(len(pairs))]


def _difference(pair: Pairing, gains: Vector | None, bounds: tuple[float, float] | None) -> TaskDifference:
    mine, theirs = pair.scores
    gain = pair.objective.loss(theirs.value) - pair.objective.loss(mine.value)
    low: float | None = None
    high: float | None = None
    if gains is not None and bounds is not None:
        error, (low, high) = float(gains.std() / np.sqrt(len(gains))), bounds
    else:
        error = float(np.hypot(mine.stderr, theirs.stderr))
        if error > 0.0:
            low, high = gain - NORMAL_95 * error, gain + NORMAL_95 * error
    return TaskDifference(
        pair.objective.name,
        pair.name,
        pair.expert,
        pair.split,
        Estimate(gain, error),
        low,
        high,
        gains is not None,
        0 if gains is None else len(gains),
    )


def _bounds(gains: dict[int, Vector], generator: np.random.Generator) -> dict[int, tuple[float, float]]:
    """Percentiles 2.5 and 97.5 of the resampled mean of each column of per-example gains (n,)."""
    means: dict[int, Vector] = {}
    many: dict[int, list[int]] = {}
    for i, values in gains.items():
        if len(np.unique(values)) <= FEW_VALUES:
            means[i] = bootstrap([(1.0, values)], generator)
        else:
            many.setdefault(len(values), []).append(i)
    for n, places in many.items():
        count = min(BOOTSTRAPS, max(FEWEST_BOOTSTRAPS, DRAWS_AT_MOST // n))
        table = np.stack([gains[i] for i in places], axis=1)  # (n, experts)
        parts = []
        for start in range(0, count, max(1, DRAWS_AT_MOST // n)):
            rows = min(count - start, max(1, DRAWS_AT_MOST // n))
            drawn = generator.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
            times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
            parts.append(times @ table / n)  # (rows, experts)
        resampled = np.concatenate(parts)
        means |= {i: resampled[:, column] for column, i in enumerate(places)}
    percentiles = {i: np.percentile(drawn, [2.5, 97.5]) for i, drawn in means.items()}
    return {i: (float(low), float(high)) for i, (low, high) in percentiles.items()}
