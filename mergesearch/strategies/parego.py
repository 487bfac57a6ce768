"""ParEGO: a new random weighting of the objectives for every ask, any number of them; a front where there are over 4.

Each ask scalarises the results by the augmented Tchebycheff function with weights from the simplex and maximises the
expected improvement of a Gaussian process of that number. Source: Knowles, IEEE TEVC 10(1), 2006. Ours: continuous
weights, log expected improvement, the known standard errors of the scores, and fantasies for what is pending.

An ask takes a tenth of a second of CPU time at 100 results and 2 to 7 s at 1,000.
"""

from collections.abc import Mapping
from typing import ClassVar, cast, final

import numpy as np
from pydantic import Field

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, rng
from mergesearch.strategies.surrogates.front_models import FrontModels
from mergesearch.strategies.surrogates.gaussian_process import Matrix, Sample, fit, process, typical
from mergesearch.types import Candidate, Vector

RHO = 0.05
_WEIGHTS = 5  # purpose of the random numbers that weights are drawn with


class Options(PluginOptions):
    """`startup`: points before the model is used, the seeds and points around the start; None: 2 (D + 1), at most a
    quarter of the budget. `spread`: standard deviation of those around the start, in unit-cube widths. `draws`:
    candidate points per ask. `restarts`: how many of them are followed uphill. `fantasies`: outcomes imagined for what
    is being evaluated. `starts`: beginnings of a thorough fit, which only the recommendation needs."""

    startup: int | None = Field(default=None, ge=1)
    spread: float = Field(default=0.2, gt=0, le=1)
    draws: int = Field(default=2048, ge=16)
    restarts: int = Field(default=5, ge=1)
    fantasies: int = Field(default=16, ge=1)
    starts: int = Field(default=3, ge=1)


@final
class Parego(Strategy):
    """Strategy; see `strategies/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = True

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self._options = chosen = cast(Options, options)
        self._models = FrontModels(problem, seed, chosen.startup, chosen.spread, chosen.starts)

    def ask(self, number: int) -> Proposal | None:
        """Never None."""
        models, options = self._models, self._options
        planned = models.design(number)
        if planned is not None:
            return planned
        generator = rng(models.seed, number, _WEIGHTS)
        weights = generator.dirichlet(np.ones(len(models.problem.objectives)))
        sample = self._scalarised(weights).standardised()[0]
        model = process(sample, fit(sample, [typical(models.problem.dim)]))
        point = models.single(model, number, options.draws, options.restarts, options.fantasies)
        return Proposal(models.told.apart(point, models.seed, number), "sample")

    def asked(self, candidate: Candidate) -> None:
        """Notes the candidate as pending."""
        self._models.told.asked(candidate)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Notes its losses."""
        self._models.told.tell(candidate, observation)

    def recommend(self) -> Vector | None:
        """The evaluated point with the least weighted posterior mean; None before the model is used."""
        return self._models.recommend()

    def diagnostics(self) -> Mapping[str, float]:
        """Counts, size of the front of posterior means, extreme length-scales, largest noise floor."""
        return self._models.diagnostics()

    def _scalarised(self, weights: Vector) -> Sample:
        results = self._models.told.results
        losses = np.array([result.losses for result in results])
        span = np.ptp(losses, axis=0)
        span = np.where(span > 0, span, 1.0)
        scaled = (losses - losses.min(axis=0)) / span
        stderr = np.array([result.stderr for result in results]) / span
        values, slopes = tchebycheff(scaled, weights)
        return Sample(self._models.told.points(), values, np.sum(np.square(slopes * stderr), axis=1))


def tchebycheff(losses: Matrix, weights: Vector, rho: float = RHO) -> tuple[Vector, Matrix]:
    """max_j(w_j f_j) + rho sum_j w_j f_j of losses (n, M) scaled to 0..1: values (n,) and slopes (n, M) in them."""
    parts = losses * weights
    largest = np.arange(len(weights)) == parts.argmax(axis=1)[:, None]
    return parts.max(axis=1) + rho * parts.sum(axis=1), weights * (largest + rho)
