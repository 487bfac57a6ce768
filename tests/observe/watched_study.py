"""A small search of a black box with everything that happens in one: scores, failures, a repeat, the cache."""

import math
from collections.abc import Sequence
from dataclasses import replace

from export.stored_study import OBJECTIVES, SPACE, scored

from mergesearch.controller.observer import Observer, Progress
from mergesearch.pool.base import Usage
from mergesearch.results import Results
from mergesearch.types import Asked, Candidate, Failed, Split, Timing, Told


def tell_all(observers: Sequence[Observer], study: str = "made") -> Progress:
    """What a controller would tell: five evaluations (one failed, one cached), a repeat, and progress in between."""
    results = Results(OBJECTIVES)
    progress = Progress(results, 0, 0.0, 10, 2, 0.5, "search", study, Usage(2, 0.0, 1.0))
    for observer in observers:
        observer.progressed(progress)
    for number in range(5):
        candidate = Candidate(number, [number / 5] * SPACE.dim)
        outcome = scored(number / 10, examples=False)
        if number == 2:
            outcome = Failed("timeout", 'store "postgresql://me:secret@db/x" said\nno', Timing(0.5, 3.0), "w2")
        if number == 3:
            outcome = replace(outcome, worker="cache", timing=Timing())
        told = Told(2 * number + 2, candidate, Split.SEARCH, outcome)
        results.add(Asked(2 * number + 1, candidate, Split.SEARCH))
        results.add(told)
        for observer in observers:
            observer.evaluated(study, told, 2 if number == 4 else 1)
    late = Told(0, results.candidates[1], Split.SEARCH, scored(math.nan, examples=False))
    progress = replace(progress, evaluations=5, cost=5.0, running=1, seconds=9.0, usage=Usage(2, 9.0, 12.0))
    for observer in observers:
        observer.repeated(study, late, 3)
        observer.progressed(progress)
    return progress
