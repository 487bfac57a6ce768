"""Peers, called through their own packages as their own documentation says.

`cold` runs begin where the package begins; `start` runs are shown the uniform merge: as the first point, as the mean of
the first distribution, or as the centre (standard deviation .15) of the first population, whichever the package takes.
Several objectives go to packages with one as their weighted mean.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from search_runs import BudgetSpent, Recorder

POPULATION = 50
SPREAD = 0.15
STEP = 0.2
SWEEP = 41  # values of lambda

Peer = Callable[[Recorder, int, bool], None]


def run_peer(name: str, recorder: Recorder, seed: int) -> None:
    """Let the peer '<method>:cold' or '<method>:start' spend the recorder's budget."""
    method, begin = name.split(":")
    with warnings.catch_warnings(), contextlib.suppress(BudgetSpent):
        warnings.simplefilter("ignore")
        PEERS[method](recorder, seed, begin == "start")


def random_search(recorder: Recorder, seed: int, start: bool) -> None:
    """Uniform in the cube."""
    generator = np.random.default_rng(seed)
    if start:
        recorder(recorder.target.start)
    while True:
        recorder(generator.random(recorder.target.dim))


def one_lambda(recorder: Recorder, _seed: int, _start: bool) -> None:
    """One value for every axis, from coarse to fine; ends with its grid."""
    order = sorted(range(SWEEP), key=lambda i: (i % 8 != 0, i % 4 != 0, i % 2 != 0, i))
    for index in order:
        recorder(np.full(recorder.target.dim, index / (SWEEP - 1)))


def _optuna(recorder: Recorder, sampler: Any, single: bool, first: NDArray[np.float64] | None) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    m, dim = len(recorder.target.objectives), recorder.target.dim
    study = optuna.create_study(directions=["minimize"] * (1 if single else m), sampler=sampler)
    for point in [] if first is None else first:
        study.enqueue_trial({f"x{i}": float(value) for i, value in enumerate(point)})

    def objective(trial: Any) -> Any:
        point = [trial.suggest_float(f"x{i}", 0.0, 1.0) for i in range(dim)]
        return recorder.weighted(point) if single else tuple(map(float, recorder(point)))

    study.optimize(objective, n_trials=int(recorder.budget) + 1)


def _around(recorder: Recorder, seed: int, size: int) -> NDArray[np.float64]:
    drawn = np.random.default_rng([seed, 11]).standard_normal((size, recorder.target.dim))
    drawn[0] = 0.0
    return np.clip(recorder.target.start + SPREAD * drawn, 0.0, 1.0)


def optuna_tpe(recorder: Recorder, seed: int, start: bool) -> None:
    """Optuna's default sampler."""
    import optuna

    first = recorder.target.start[None] if start else None
    _optuna(recorder, optuna.samplers.TPESampler(seed=seed), len(recorder.target.objectives) == 1, first)


def optuna_gp(recorder: Recorder, seed: int, start: bool) -> None:
    """Optuna's Gaussian process."""
    import optuna

    first = recorder.target.start[None] if start else None
    _optuna(recorder, optuna.samplers.GPSampler(seed=seed), len(recorder.target.objectives) == 1, first)


def optuna_nsga2(recorder: Recorder, seed: int, start: bool) -> None:
    """Optuna's NSGA-II."""
    import optuna

    first = _around(recorder, seed, POPULATION) if start else None
    sampler = optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
    _optuna(recorder, sampler, len(recorder.target.objectives) == 1, first)


def optuna_cmaes(recorder: Recorder, seed: int, start: bool) -> None:
    """Optuna's CMA-ES on the weighted mean."""
    import optuna

    x0 = {f"x{i}": float(v) for i, v in enumerate(recorder.target.start)} if start else None
    sampler = optuna.samplers.CmaEsSampler(x0=x0, sigma0=STEP if start else None, seed=seed)
    _optuna(recorder, sampler, True, None)


def _pymoo(recorder: Recorder, seed: int, start: bool, many: bool) -> None:
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.algorithms.moo.nsga3 import NSGA3
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.optimize import minimize
    from pymoo.util.ref_dirs import get_reference_directions

    m, dim = len(recorder.target.objectives), recorder.target.dim

    class Wrapped(ElementwiseProblem):  # type: ignore[misc]
        """The target as pymoo wants it."""

        def __init__(self) -> None:
            super().__init__(n_var=dim, n_obj=m, xl=0.0, xu=1.0)

        def _evaluate(self, x: Any, out: Any, *_: Any, **__: Any) -> None:
            out["F"] = recorder(x)

    more = {"sampling": _around(recorder, seed, POPULATION)} if start else {}
    if many and m > 1:
        directions = get_reference_directions("energy", m, POPULATION, seed=1)
        algorithm = NSGA3(ref_dirs=directions, pop_size=POPULATION, **more)
    else:
        algorithm = NSGA2(pop_size=POPULATION, **more)
    minimize(Wrapped(), algorithm, ("n_eval", int(recorder.budget) + POPULATION), seed=seed + 1, verbose=False)


def pymoo_nsga2(recorder: Recorder, seed: int, start: bool) -> None:
    """pymoo's NSGA-II, population 50."""
    _pymoo(recorder, seed, start, many=False)


def pymoo_nsga3(recorder: Recorder, seed: int, start: bool) -> None:
    """pymoo's NSGA-III, 50 reference directions."""
    _pymoo(recorder, seed, start, many=True)


def _pycma(recorder: Recorder, seed: int, start: bool, factor: int, mean: bool) -> None:
    import cma

    dim = recorder.target.dim
    size = factor * (4 + int(3 * np.log(dim)))
    x0 = recorder.target.start if start else np.random.default_rng([seed, 12]).random(dim)
    settings = {"bounds": [0, 1], "popsize": size, "seed": seed + 1, "verbose": -9, "CMA_diagonal": dim > 200}
    es = cma.CMAEvolutionStrategy(x0, STEP, settings)
    if mean:
        recorder.recommend = lambda: np.asarray(es.result.xfavorite)
    while True:
        points = es.ask()
        es.tell(points, [recorder.weighted(point) for point in points])


def pycma(recorder: Recorder, seed: int, start: bool) -> None:
    """pycma as it comes, on the weighted mean; hands over the best point seen."""
    _pycma(recorder, seed, start, factor=1, mean=False)


def pycma_mean(recorder: Recorder, seed: int, start: bool) -> None:
    """pycma with twice the population, on the weighted mean; hands over the distribution's mean."""
    _pycma(recorder, seed, start, factor=2, mean=True)


def _nevergrad(recorder: Recorder, seed: int, start: bool, kind: str) -> None:
    import nevergrad as ng

    logging.getLogger("nevergrad").setLevel(logging.ERROR)
    m, dim = len(recorder.target.objectives), recorder.target.dim
    x0 = recorder.target.start if start else np.random.default_rng([seed, 12]).random(dim)
    space = ng.p.Array(init=np.array(x0)).set_bounds(0.0, 1.0)
    space.random_state = np.random.RandomState(seed)
    optimizer = ng.optimizers.registry[kind](parametrization=space, budget=int(recorder.budget), num_workers=1)
    if m > 1:
        optimizer.num_objectives = m
    else:
        recorder.recommend = lambda: np.asarray(optimizer.provide_recommendation().value)
    while True:
        asked = optimizer.ask()
        losses = recorder(asked.value)
        optimizer.tell(asked, float(losses[0]) if m == 1 else losses)


def nevergrad_ngopt(recorder: Recorder, seed: int, start: bool) -> None:
    """nevergrad's NGOpt."""
    _nevergrad(recorder, seed, start, "NGOpt")


def nevergrad_de(recorder: Recorder, seed: int, start: bool) -> None:
    """nevergrad's TwoPointsDE."""
    _nevergrad(recorder, seed, start, "TwoPointsDE")


PEERS: dict[str, Peer] = {
    "pymoo_nsga2": pymoo_nsga2,
    "pycma_mean": pycma_mean,
    "optuna_tpe": optuna_tpe,
    "random": random_search,
    "lambda": one_lambda,
    "optuna_nsga2": optuna_nsga2,
    "pymoo_nsga3": pymoo_nsga3,
    "nevergrad_de": nevergrad_de,
    "nevergrad_ngopt": nevergrad_ngopt,
    "pycma": pycma,
    "optuna_cmaes": optuna_cmaes,
    "optuna_gp": optuna_gp,
}
