"""Gaussian process with log expected improvement, one objective (several as a weighted sum). For dear evaluations.

Models the standard error that comes with each score, so that a score on few examples counts for little; what is still
being evaluated enters as fantasies, what failed as a chance of failing. Recommends the evaluated point with the best
posterior mean, never the luckiest score. Source: the reference of Jones et al. (1998) with the log form of
arXiv:2310.20708 and the trust region of TuRBO, Eriksson et al., arXiv:1910.01739.

An ask takes half a second of CPU time at 300 results and 7 to 20 s at 1,000: it is for evaluations that take minutes.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, cast, final

import numpy as np
from pydantic import Field

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, rng
from mergesearch.strategies.random import SobolPoints
from mergesearch.strategies.surrogates.acquisition import (
    Apart,
    Feasibility,
    LogImprovement,
    around,
    candidates,
    maximise,
)
from mergesearch.strategies.surrogates.gaussian_process import Matrix, Process, Sample, process
from mergesearch.strategies.surrogates.told import Fits, Told
from mergesearch.types import Candidate, Vector

_DESIGN, _SEARCH, _FANTASY = 1, 2, 3  # purposes of random numbers


class Options(PluginOptions):
    """`startup`: points drawn around the start before the model is used; None: 5 + D, at most 20 and a quarter of the
    budget. `spread`: their standard deviation in unit-cube widths. `draws`: candidate points per ask. `restarts`: how
    many of them are followed uphill. `starts`: beginnings of a thorough fit. `fantasies`: outcomes imagined for what
    is being evaluated. `trust_region_above`: axes beyond which proposals keep to a box around the best point.
    `side`: the box's first side, in unit-cube widths."""

    startup: int | None = Field(default=None, ge=1)
    spread: float = Field(default=0.2, gt=0, le=1)
    draws: int = Field(default=2048, ge=16)
    restarts: int = Field(default=5, ge=1)
    starts: int = Field(default=5, ge=1)
    fantasies: int = Field(default=16, ge=1)
    trust_region_above: int = Field(default=30, ge=0)
    side: float = Field(default=0.8, gt=0, le=1.6)


class TrustRegion:
    """Side of the box around the best point, from the weighted losses of proposals in the order in which they came.

    Doubled (to 1.6 at most) after 3 improvements in a row, halved after max(4, D) without one; below 2^-7 it begins
    anew (TuRBO-1 for one worker; ours: nothing is forgotten at a new beginning). An improvement is a loss below all
    earlier ones by a thousandth of their spread.
    """

    def __init__(self, dim: int, side: float) -> None:
        self.first = self.side = side
        self._patience = max(4, dim)
        self._best, self._worst = math.inf, -math.inf
        self._gains = self._misses = 0

    def tell(self, loss: float, counts: bool) -> None:
        """Counts one result; `counts` False: from elsewhere, which moves the bar only. inf: failed."""
        gained = loss < self._best - 1e-3 * max(self._worst - self._best, 0.0)
        if loss < math.inf:
            self._best, self._worst = min(self._best, loss), max(self._worst, loss)
        if not counts:
            return
        self._gains, self._misses = (self._gains + 1, 0) if gained else (0, self._misses + 1)
        if self._gains == 3:
            self.side, self._gains = min(2.0 * self.side, 1.6), 0
        elif self._misses == self._patience:
            self.side, self._misses = self.side / 2.0, 0
            if self.side < 2.0**-7:
                self.side = self.first


@final
class Gp(Strategy):
    """Strategy; see `strategies/base.py` for the contract.

    An ask takes about half a second of CPU time at 300 results, at 24 axes and at 96; the first one of a resumed study
    2 s, since it repeats the thorough fits. Beyond 300 results the fits are renewed seldom.
    """

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = False

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self._options = cast(Options, options)
        self._problem, self._seed = problem, seed
        startup = min(5 + problem.dim, 20, max(int(problem.evaluations / 4), 2))
        self._startup = startup if self._options.startup is None else self._options.startup
        self._design = SobolPoints(problem.dim, seed, _DESIGN)
        self._told = Told()
        self._fits = Fits(problem.dim, seed, self._options.starts)
        self._region = TrustRegion(problem.dim, self._options.side)
        self._model: tuple[int, Process] | None = None

    def ask(self, number: int) -> Proposal | None:
        """Never None."""
        turn = self._told.turns.of(number)
        if turn == 0:
            return Proposal(self._problem.start, "start")
        if turn <= self._startup or len(self._told.results) < 2:
            return Proposal(around(self._problem.start, self._design[turn - 1], self._options.spread), "design")
        return Proposal(self._told.apart(self._best_point(number), self._seed, number), "sample")

    def asked(self, candidate: Candidate) -> None:
        """Notes the candidate as pending."""
        self._told.asked(candidate)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Notes its losses and adapts the trust region."""
        before = len(self._told.results)
        if self._told.tell(candidate, observation):
            scored = len(self._told.results) > before
            loss = float(self._sample().targets[-1]) if scored else math.inf
            self._region.tell(loss, candidate.origin == "sample")

    def recommend(self) -> Vector | None:
        """The evaluated point with the least posterior mean; None before the model is used."""
        if len(self._told.results) < max(self._startup, 2):
            return None
        model = self._fitted()
        return np.array(model.points[int(np.argmin(model.fitted()[:, 0]))])

    def diagnostics(self) -> Mapping[str, float]:
        """Counts; shortest and longest length-scale, noise floor and output variance of the fit; side of the region."""
        figures = {
            "told": float(len(self._told.results)),
            "failed": float(len(self._told.failed)),
            "side": self._region.side,
        }
        if len(self._told.results) < max(self._startup, 2):
            return figures
        hyper = self._fitted().hyper
        return figures | {
            "shortest": float(hyper.lengths.min()),
            "longest": float(hyper.lengths.max()),
            "noise": hyper.noise,
            "output": hyper.output,
        }

    def _sample(self) -> Sample:
        return self._told.weighted(self._problem)

    def _fitted(self) -> Process:
        """The process of all results; cached by how many there are."""
        count = len(self._told.results)
        if self._model is None or self._model[0] != count:
            sample = self._sample()
            self._model = (count, process(sample.standardised()[0], self._fits.at(sample)))
        return self._model[1]

    def _best_point(self, number: int) -> Vector:
        dim, generator = self._problem.dim, rng(self._seed, number, _SEARCH)
        model = self._fitted()
        centre = model.points[int(np.argmin(model.fitted()[:, 0]))]
        low, high = self._box(model, centre)
        pending = self._told.pending_points(dim)
        if len(pending):
            normals = rng(self._seed, number, _FANTASY).standard_normal((self._options.fantasies, len(pending)))
            model = model.with_pending(pending, normals)
        target = LogImprovement.of(model, Feasibility.of(self._told.points(), self._told.failed_points(dim)))
        order = np.argsort(model.fitted().mean(axis=1), kind="stable")[:4]
        tried = candidates(model.points[order], low, high, self._options.draws, generator)
        if dim > self._options.trust_region_above:
            tried = _partly(tried, centre, generator)
        return maximise(target, tried, low, high, self._options.restarts, self._apart(pending, low, high))

    def _apart(self, pending: Matrix, low: Vector, high: Vector) -> Apart:
        """Keeps off what is being evaluated, by a twentieth of the box' diagonal, less as results grow dense (ours).

        Fantasies do not, where the noise is large: a point repeated then brings as much as one beside it.
        """
        dense = min(1.0, (40.0 / len(self._told.results)) ** (1.0 / len(low)))
        return Apart(pending, 0.051 * dense * float(np.linalg.norm(high - low)))

    def _box(self, model: Process, centre: Vector) -> tuple[Vector, Vector]:
        """The cube, or the trust region around the centre: longer along axes with longer length-scales."""
        if self._problem.dim <= self._options.trust_region_above:
            return np.zeros(len(centre)), np.ones(len(centre))
        relative = np.exp(np.log(model.hyper.lengths) - np.log(model.hyper.lengths).mean())
        half = 0.5 * self._region.side * np.clip(relative, 0.25, 4.0)
        return np.clip(centre - half, 0.0, 1.0), np.clip(centre + half, 0.0, 1.0)


def _partly(points: Matrix, centre: Vector, generator: np.random.Generator) -> Matrix:
    """Points (k, D) with about 20 coordinates of their own, the others the centre's (TuRBO)."""
    own = generator.uniform(size=points.shape) < min(20.0 / points.shape[1], 1.0)
    return np.where(own, points, centre)
