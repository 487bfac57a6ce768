"""Which candidate to export. Pure functions on a study as it is stored."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mergesearch import pareto
from mergesearch.errors import SpecError
from mergesearch.plugins import did_you_mean
from mergesearch.results import BASELINE, RECOMMENDED, Results
from mergesearch.stored import StoredStudy
from mergesearch.types import Failed, Split, Vector


def select(
    study: StoredStudy,
    *,
    candidate: int | None = None,
    knee: bool = False,
    prefer: str | Mapping[str, float] | None = None,
) -> int:
    """The candidate that was asked for: by number, the knee, by preference, or (none of these) the study's best.

    Args:
        prefer: weights of objectives, as a mapping or in the command line's form 'a=0.7,b=0.3'.

    Raises:
        SpecError: more than one way was given, or the way leads to no scored candidate.
    """
    if (candidate is not None) + knee + (prefer is not None) > 1:
        raise SpecError("give one of candidate, knee and prefer: each of them picks the candidate by itself")
    if candidate is not None:
        return by_number(study.results, candidate)
    if knee:
        return at_knee(study.results)
    if prefer is not None:
        weights = parse_preference(prefer) if isinstance(prefer, str) else prefer
        return by_preference(study.results, weights)
    return best(study)


def best(study: StoredStudy) -> int:
    """The study's own choice (made on the confirm split), else what the strategy recommended, else the best score.

    Raises:
        SpecError: nothing has been scored yet.
    """
    results = study.results
    for number in (study.chosen, results.by_origin(RECOMMENDED), results.best):
        if number is not None and results.outcome(number) is not None:
            return number
    raise SpecError("the study has no scored candidate yet; export again when it has")


def describe_candidate(study: StoredStudy, number: int) -> str:
    """What a candidate is in its study, in a few words."""
    results = study.results
    origin = results.candidates[number].origin
    if origin.startswith(BASELINE):
        return f"the baseline {origin.removeprefix(BASELINE)!r}"
    if number == study.chosen:
        return "chosen on the confirm split"
    if origin == RECOMMENDED:
        return "recommended by the strategy, not confirmed"
    if number == results.best:
        return "the best weighted score on the search split, not confirmed"
    return "on the front of the search split" if number in results.front else "not on the front of the search split"


def by_number(results: Results, number: int) -> int:
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
    return number


def at_knee(results: Results) -> int:
    """The knee of the front on the search split: the candidate where giving up one objective buys least of another.

    Raises:
        SpecError: there is no front yet.
    """
    numbers, table = _front(results)
    return numbers[pareto.knee(table, is_front=True)]


def by_preference(results: Results, weights: Mapping[str, float]) -> int:
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
    return numbers[pareto.prefer(table, share, _units(results, table), is_front=True)]


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
    return results.front_table()


def _units(results: Results, table: NDArray[np.float64]) -> Vector:
    """What one unit of each loss is (M,), above 0."""
    normalisation = results.normalisation()
    if normalisation is not None:
        return normalisation.zero - normalisation.one
    span = table.max(axis=0) - table.min(axis=0)
    return np.where(span > 0, span, 1.0)
