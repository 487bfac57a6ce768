"""How sure a difference is: errors of two candidates' scores, paired by example."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mergesearch.results import Results
from mergesearch.types import Split

Examples: TypeAlias = Callable[[int, Split], Mapping[str, NDArray[np.float32]]]
"""Per-example values of a candidate on a split: objective -> (n,); empty where none were kept."""


def paired_error(results: Results, a: int, b: int, examples: Examples, split: Split = Split.CONFIRM) -> float:
    """Standard error of the difference of two candidates' weighted losses, paired by example where examples are kept.

    sqrt(sum_t (w_t sd_t)^2 / n_t) over objectives t, weights scaled to sum to 1.
    """
    first, second = examples(a, split), examples(b, split)
    weights = np.array([o.weight for o in results.objectives])
    weights = weights / weights.sum()
    total = 0.0
    for weight, objective in zip(weights, results.objectives, strict=True):
        if objective.name in first and objective.name in second:
            difference = first[objective.name].astype(np.float64) - second[objective.name]
            error = difference.std() / np.sqrt(len(difference))
        else:
            outcomes = [results.outcome(n, split) for n in (a, b)]
            error = np.sqrt(sum(o.scores[objective.name].stderr ** 2 for o in outcomes if o is not None))
        total += float(weight * error) ** 2
    return float(np.sqrt(total))
