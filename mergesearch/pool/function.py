"""A worker that calls a black-box function: no models, only numbers in and numbers out."""

import math
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import final

import numpy as np

from mergesearch.errors import EvaluationError
from mergesearch.plugins import did_you_mean
from mergesearch.pool.base import Job
from mergesearch.pool.jobs import one_sentence
from mergesearch.types import Failed, Outcome, Score, Scored, Timing, Vector


@final
class FunctionWorker:
    """Worker; see `pool/base.py`. `function(values (D,))` returns one number for each of `objectives`.

    Its factory is `functools.partial(FunctionWorker, function, objectives)`.
    """

    def __init__(self, function: Callable[[Vector], Mapping[str, float]], objectives: Sequence[str]) -> None:
        self._function = function
        self._objectives = tuple(objectives)

    def evaluate(self, job: Job) -> Outcome:
        """Call the function on a copy of the job's values; an exception or a wrong result becomes `Failed`."""
        begin = perf_counter()
        try:
            scores = self._scores(job)
        except Exception as error:  # noqa: BLE001 - whatever the function raises is this candidate's failure
            return Failed(type(error).__name__, one_sentence(error), Timing(score=perf_counter() - begin))
        timing = Timing(score=perf_counter() - begin)
        for name, score in scores.items():
            if not math.isfinite(score.value):
                return Failed("not_finite", f"objective {name!r} is {score.value}", timing)
        return Scored(scores, {name: {name: score} for name, score in scores.items()}, timing=timing)

    def _scores(self, job: Job) -> dict[str, Score]:
        if not isinstance(job.work, np.ndarray):
            raise EvaluationError("a function evaluates plain values, this job holds a recipe")
        given = self._function(job.work.copy())
        if not isinstance(given, Mapping):
            raise EvaluationError(
                f"the function must return a mapping of objective to number, such as {{{self._objectives[0]!r}: 0.5}}, "
                f"it returned {type(given).__name__}"
            )
        for name in given:
            if name not in self._objectives:
                raise EvaluationError(
                    f"the function returned {name!r}, no objective{did_you_mean(name, self._objectives)}"
                )
        for name in self._objectives:
            if name not in given:
                raise EvaluationError(f"the function returned no value for objective {name!r}")
        return {name: Score(_number(name, given[name])) for name in self._objectives}


def _number(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # whatever a user's function returns
    except (TypeError, ValueError):
        raise EvaluationError(f"the function's value for {name!r} must be a number, it is {value!r}") from None
