"""`mergesearch.search`: any black box, the same strategies, controller and pools as a study of merges."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from mergesearch.controller.loop import Controller, StudyRun
from mergesearch.errors import SpecError
from mergesearch.plugins import load, parse_options
from mergesearch.pool.base import WorkerPool
from mergesearch.pool.function import FunctionWorker
from mergesearch.pool.profile import Profile, open_pool
from mergesearch.results import RECOMMENDED, Results
from mergesearch.space import SearchSpace
from mergesearch.store.base import StudyStore
from mergesearch.store.memory import MemoryStore
from mergesearch.stored import describe
from mergesearch.strategies import STRATEGIES
from mergesearch.strategies.base import Problem, Strategy
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
    with the least weighted loss; None if every evaluation failed. `front` is sorted by number."""

    evaluations: tuple[Found, ...]
    front: tuple[Found, ...]
    best: Found | None
    failed: int


def make_strategy(kind: str, problem: Problem, seed: int, options: Mapping[str, Any]) -> Strategy:
    """The strategy `kind`. Raises SpecError for an unknown kind or option."""
    plugin = load("strategy", STRATEGIES, kind)
    strategy: Strategy = plugin(problem, seed, parse_options(f"strategy {kind!r}", plugin.Options, options))
    return strategy


def search(
    function: Function,
    space: SearchSpace,
    objectives: Mapping[str, str],
    strategy: str = "cma_es",
    evaluations: int = 100,
    seed: int = 0,
    *,
    options: Mapping[str, Any] | None = None,
    weights: Mapping[str, float] | None = None,
    store: StudyStore | None = None,
    pool: WorkerPool | None = None,
    failures: int = 5,
) -> SearchResult:
    """Search a black box.

    Args:
        function: natural values (D,) -> a finite score for each objective. If it raises, the candidate has failed.
        objectives: name -> 'max' or 'min'. Several make a front.
        strategy: a kind of `mergesearch list strategies`, with its `options`.
        weights: name -> weight in the weighted sum, for strategies with one objective; 1 each unless given.
        store: where the log is kept; in memory unless given. pool: this process unless given.
        failures: failed evaluations in a row that stop the search.

    Raises:
        SpecError: an unknown strategy, option or direction.
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
    problem = Problem(space.dim, wanted, space.start, evaluations)
    made = make_strategy(strategy, problem, seed, options or {})
    if store is None:
        store = MemoryStore()
    if pool is None:
        pool = open_pool(Profile(), lambda: FunctionWorker(function, tuple(objectives)))
    store.create("search", "", "", time.time(), describe(space, wanted, evaluations, strategy))
    run = StudyRun("search", wanted, evaluations, made, lambda c: space.values(_point(c)), failures=failures)
    try:
        results = Controller(run, store, pool).run()
    finally:
        pool.close()
    return _result(results, space)


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
    )
