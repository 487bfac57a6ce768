"""A worker that calls a black-box function: no models, only numbers in and numbers out."""

import math
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Protocol, final, runtime_checkable

import numpy as np

from mergesearch.errors import EvaluationError
from mergesearch.plugins import did_you_mean
from mergesearch.pool.base import Job
from mergesearch.pool.jobs import one_sentence
from mergesearch.space import SearchSpace
from mergesearch.types import Direction, Failed, Outcome, Score, Scored, Timing, Vector


@runtime_checkable
class DifferentiableFunction(Protocol):
    """A black box that can also say how its scores change: any object with these two methods."""

    def __call__(self, values: Vector, /) -> Mapping[str, float]:
        """A score for each objective at natural values (D,)."""
        ...

    def gradients(self, values: Vector, /) -> Mapping[str, Any]:
        """For each objective the gradient (D,) of its score, in its natural direction, with respect to the values."""
        ...


@final
class FunctionWorker:
    """Worker; see `pool/base.py`. `function(values (D,))` returns one number for each of `objectives`.

    Its factory is `functools.partial(FunctionWorker, function, objectives)`. Gradients are those of the objectives'
    own losses, whatever name they are asked for under; they need a `DifferentiableFunction` and its `space`.
    `directions` are those of the objectives, 'max' where it says nothing. A part of an evaluation is a whole one here.
    """

    def __init__(
        self,
        function: Callable[[Vector], Mapping[str, float]],
        objectives: Sequence[str],
        space: SearchSpace | None = None,
        directions: Mapping[str, Direction] | None = None,
    ) -> None:
        self._function = function
        self._objectives = tuple(objectives)
        self._space, self._directions = space, dict(directions or {})

    def evaluate(self, job: Job) -> Outcome:
        """Call the function on a copy of the job's values; an exception or a wrong result becomes `Failed`."""
        begin = perf_counter()
        try:
            scores = self._scores(job)
            gradients = self._gradients(job) if job.request.gradient else {}
        except Exception as error:  # noqa: BLE001 - whatever the function raises is this candidate's failure
            return Failed(type(error).__name__, one_sentence(error), Timing(score=perf_counter() - begin))
        timing = Timing(score=perf_counter() - begin)
        for name, score in scores.items():
            if not math.isfinite(score.value):
                return Failed("not_finite", f"objective {name!r} is {score.value}", timing)
        metrics = {name: {name: score} for name, score in scores.items()}
        for name, gradient in gradients.items():
            if not np.isfinite(gradient).all():
                return Failed("not_finite", f"objective {name!r}: its gradient is not finite", timing)
            metrics[name][job.request.gradient] = Score(self._sign(name) * scores[name].value)
        return Scored(scores, metrics, gradients=gradients, timing=timing)

    def _sign(self, name: str) -> float:
        """What a score is multiplied by to be a loss."""
        return 1.0 if self._directions.get(name, Direction.MAX) is Direction.MIN else -1.0

    def _gradients(self, job: Job) -> dict[str, Vector]:
        """d loss / d point (D,) of each objective."""
        if not isinstance(self._function, DifferentiableFunction):
            raise EvaluationError("the function gives no gradients: it needs a method gradients(values) too")
        if self._space is None or job.point is None:
            raise EvaluationError("gradients are taken at a point of a search space; this job or this worker has none")
        assert isinstance(job.work, np.ndarray)
        given = self._function.gradients(job.work.copy())
        slopes = self._space.slopes(job.point)
        found = {}
        for name in self._objectives:
            if not isinstance(given, Mapping) or name not in given:
                raise EvaluationError(f"the function's gradients name no objective {name!r}")
            gradient = np.asarray(given[name], dtype=np.float64)
            if gradient.shape != slopes.shape:
                raise EvaluationError(
                    f"the gradient of {name!r} must have shape {slopes.shape}, one number a value, not {gradient.shape}"
                )
            found[name] = self._sign(name) * gradient * slopes
        return found

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
