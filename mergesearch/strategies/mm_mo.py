"""MM-MO: hypervolume improvement with crossover from the elites and a screen for uncertain points; 1 to 4 objectives.

Source: "It's Morphing Time", arXiv:2407.00487. A pool of points with large expected hypervolume improvement is crossed
with mutants of the best results (weak to strong), then the half about which the models know least is kept (screen).
Both press for exploration: switch them off to compare, or take `qlog_nehvi`. Ours: no batches. Every ask makes its own
pool given what is pending and takes a random one of the kept half, which is what a batch evaluates; the members of the
pool are the best of the drawn points, since crossover moves them anyway; the reference point is that of `qlog_nehvi`.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, cast, final

import numpy as np
from pydantic import Field

from mergesearch.errors import SpecError
from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, rng
from mergesearch.strategies.surrogates.acquisition import LogImprovement
from mergesearch.strategies.surrogates.front_models import Base, FrontModels, check_objectives, load_botorch
from mergesearch.strategies.surrogates.gaussian_process import Matrix, Process
from mergesearch.types import Candidate, Vector

_ELITES = 5
_POOL, _CROSS = 6, 7  # purposes of random numbers


class Options(PluginOptions):
    """`startup`: points before the models are used, the seeds and points around the start; None: 2 (D + 1), at most a
    quarter of the budget. `spread`: standard deviation of those around the start, in unit-cube widths. `pool`: points
    chosen one after another by expected improvement per ask. `draws`: points they are chosen from. `samples`: draws
    from the posterior. `starts`: beginnings of a thorough fit. `reference`: the losses counted as 0, the 'start', or
    the worse of it and the worst on the 'front'. `margin`: how far the reference point lies beyond them, in shares of
    the gain to the least loss seen. `weak_to_strong`: cross the pool with mutants of the 5 best results. `screen`:
    'lowest_information' keeps the half of the pool with the largest posterior variances, 'none' all of it."""

    startup: int | None = Field(default=None, ge=1)
    spread: float = Field(default=0.2, gt=0, le=1)
    pool: int = Field(default=10, ge=1)
    draws: int = Field(default=256, ge=16)
    samples: int = Field(default=64, ge=4)
    starts: int = Field(default=5, ge=1)
    reference: Base = "front"
    margin: float = Field(default=0.1, ge=0)
    weak_to_strong: bool = True
    screen: Literal["lowest_information", "none"] = "lowest_information"


@final
class MmMo(Strategy):
    """Strategy; see `strategies/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = True

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self._options = chosen = cast(Options, options)
        fault = check_objectives("mm_mo", len(problem.objectives), 4)
        if fault:
            raise SpecError(fault)
        self._models = FrontModels(problem, seed, chosen.startup, chosen.spread, chosen.starts)

    def ask(self, number: int) -> Proposal | None:
        """Never None."""
        models, options = self._models, self._options
        planned = models.design(number)
        if planned is not None:
            return planned
        generator = rng(models.seed, number, _CROSS)
        pool = self._pool(number)
        if options.weak_to_strong:
            order = np.argsort(models.normalised().sum(axis=1), kind="stable")
            pool = crossed(pool, models.models()[0].points[order[:_ELITES]], generator)
        if options.screen == "lowest_information":
            pending = models.told.pending_points(models.problem.dim)
            pool = least_informed(models.models(), pending, pool)
        point = pool[generator.integers(len(pool))]
        return Proposal(models.told.apart(point, models.seed, number), "sample")

    def asked(self, candidate: Candidate) -> None:
        """Notes the candidate as pending."""
        self._models.told.asked(candidate)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Notes its losses."""
        self._models.told.tell(candidate, observation)

    def recommend(self) -> Vector | None:
        """The evaluated point with the least weighted posterior mean; None before the models are used."""
        return self._models.recommend()

    def diagnostics(self) -> Mapping[str, float]:
        """Counts, size of the front of posterior means, extreme length-scales, largest noise floor."""
        return self._models.diagnostics()

    def _pool(self, number: int) -> Matrix:
        """Points (pool, D) of those drawn, each the best given the ones before and what is pending."""
        models, options = self._models, self._options
        tried, chance = models.tried(number, options.draws), models.feasibility()
        pending = models.told.pending_points(models.problem.dim)
        left, chosen = tried, np.zeros((0, models.problem.dim))
        processes, scale = models.models(), models.samples()
        limit = models.reference(options.margin, options.reference)
        reference = np.array([(r - level) / by for r, (_, level, by) in zip(limit, scale, strict=True)])
        seed = int(rng(models.seed, number, _POOL).integers(2**31))
        while len(chosen) < options.pool:
            waiting = np.vstack([pending, chosen])
            if len(processes) == 1:
                worth = LogImprovement.of(_believed(processes[0], waiting), chance).values(left)
            else:
                worth = chance.log(left) + _front_values(processes, reference, waiting, left, options.samples, seed)
            best = int(np.argmax(worth))
            chosen = np.vstack([chosen, left[best]])
            left = np.delete(left, best, axis=0)
        return chosen


def _front_values(
    processes: list[Process], reference: Vector, waiting: Matrix, points: Matrix, samples: int, seed: int
) -> Vector:
    load_botorch()
    from mergesearch.strategies.surrogates import botorch_front

    with botorch_front.quiet(seed):
        target = botorch_front.improvement(processes, reference, waiting, samples, seed)
        return botorch_front.values(target, points)


def _believed(model: Process, pending: Matrix) -> Process:
    """The process as if every pending point (k, D) had its posterior mean."""
    return model.with_pending(pending, np.zeros((1, len(pending)))) if len(pending) else model


def crossed(pool: Matrix, elites: Matrix, generator: np.random.Generator) -> Matrix:
    """The pool (k, D) after binomial crossover, rate 0.5 and at least one axis, with mutants a + (b - c) / 2 of three
    different elites each, clipped to the cube. With fewer than three elites, the pool as it is."""
    if len(elites) < 3:
        return pool
    count, dim = pool.shape
    parents = np.array([generator.choice(len(elites), 3, replace=False) for _ in range(count)])
    mutants = np.clip(elites[parents[:, 0]] + 0.5 * (elites[parents[:, 1]] - elites[parents[:, 2]]), 0.0, 1.0)
    taken = generator.uniform(size=pool.shape) < 0.5
    taken[np.arange(count), generator.integers(dim, size=count)] = True
    return np.where(taken, mutants, pool)


def least_informed(models: list[Process], pending: Matrix, pool: Matrix) -> Matrix:
    """The half of the pool (k, D), rounded up, with the lowest sum over objectives of 1 / posterior variance."""
    information = np.sum([1.0 / _believed(model, pending).predict(pool)[1] for model in models], axis=0)
    return pool[np.sort(np.argsort(information, kind="stable")[: (len(pool) + 1) // 2])]
