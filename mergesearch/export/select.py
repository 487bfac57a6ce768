"""Which candidate to export. Pure functions on a study's results; each answers with a number and the reason."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergesearch import pareto
from mergesearch.errors import SpecError
from mergesearch.plugins import did_you_mean
from mergesearch.results import BASELINE, RECOMMENDED, Results
from mergesearch.types import Failed, Split, Vector

CHOSEN = "chosen"
"""The fact under which a controller keeps the candidate that it chose on the confirm split."""


@dataclass(frozen=True)
class Choice:
    """A candidate's number, and why it was picked (half a sentence for people)."""

    number: int
    why: str


def select(
    results: Results,
    facts: Mapping[str, object],
    *,
    candidate: int | None = None,
    knee: bool = False,
    prefer: Mapping[str, float] | None = None,
) -> Choice:
    """The candidate that was asked for: by number, the knee, by preference, or (none of these) the study's best.

    Raises:
        SpecError: more than one way was given, or the way leads to no scored candidate.
    """
    if (candidate is not None) + knee + (prefer is not None) > 1:
        raise SpecError("give one of candidate, knee and prefer: each of them picks the candidate by itself")
    if candidate is not None:
        return by_number(results, candidate)
    if knee:
        return at_knee(results)
    if prefer is not None:
        return by_preference(results, prefer)
    return best(results, facts)


def best(results: Results, facts: Mapping[str, object]) -> Choice:
    """The study's own choice (made on the confirm split), else what the strategy recommended, else the best score.

    Raises:
        SpecError: nothing has been scored yet.
    """
    chosen = facts.get(CHOSEN)
    if isinstance(chosen, int) and results.outcome(chosen) is not None:
        return Choice(chosen, "chosen on the confirm split")
    recommended = results.by_origin(RECOMMENDED)
    if recommended is not None and results.outcome(recommended) is not None:
        return Choice(recommended, "recommended by the strategy, not confirmed")
    if results.best is None:
        raise SpecError("the study has no scored candidate yet; export again when it has")
    return Choice(results.best, "the best weighted score on the search split, not confirmed")


def by_number(results: Results, number: int) -> Choice:
    """Candidate `number`, a baseline too.

    Raises:
        SpecError: there is none of that number, it failed, or it is not scored yet.
    """
    if number not in results.candidates:
        known = sorted(results.candidates)
        raise SpecError(
            f"the study has no candidate {number}; "
            + (f"its candidates are {known[0]} to {known[-1]}" if known else "it has none at all yet")
        )
    outcome = results.outcomes.get((number, Split.SEARCH))
    if outcome is None:
        raise SpecError(f"candidate {number} is not scored yet; wait for it, or resume the study")
    if isinstance(outcome, Failed):
        raise SpecError(f"candidate {number} failed ({outcome.kind}: {outcome.message}); export one that was scored")
    origin = results.candidates[number].origin
    named = f", the baseline {origin.removeprefix(BASELINE)!r}" if origin.startswith(BASELINE) else ""
    return Choice(number, f"asked for by number{named}")


def at_knee(results: Results) -> Choice:
    """The knee of the front on the search split: the candidate where giving up one objective buys least of another.

    Raises:
        SpecError: there is no front yet.
    """
    numbers, table = _front(results)
    return Choice(numbers[pareto.knee(table)], "the knee of the front on the search split")


def by_preference(results: Results, weights: Mapping[str, float]) -> Choice:
    """The candidate of the front with the best weighted sum of scores in normalised units (base 0, best expert 1).

    Where the baselines are not scored, the unit of an objective is its span over the front. Objectives that `weights`
    does not name count nothing.

    Raises:
        SpecError: an unknown objective, a weight that is not a number of at least 0, or no front yet.
    """
    names = [o.name for o in results.objectives]
    for name, weight in weights.items():
        if name not in names:
            raise SpecError(f"the study has no objective {name!r}{did_you_mean(name, names)}")
        if not (math.isfinite(weight) and weight >= 0):
            raise SpecError(f"the weight of objective {name!r} must be a number of at least 0, got {weight}")
    if not any(weights.values()):
        raise SpecError("a preference needs at least one weight above 0, such as " + repr(f"{names[0]}=1"))
    numbers, table = _front(results)
    share = np.array([weights.get(name, 0.0) for name in names])
    text = ", ".join(f"{name}={weight:g}" for name, weight in weights.items())
    return Choice(numbers[pareto.prefer(table, share, _units(results, table))], f"preferred by the weights {text}")


def parse_preference(text: str) -> dict[str, float]:
    """Weights from 'a=0.7,b=0.3'.

    Raises:
        SpecError: a part that is not NAME=NUMBER, or a name given twice.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (name and equals) or math.isnan(number):
            raise SpecError(f"a preference looks like a=0.7,b=0.3; cannot read {part.strip()!r}")
        if name in weights:
            raise SpecError(f"the preference names objective {name!r} twice")
        weights[name] = number
    return weights


def _front(results: Results) -> tuple[list[int], NDArray[np.float64]]:
    """Numbers of the front and their losses (n, M), in the order of the numbers."""
    if not results.front:
        raise SpecError("the study has no front yet: no candidate of its search is scored")
    rows = [results.losses(number) for number in results.front]
    return results.front, np.array(rows)


def _units(results: Results, table: NDArray[np.float64]) -> Vector:
    """What one unit of each loss is (M,), above 0."""
    normalisation = results.normalisation()
    if normalisation is not None:
        return normalisation.zero - normalisation.one
    span = table.max(axis=0) - table.min(axis=0)
    return np.where(span > 0, span, 1.0)
