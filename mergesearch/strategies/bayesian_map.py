"""MAP whose points go where its surrogates are least sure, in turn with the front that they predict; to about 30 axes.

After BMAP, the adaptive variant in MAP's code (arXiv:2406.07529), as the method card recommends it, and free of its
faults: uncertainty is that of a Gaussian process, over all of the box rather than over visited bins of angles, so what
was never visited has the greatest; nothing is dropped cumulatively; any number of axes will do. The mean is the
quadratic of `quadratic_fit`; what it leaves over is a squared-exponential process whose length grows with the square
root of the number of axes (ours; Hvarfner et al., arXiv:2402.02229, scale it so), and points still awaited count as
visited.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, cast, final

import numpy as np
from pydantic import Field, PositiveInt
from scipy.linalg import cholesky, solve_triangular

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, rng
from mergesearch.strategies.random import SobolPoints
from mergesearch.strategies.surrogates.quadratic_fit import Matrix
from mergesearch.strategies.surrogates.quadratic_model import (
    AUGMENTED,
    Belief,
    Local,
    Results,
    believe,
    best_point,
    local,
)
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Vector, frozen_array

_DESIGN, _POOL, _WEIGHTS = 1, 2, 3  # purposes of random numbers
_FEWEST = 5  # scored points below which nothing is fitted
_NEAR = 64  # pool points around the model's optimum
_LENGTH = 0.6  # of the residual process, in half-widths times the square root of the axes
_NOISE = 0.1  # of the residual process, relative to its variance
_GROWTH = 1.15  # the priors are learned again when the results have grown by this factor
_CAP = 500  # results, the latest, that the residual process sees


class Options(PluginOptions):
    """`half_width`: of the box around the start, in unit-cube widths. `pool`: Sobol points among which the least sure
    is chosen. `explore`: share of the points that go there; the others go to the predicted front. `temperature`: of the
    choice by uncertainty (BMAP's is 0.07): small values take the least sure point. `design_evaluations`: points before
    the first fit; None: twice the axes and 2, at most a third of the budget."""

    half_width: float = Field(default=0.25, gt=0, le=1)
    pool: int = Field(default=256, ge=8, le=4096)
    explore: float = Field(default=0.5, ge=0, le=1)
    temperature: float = Field(default=0.07, gt=0)
    design_evaluations: PositiveInt | None = None


@final
class BayesianMap(Strategy):
    """Strategy; see `strategies/base.py` for the contract.

    The start, Sobol points of the box ('design'), then by turns points chosen by uncertainty ('sample') and the best
    predicted points under a preference drawn anew ('front').
    """

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = True

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self._options = cast(Options, options)
        self._problem, self._seed = problem, seed
        usual = max(_FEWEST, min(2 * problem.dim + 2, int(problem.evaluations / 3)))
        self._design = self._options.design_evaluations or usual
        self._sobol = SobolPoints(problem.dim, seed, _DESIGN)
        self._low = np.maximum(problem.start - self._options.half_width, 0.0)
        self._high = np.minimum(problem.start + self._options.half_width, 1.0)
        self._turns = Turns()
        self._pending: dict[int, Vector] = {}
        self._rows: list[tuple[Vector, Vector, Vector, Vector]] = []
        self._failed: list[Vector] = []
        self._beliefs: dict[int, tuple[Belief, ...]] = {}

    def ask(self, number: int) -> Proposal | None:
        """Never None."""
        turn = self._turns.of(number)
        if turn == 0:
            return Proposal(self._problem.start, "start")
        if turn < self._design or len(self._rows) < _FEWEST:
            return Proposal(self._low + self._sobol[turn] * (self._high - self._low), "design")
        random = rng(self._seed, number, _POOL)
        preference = rng(self._seed, number, _WEIGHTS).dirichlet(np.ones(len(self._problem.objectives)))
        model, results = self._model(preference)
        best = best_point(model, preference, *results.scaled())
        explores = math.floor((turn + 1) * self._options.explore) > math.floor(turn * self._options.explore)
        half = self._options.half_width
        near = np.clip(best + 0.15 * half * random.standard_normal((_NEAR, len(best))), self._low, self._high)
        if not explores:
            low, span = results.scaled()
            pool = np.vstack([best[None], near])
            shares = (model.losses(pool) - low) / span * preference
            value = shares.max(axis=1) + AUGMENTED * shares.sum(axis=1)
            visited = np.array([*(row[0] for row in self._rows), *self._pending.values()])
            gap = np.min(np.max(np.abs(pool[:, None] - visited[None, -_CAP:]), axis=2), axis=1)
            value = np.where(gap > 1e-6, value, np.inf)
            ahead = turn - self._turns.taken
            return Proposal(pool[np.argsort(value, kind="stable")[min(ahead, len(pool) - 1)]], "front")
        first = turn * self._options.pool % 65536
        pool = np.array([self._sobol[first + i] for i in range(self._options.pool)])
        pool = np.vstack([self._low + pool * (self._high - self._low), near])
        score = self.uncertainty(pool) / self._options.temperature
        chances = np.exp(score - score.max())
        return Proposal(pool[random.choice(len(pool), p=chances / chances.sum())], "sample")

    def asked(self, candidate: Candidate) -> None:
        """Counts the turn; the point counts as visited from now on."""
        self._turns = self._turns.after(candidate)
        if candidate.point is not None:
            self._pending[candidate.number] = candidate.point

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Keeps the result. A failed candidate is left out of the fits, but its place counts as visited."""
        self._pending.pop(candidate.number, None)
        if candidate.point is None:
            return
        if observation is None or not np.all(np.isfinite(observation.losses)):
            self._failed.append(candidate.point)
            return
        losses, stderr, n = observation.losses, observation.stderr, observation.n
        self._rows.append((candidate.point, frozen_array(losses), frozen_array(stderr), frozen_array(n)))

    def recommend(self) -> Vector | None:
        """The box's best point by the models under the objectives' weights, or the start where that is no worse."""
        if len(self._rows) < _FEWEST:
            return None
        weights = np.array([o.weight for o in self._problem.objectives])
        weights = weights / weights.sum() if weights.sum() > 0 else np.full(len(weights), 1.0 / len(weights))
        model, results = self._model(weights)
        best = best_point(model, weights, *results.scaled())
        low, span = results.scaled()
        values = ((model.losses(np.array([best, self._problem.start])) - low) / span) @ weights
        return best if values[0] < values[1] else self._problem.start.copy()

    def diagnostics(self) -> Mapping[str, float]:
        """Of each objective's fit the leave-one-out R² and form (1 linear, 2 one curvature, 3 diagonal, 4 crossed)."""
        figures = {"told": float(len(self._rows)), "failed": float(len(self._failed)), "design": float(self._design)}
        if len(self._rows) >= _FEWEST:
            for objective, belief in zip(self._problem.objectives, self._believed(), strict=True):
                figures[f"r2.{objective.name}"] = belief.r2
                figures[f"form.{objective.name}"] = float(belief.prior.form)
        return figures

    def uncertainty(self, points: Matrix) -> Vector:
        """Standard deviations (k,) of the residual process at points (k, D): 1 where nothing is near, so that unvisited
        regions have the most of it. It depends on where points lie and not on their losses: the same for all."""
        visited = [*(row[0] for row in self._rows), *self._failed, *self._pending.values()][-_CAP:]
        if not visited:
            return np.ones(len(points))
        length = _LENGTH * self._options.half_width * math.sqrt(self._problem.dim)
        known = np.array(visited)
        lower = cholesky(_squared_exponential(known, known, length) + _NOISE * np.eye(len(known)), lower=True)
        explained = solve_triangular(lower, _squared_exponential(known, points, length), lower=True)
        variance: Vector = np.sqrt(np.maximum(1.0 - np.sum(np.square(explained), axis=0), 0.0))
        return variance

    def _believed(self) -> tuple[Belief, ...]:
        at = _FEWEST
        while (after := max(at + 2, math.ceil(_GROWTH * at))) <= len(self._rows):
            at = after
        if at not in self._beliefs:
            self._beliefs[at] = believe(self._problem.objectives, self._results(at), self._options.half_width)
        return self._beliefs[at]

    def _results(self, count: int) -> Results:
        return Results(*(np.array(column) for column in zip(*self._rows[:count], strict=True)))

    def _model(self, preference: Vector) -> tuple[Local, Results]:
        """Quadratics of everything told, near the points that suit a preference (M,), trusted in the whole box."""
        results = self._results(len(self._rows))
        centre = np.clip(results.centre(preference), self._low, self._high)
        fitted = local(self._problem.objectives, self._believed(), results, centre, self._options.half_width)
        return Local(fitted.fits, fitted.links, centre, self._low, self._high), results


def _squared_exponential(a: Matrix, b: Matrix, length: float) -> Matrix:
    """Covariances (n, k) of points (n, D) and (k, D)."""
    squares = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1)[None] - 2.0 * a @ b.T
    covariance: Matrix = np.exp(-0.5 * np.maximum(squares, 0.0) / length**2)
    return covariance
