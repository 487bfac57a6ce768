"""Two candidates compared on the same examples: difference, standard error, bootstrap interval, and what it means.

The paired bootstrap resamples example indices within each objective, the same draw for both candidates, and takes the
2.5 and 97.5 percentiles of the recomputed weighted mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from mergesearch.report.estimate import Estimate, Unit
from mergesearch.results import Results
from mergesearch.stats import Examples
from mergesearch.types import Objective, Score, Split, Vector

BOOTSTRAPS = 10_000
FEW_VALUES = 64
INDICES_AT_ONCE = 4_000_000


class Verdict(StrEnum):
    """What a difference says, by one standard error."""

    BETTER = "better by more than its error"
    NOISE = "within the noise"
    WORSE = "worse by more than its error"
    UNKNOWN = "of unknown error"


@dataclass(frozen=True)
class Difference:
    """How much better the searched merge is than `other` on a split: weighted mean of gains, positive is better.

    `low` and `high` bound the paired bootstrap's 95 % interval, None without per-example scores. `paired` is False
    where an objective has no per-example scores; its two errors are then taken as independent.
    """

    other: str
    split: Split
    gain: Estimate
    low: float | None = None
    high: float | None = None
    paired: bool = True

    @property
    def verdict(self) -> Verdict:
        """Better or worse only by more than one standard error."""
        if not self.paired and self.gain.stderr == 0.0:
            return Verdict.UNKNOWN
        if abs(self.gain.value) <= self.gain.stderr:
            return Verdict.NOISE
        return Verdict.BETTER if self.gain.value > 0 else Verdict.WORSE

    def sentence(self, unit: Unit) -> str:
        """One honest sentence."""
        size = unit.estimate(self.gain, signed=True) + (" points" if unit.percent else "")
        text = f"{self.split}, searched against {self.other}: {size}, {self.verdict}"
        if self.low is None or self.high is None:
            return text + ("" if self.paired else " (not paired: no per-example scores)")
        text += f"; 95 % interval {unit.number(self.low, True)} to {unit.number(self.high, True)}"
        if self.verdict in (Verdict.BETTER, Verdict.WORSE) and self.low <= 0.0 <= self.high:
            text += ", which includes no difference"
        return text


def difference(
    results: Results,
    number: int,
    other: int,
    name: str,
    split: Split,
    examples: Examples | None = None,
    generator: np.random.Generator | None = None,
) -> Difference | None:
    """Candidate `number` against `other`, called `name`; None unless both were scored on the split.

    The error is sqrt(sum_t (w_t sd_t)^2 / n_t) over objectives t, sd_t that of the examples' differences and the
    weights w_t scaled to sum to 1. Without `examples` or `generator` there is no interval.
    """
    mine, theirs = results.outcome(number, split), results.outcome(other, split)
    better, worse = results.weighted(number, split), results.weighted(other, split)
    if mine is None or theirs is None or better is None or worse is None:
        return None
    kept = ({}, {}) if examples is None else (examples(number, split), examples(other, split))
    variance, gains = 0.0, []
    for weight, objective in zip(shares(results.objectives), results.objectives, strict=True):
        scores = (mine.scores[objective.name], theirs.scores[objective.name])
        pairs = example_gains(objective, scores, kept[0].get(objective.name), kept[1].get(objective.name))
        if pairs is None:
            variance += weight**2 * (scores[0].stderr ** 2 + scores[1].stderr ** 2)
            continue
        variance += weight**2 * float(pairs.var()) / len(pairs)
        gains.append((float(weight), pairs))
    gain = Estimate(worse - better, float(np.sqrt(variance)))
    if len(gains) < len(results.objectives):
        return Difference(name, split, gain, paired=False)
    if generator is None:
        return Difference(name, split, gain)
    low, high = np.percentile(bootstrap(gains, generator), [2.5, 97.5])
    return Difference(name, split, gain, float(low), float(high))


def shares(objectives: tuple[Objective, ...]) -> Vector:
    """Weights (M,) scaled to sum to 1."""
    weights = np.array([o.weight for o in objectives])
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def example_gains(
    objective: Objective,
    scores: tuple[Score, Score],
    mine: NDArray[np.float32] | None,
    theirs: NDArray[np.float32] | None,
) -> Vector | None:
    """Per-example gains (n,), positive is better; None where examples cannot stand for the score.

    They stand for it only where their mean is the score (accuracy: yes; an F1 or a correlation: no).
    """
    if mine is None or theirs is None or len(mine) != len(theirs) or len(mine) == 0:
        return None
    for values, score in zip((mine, theirs), scores, strict=True):
        if not np.isclose(float(np.mean(values, dtype=np.float64)), score.value, rtol=1e-4, atol=1e-6):
            return None
    better, worse = (objective.loss(1.0) * values.astype(np.float64) for values in (mine, theirs))
    return np.asarray(worse - better, dtype=np.float64)


def bootstrap(gains: Sequence[tuple[float, Vector]], generator: np.random.Generator, count: int = BOOTSTRAPS) -> Vector:
    """Resampled weighted means (count,) of per-example gains: (weight, values (n,)) for each objective.

    Few distinct values (a difference of two accuracies has three) are drawn as multinomial counts: the same
    distribution as resampled indices, without `count` times n numbers.
    """
    total = np.zeros(count)
    for weight, values in gains:
        distinct, times = np.unique(values, return_counts=True)
        if len(distinct) <= FEW_VALUES:
            drawn = generator.multinomial(len(values), times / len(values), size=count)
            total += weight * (drawn @ distinct) / len(values)
            continue
        rows = max(1, INDICES_AT_ONCE // len(values))
        for start in range(0, count, rows):
            indices = generator.integers(0, len(values), size=(min(rows, count - start), len(values)))
            total[start : start + rows] += weight * values[indices].mean(axis=1)
    return total
