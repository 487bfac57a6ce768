"""Noisy expected hypervolume improvement (BoTorch's), 1 to 4 objectives: a front from few dear evaluations, D<=20.

One Gaussian process per objective with the known standard errors; what is still being evaluated enters as pending, so
no ask waits. Source: qLogNEHVI, arXiv:2105.08195 and 2310.20708; loop and importance prior of AP-BMM, arXiv:2512.09972.
The reference point is -0.1 in units where the best loss seen is 1. What is 0 there would be the base model, which a
strategy does not know: ours is the worse of the start and the worst on the front seen. The start alone cuts off most of
a front that it lies on. One objective: log expected improvement on our own process.
"""

from collections.abc import Mapping
from typing import ClassVar, cast, final

import numpy as np
from pydantic import Field

from mergesearch.errors import SpecError
from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, rng
from mergesearch.strategies.surrogates.front_models import (
    PRIOR_UNTIL,
    Base,
    FrontModels,
    check_objectives,
    load_botorch,
)
from mergesearch.strategies.surrogates.layers import prior_lengths
from mergesearch.types import Candidate, Vector

_TORCH = 4  # purpose of the random numbers that torch's generator is seeded with


class Options(PluginOptions):
    """`startup`: points before the models are used, the seeds and points around the start; None: 2 (D + 1), at most a
    quarter of the budget. `spread`: standard deviation of those around the start, in unit-cube widths. `draws`:
    candidate points per ask. `restarts`: how many of them are followed uphill. `iterations`: steps uphill at most.
    `samples`: draws from the posterior. `starts`: beginnings of a thorough fit. `reference`: the losses counted as 0,
    the 'start', or the worse of it and the worst on the 'front'. `margin`: how far the reference point lies beyond
    them, in shares of the gain to the least loss seen. `importance_prior`: let the weights suggest which axes matter
    until 24 results are in, where the study reads them; only the weights' half of the paper's prior."""

    startup: int | None = Field(default=None, ge=1)
    spread: float = Field(default=0.2, gt=0, le=1)
    draws: int = Field(default=512, ge=16)
    restarts: int = Field(default=4, ge=1)
    iterations: int = Field(default=50, ge=1)
    samples: int = Field(default=128, ge=4)
    starts: int = Field(default=5, ge=1)
    reference: Base = "front"
    margin: float = Field(default=0.1, ge=0)
    importance_prior: bool = False


@final
class QLogNehvi(Strategy):
    """Strategy; see `strategies/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = True

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self._options = chosen = cast(Options, options)
        fault = check_objectives("qlog_nehvi", len(problem.objectives), 4)
        if fault:
            raise SpecError(fault)
        suggested = prior_lengths(problem) if chosen.importance_prior else None
        self._models = FrontModels(problem, seed, chosen.startup, chosen.spread, chosen.starts, suggested)
        self._notes: tuple[str, ...] = ()
        if suggested is not None:
            self._notes = (f"the weights suggest which axes matter until {PRIOR_UNTIL} results are in",)
        elif chosen.importance_prior:
            self._notes = ("importance_prior has no effect: the weights' geometry is not known to this search",)

    def ask(self, number: int) -> Proposal | None:
        """Never None."""
        models = self._models
        planned = models.design(number)
        if planned is not None:
            return planned
        if len(models.problem.objectives) == 1:
            options = self._options
            point = models.single(models.models()[0], number, 4 * options.draws, options.restarts, 16)
        else:
            point = self._best_point(number)
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

    def notes(self) -> tuple[str, ...]:
        """What became of the importance prior."""
        return self._notes

    def _best_point(self, number: int) -> Vector:
        load_botorch()
        from mergesearch.strategies.surrogates import botorch_front

        models, options = self._models, self._options
        seed = int(rng(models.seed, number, _TORCH).integers(2**31))
        samples = models.samples()
        reference = models.reference(options.margin, options.reference)
        scaled = np.array([(r - level) / scale for r, (_, level, scale) in zip(reference, samples, strict=True)])
        pending = models.told.pending_points(models.problem.dim)
        tried, chance = models.tried(number, options.draws), models.feasibility()
        with botorch_front.quiet(seed):
            target = botorch_front.improvement(models.models(), scaled, pending, options.samples, seed)
            worth = botorch_front.values(target, tried) + chance.log(tried)
            order = np.argsort(-worth, kind="stable")[: options.restarts]
            reached, gains = botorch_front.uphill(target, tried[order], options.iterations)
        gains = gains + chance.log(reached)
        best = int(np.argmax(gains))
        return np.array(reached[best] if gains[best] > worth[order[0]] else tried[order[0]])
