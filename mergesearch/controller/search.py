"""`mergesearch.search`: any black box, the same strategies, controller and pools as a study of merges."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from mergesearch.controller.loop import Controller, StudyRun
from mergesearch.errors import SpecError
from mergesearch.pool.base import WorkerPool
from mergesearch.pool.function import DifferentiableFunction, FunctionWorker
from mergesearch.pool.profile import Profile, open_pool
from mergesearch.results import RECOMMENDED, Results
from mergesearch.space import SearchSpace
from mergesearch.store.base import StudyStore
from mergesearch.store.memory import MemoryStore
from mergesearch.stored import describe
from mergesearch.strategies.base import Problem
from mergesearch.strategies.make import make_strategy, needs
from mergesearch.study.limits import changed
from mergesearch.study.spec import Budget
from mergesearch.types import Candidate, Direction, Objective, Scored, Split, Vector

Function: TypeAlias = Callable[[Vector], Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class Found:
    """One evaluated candidate of a search: natural `values` (D,), a score for each objective, who proposed it."""

    number: int
    values: Vector
    scores: Mapping[str, float]
    origin: str


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found. `best` is the recommended candidate where the strategy has one, re-evaluated, else the one
    with the least weighted loss; None if every evaluation failed. `front` is sorted by number. `cost` is what all of it
    took from the budget."""

    evaluations: tuple[Found, ...]
    front: tuple[Found, ...]
    best: Found | None
    failed: int
    cost: float


def search(
    function: Function,
    space: SearchSpace,
    objectives: Mapping[str, str],
    strategy: str = "cma_es",
    evaluations: float = 100,
    seed: int = 0,
    *,
    options: Mapping[str, Any] | None = None,
    weights: Mapping[str, float] | None = None,
    store: StudyStore | None = None,
    pool: WorkerPool | None = None,
    failures: int = 5,
    start: ArrayLike | None = None,
    seeds: Sequence[ArrayLike] = (),
    gradient_cost: float = 3.0,
    limits: Mapping[str, object] | None = None,
) -> SearchResult:
    """Search a black box.

    Args:
        function: natural values (D,) -> a finite score for each objective. If it raises, the candidate has failed.
            An object that also has a method `gradients(values)` -> the gradient (D,) of each score with respect to the
            values offers them to strategies that use gradients.
        objectives: name -> 'max' or 'min'. Several make a front.
        strategy: a kind of `mergesearch list strategies`, with its `options`.
        evaluations: the budget; an evaluation with gradients takes `gradient_cost` of it.
        weights: name -> weight in the weighted sum, for strategies with one objective; 1 each unless given.
        store: where the log is kept; in memory unless given. pool: this process unless given.
        failures: failed evaluations in a row that stop the search.
        start: natural values (D,) to begin with, clipped to the space; its axes' own starts unless given. seeds: more
            of them that are worth an early look.
        limits: what else ends the search, of 'hours', 'target' and 'plateau', as in a study file's budget:
            {"target": {"accuracy": 0.9}, "plateau": {"evaluations": 30, "gain": 0.001}}.

    Raises:
        SpecError: an unknown strategy, option, limit or direction; a strategy that needs gradients and gets none.
        StudyFailed: too many evaluations failed in a row.

    >>> import numpy as np
    >>> import mergesearch
    >>> def function(values):
    ...     return {"accuracy": 1 - np.mean((values - 0.7) ** 2), "cost": float(values.sum())}
    >>> space = mergesearch.SearchSpace.box(3, low=0.0, high=1.0)
    >>> result = mergesearch.search(function, space, {"accuracy": "max", "cost": "min"}, "random", evaluations=32)
    >>> len(result.evaluations)
    32
    >>> len(result.front) > 1
    True
    """
    wanted = _objectives(objectives, weights or {})
    problem = _problem(function, space, wanted, evaluations, gradient_cost)
    if start is not None:
        problem = replace(problem, start=_point_of(space, start))
    budget = _limits(limits or {}, tuple(objectives))
    problem = replace(problem, seeds=tuple(_point_of(space, values) for values in seeds))
    made = make_strategy(strategy, problem, seed, options or {})
    if store is None:
        store = MemoryStore()
    if pool is None:
        directions = {objective.name: objective.direction for objective in wanted}
        pool = open_pool(Profile(), lambda: FunctionWorker(function, tuple(objectives), space, directions))
    store.create("search", "", "", facts=describe(space, wanted, evaluations, strategy))
    run = StudyRun(
        "search",
        wanted,
        evaluations,
        made,
        lambda c: space.values(_point(c)),
        failures=failures,
        gradient_cost=gradient_cost,
        needs=needs(strategy, options or {}),
        hours=budget.hours,
        target=budget.target,
        plateau=budget.plateau,
    )
    try:
        results = Controller(run, store, pool).run()
    finally:
        pool.close()
    return _result(results, space)


def _limits(limits: Mapping[str, object], objectives: tuple[str, ...]) -> Budget:
    for name in limits:
        if name not in ("hours", "target", "plateau"):
            raise SpecError(f"limits: a black-box search can be limited by hours, target and plateau, not by {name!r}")
    return changed(Budget(), limits, objectives)


def _problem(
    function: Function,
    space: SearchSpace,
    objectives: tuple[Objective, ...],
    evaluations: float,
    gradient_cost: float,
) -> Problem:
    if not (math.isfinite(evaluations) and evaluations >= 1 and gradient_cost > 0):
        raise SpecError(f"a search needs evaluations >= 1 and gradient_cost > 0, got {evaluations} and {gradient_cost}")
    gradients = ("loss",) if isinstance(function, DifferentiableFunction) else ()
    return Problem(space.dim, objectives, space.start, evaluations, gradients=gradients, gradient_cost=gradient_cost)


def _point_of(space: SearchSpace, values: ArrayLike) -> Vector:
    """The point (D,) of natural values, clipped to the space."""
    given = np.asarray(values, dtype=np.float64)
    if given.shape != (space.dim,) or not np.isfinite(given).all():
        raise SpecError(f"start and seeds are {space.dim} finite natural values each, got {values!r}")
    return space.point(given)


def _point(candidate: Candidate) -> Vector:
    if candidate.point is None:
        raise SpecError("a black-box search has no baselines")
    return candidate.point


def _objectives(directions: Mapping[str, str], weights: Mapping[str, float]) -> tuple[Objective, ...]:
    if not directions:
        raise SpecError("a search needs at least one objective, such as {'accuracy': 'max'}")
    found = []
    for name, direction in directions.items():
        if direction not in ("max", "min"):
            raise SpecError(f"objective {name!r}: direction {direction!r} must be 'max' or 'min'")
        found.append(Objective(name, Direction(direction), weights.get(name, 1.0)))
    if not any(objective.weight for objective in found):
        raise SpecError("every objective has weight 0: give at least one a weight above it")
    return tuple(found)


def _result(results: Results, space: SearchSpace) -> SearchResult:
    def found(number: int) -> Found:
        candidate = results.candidates[number]
        outcome = results.outcomes[(number, Split.SEARCH)]
        assert isinstance(outcome, Scored)
        scores = {name: score.value for name, score in outcome.scores.items()}
        return Found(number, space.values(_point(candidate)), scores, candidate.origin)

    recommended = results.by_origin(RECOMMENDED)
    best = results.best if recommended is None or results.outcome(recommended) is None else recommended
    return SearchResult(
        evaluations=tuple(found(n) for n in sorted(results.scored)),
        front=tuple(found(n) for n in results.front),
        best=None if best is None else found(best),
        failed=results.failed,
        cost=results.cost_told,
    )
