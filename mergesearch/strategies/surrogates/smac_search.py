"""One ask of SMAC3 as a function of points, costs and a seed; only loaded by the strategy `smac`.

A facade of SMAC that lives for one ask: its history is filled with the log, its selector is asked for one
configuration, and it is forgotten with the files that it writes. Forest, expected improvement, logarithm of costs and
random interleaving are SMAC's own. Two things are not. Its intensifier is passed by: it has no instances to repeat
here, and compares every two points, 2 s of CPU time at 300 results. The maximiser is ours: SMAC's local search begins
at points in the order of a set of strings, so that another process proposes other points, and it takes 7 s at 24 axes.
"""

import logging
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergesearch.types import Vector

Matrix = NDArray[np.float64]
_STEPS = (0.02, 0.05, 0.2)  # standard deviations of a move, in unit-cube widths; SMAC's neighbours: 0.2
_ROUNDS, _PARENTS = 4, 10


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Puts back what importing SMAC changes: loggers of dask and tornado, and Python's random numbers."""
    state = random.getstate()
    known = {name: _settings(entry) for name, entry in logging.root.manager.loggerDict.items() if _is_logger(entry)}
    try:
        yield
    finally:
        random.setstate(state)
        for name, entry in list(logging.root.manager.loggerDict.items()):
            if isinstance(entry, logging.Logger):
                level, handlers, entry.propagate = known.get(name, (logging.NOTSET, [], True))
                entry.setLevel(level)
                entry.handlers[:] = handlers


def _is_logger(entry: object) -> bool:
    return isinstance(entry, logging.Logger)


def _settings(entry: object) -> tuple[int, list[logging.Handler], bool]:
    assert isinstance(entry, logging.Logger)
    return entry.level, list(entry.handlers), entry.propagate


with _undisturbed():
    from ConfigSpace import Configuration, ConfigurationSpace, Float
    from smac import HyperparameterOptimizationFacade as Facade
    from smac import Scenario
    from smac.acquisition.maximizer import AbstractAcquisitionMaximizer
    from smac.model.random_forest import RandomForest


class _Maximizer(AbstractAcquisitionMaximizer):  # type: ignore[misc]  # SMAC is not typed
    """Uniform points and points near the cheapest known ones, then three rounds of moves of the best of them.

    A move changes one axis, or all of them, by a normal step.
    """

    def _maximize(self, previous_configs: list[Configuration], n_points: int) -> list[tuple[float, Configuration]]:
        assert self._acquisition_function is not None
        assert self._acquisition_function.model is not None
        known = np.array([config.get_array() for config in previous_configs])
        dim, share = known.shape[1], max(n_points // (_ROUNDS + 1), 1)
        costs = self._acquisition_function.model.predict_marginalized(known)[0][:, 0]
        parents = known[np.argsort(costs, kind="stable")[:_PARENTS]]
        pool = np.vstack([self._rng.uniform(size=(share, dim)), self._moves(parents, share)])
        values = self._values(pool)
        for _ in range(_ROUNDS - 1):
            parents = pool[np.argsort(-values, kind="stable")[:_PARENTS]]
            moved = self._moves(parents, share)
            pool, values = np.vstack([pool, moved]), np.append(values, self._values(moved))
        best = np.argsort(-values, kind="stable")
        return [(float(values[i]), Configuration(self._configspace, vector=pool[i])) for i in best[:_PARENTS]]

    def _moves(self, parents: Matrix, count: int) -> Matrix:
        chosen = parents[self._rng.randint(len(parents), size=count)]
        scale = np.array(_STEPS)[self._rng.randint(len(_STEPS), size=count)][:, None]
        steps = scale * self._rng.standard_normal(chosen.shape)
        one = np.arange(chosen.shape[1]) == self._rng.randint(chosen.shape[1], size=count)[:, None]
        single = self._rng.uniform(size=(count, 1)) < 0.5
        moved: Matrix = np.clip(chosen + np.where(one | ~single, steps, 0.0), 0.0, 1.0)
        return moved

    def _values(self, points: Matrix) -> Vector:
        assert self._acquisition_function is not None
        configs = [Configuration(self._configspace, vector=point) for point in points]
        return np.asarray(self._acquisition_function(configs)[:, 0], dtype=np.float64)


def propose(points: Matrix, costs: Vector, trees: int, draws: int, interleave: float, seed: int) -> tuple[Vector, str]:
    """The next point (D,) after points (n, D) with costs (n,) above 0, and whether the forest or chance chose it."""
    space = _space(points.shape[1], seed)
    configs = [Configuration(space, vector=point) for point in points]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        scenario = Scenario(
            space, deterministic=True, n_trials=10**9, seed=seed, output_directory=Path(folder), n_workers=1
        )
        selector = Facade.get_config_selector(scenario, retrain_after=1)
        facade = Facade(
            scenario,
            None,
            model=_forest(space, trees, len(points), seed),
            acquisition_maximizer=_Maximizer(space, challengers=draws, seed=seed),
            initial_design=Facade.get_initial_design(scenario, n_configs=0),
            random_design=Facade.get_random_design(scenario, probability=interleave),
            config_selector=selector,
            logging_level=False,
            overwrite=True,
        )
        for config, cost in zip(configs, costs.tolist(), strict=True):
            facade.runhistory.add(config, cost, seed=0)
        found = next(iter(selector))
    point = np.clip(np.array(found.get_array(), dtype=np.float64), 0.0, 1.0)
    return point, "random" if "Random" in (found.origin or "") else "sample"


def predicted(points: Matrix, costs: Vector, trees: int, seed: int) -> Vector:
    """What a forest of points (n, D) and costs (n,) says of the logarithms of these costs, (n,)."""
    forest = _forest(_space(points.shape[1], seed), trees, len(points), seed)
    forest.train(points, np.log(costs)[:, None])
    return np.asarray(forest.predict_marginalized(points)[0][:, 0], dtype=np.float64)


def _space(dim: int, seed: int) -> ConfigurationSpace:
    space = ConfigurationSpace(seed=seed)
    space.add([Float(f"x{i:05d}", (0.0, 1.0)) for i in range(dim)])
    return space


def _forest(space: ConfigurationSpace, trees: int, count: int, seed: int) -> RandomForest:
    """The facade's own forest, on one thread, for `count` points; with SMAC's bound of 2^20 leaves, memory for them
    is cleared for every tree, which takes a second."""
    return RandomForest(
        space,
        log_y=True,
        n_trees=trees,
        ratio_features=1.0,
        min_samples_split=2,
        min_samples_leaf=1,
        max_leaf_nodes=max(count, 2),
        bootstrapping=True,
        seed=seed,
        n_jobs=1,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings on stderr that there is no initial design: the log is one."""
    logger = logging.getLogger("smac")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
