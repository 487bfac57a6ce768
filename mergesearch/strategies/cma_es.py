"""CMA-ES in the unit cube, one objective (several as a weighted sum). Good from about 5 to some hundred axes.

Reference: Hansen, arXiv:1604.00772; the state and its updates are those of the package cma. Results may arrive in any
order: every `population_size` of them make one update, points drawn from an older distribution included, and an ask
draws from the distribution as it stands. Recommends the distribution's mean, which is a better pick from noisy scores
than the luckiest point. It does not restart; the step size in `diagnostics` says when it has converged.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast, final

import cma
import numpy as np
from cma.sigma_adaptation import CMAAdaptSigmaCSA
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, rng, weighted_loss
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Vector

_RESAMPLES = 100
_REACH = 5.0  # standard deviations to which one coordinate counts; only points from elsewhere have more
_CENTRE = ("start", "recommended")  # origins of points that were put at the mean, not drawn around it


class Options(PluginOptions):
    """`sigma0`: first step size, in unit-cube widths. `population_size`: results per update; None: twice the paper's
    4 + floor(3 ln D), since scores are noisy. `diagonal_above`: axes beyond which only variances are learned."""

    sigma0: float = Field(default=0.2, gt=0, le=1)
    population_size: PositiveInt | None = Field(default=None, ge=4)
    diagonal_above: int = Field(default=200, ge=0)


@dataclass(frozen=True, eq=False)
class _Result:
    """A told point (D,), its weighted loss (inf: failed), and how many updates had been made when it was asked."""

    number: int
    point: Vector
    loss: float
    generation: int


@final
class CmaEs(Strategy):
    """Strategy; see `strategies/base.py` for the contract.

    The start is evaluated first but makes no update, and neither does a recommended mean: a point at the mean says
    nothing about directions and would only shrink the step. Nor does a point from elsewhere that lies far outside.
    Points that leave the box are drawn again up to 100 times, then clipped; with a diagonal covariance each coordinate
    is drawn again by itself, which is the same distribution.
    """

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = False

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        chosen = cast(Options, options)
        self._problem, self._seed = problem, seed
        self._axes = max(problem.dim, 2)  # cma refuses a single axis: a second one, pure noise, rides along
        self._size = chosen.population_size or 2 * (4 + math.floor(3 * math.log(problem.dim)))
        self._diagonal = problem.dim > chosen.diagonal_above
        start = problem.start if problem.dim > 1 else np.append(problem.start, 0.5)
        self._cma = _new_state(start, chosen.sigma0, self._size, self._diagonal)
        self._turns = Turns()
        self._generation = 0
        self._asked_in: dict[int, int] = {}  # candidate number -> updates made when it was asked, until it is told
        self._waiting: list[_Result] = []
        self._told = self._failed = 0

    def ask(self, number: int) -> Proposal | None:
        """Never None: while results are awaited, more points are drawn from the same distribution."""
        if self._turns.of(number) == 0:
            return Proposal(self._problem.start, "start")
        return Proposal(self._draw(rng(self._seed, number)), "sample")

    def asked(self, candidate: Candidate) -> None:
        """Remembers which distribution the candidate belongs to."""
        self._turns = self._turns.after(candidate)
        if candidate.point is not None:
            self._asked_in[candidate.number] = self._generation

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Adds one result; makes an update when `population_size` have gathered."""
        generation = self._asked_in.pop(candidate.number, -1)
        if candidate.point is None:
            return
        self._told += 1
        self._failed += observation is None
        if candidate.origin in _CENTRE or self._is_far(candidate.point):
            return
        loss = math.inf if observation is None else weighted_loss(self._problem, observation.losses)
        self._waiting.append(_Result(candidate.number, candidate.point, loss, generation))
        if len(self._waiting) == self._size:
            self._update()

    def recommend(self) -> Vector | None:
        """The distribution's mean, clipped to the box; None before the first update."""
        return np.clip(self._cma.mean[: self._problem.dim], 0.0, 1.0) if self._generation else None

    def diagnostics(self) -> Mapping[str, float]:
        """Step size, widest and narrowest axis (standard deviations in unit-cube widths), updates made, failures."""
        deviations = np.asarray(self._cma.stds)[: self._problem.dim]
        return {
            "sigma": float(self._cma.sigma),
            "widest": float(deviations.max()),
            "narrowest": float(deviations.min()),
            "updates": float(self._generation),
            "population_size": float(self._size),
            "told": float(self._told),
            "failed": float(self._failed),
        }

    def _draw(self, generator: np.random.Generator) -> Vector:
        es, dim = self._cma, self._problem.dim
        spread = es.sigma * es.sigma_vec.scaling
        point: NDArray[np.float64] = es.mean + spread * es.sm.transform(generator.standard_normal(self._axes))
        for _ in range(_RESAMPLES - 1):
            outside = (point < 0.0) | (point > 1.0)
            if not outside[:dim].any():
                break
            again = es.mean + spread * es.sm.transform(generator.standard_normal(self._axes))
            point = np.where(outside, again, point) if self._diagonal else again
        return np.clip(point[:dim], 0.0, 1.0)

    def _is_far(self, point: Vector) -> bool:
        """True for a point more than twice as far out as the distribution reaches: it would tear it apart."""
        reach = math.sqrt(self._axes) + 2.0 * self._axes / (self._axes + 2.0)  # cma's own bound on a step
        step = np.concatenate([point - self._cma.mean[: len(point)], np.zeros(self._axes - len(point))])
        return bool(self._cma.mahalanobis_norm(step) > 2.0 * reach)

    def _update(self) -> None:
        """One update by the ranks of the results gathered, none if all failed.

        Failures come last. Equal losses keep the order of their numbers, which favours no direction and no length.
        """
        es, ranked = self._cma, sorted(self._waiting, key=lambda r: (r.loss, r.number))
        self._waiting = []
        if ranked[0].loss == math.inf:
            return
        points = []
        for result in ranked:
            point = self._padded(result)
            if result.generation != self._generation:  # drawn elsewhere: limit its length under today's distribution
                point = es.repair_genotype(point, copy_if_changed=True)
            if self._diagonal:
                point = np.clip(point, es.mean - _REACH * es.stds, es.mean + _REACH * es.stds)
            points.append(point)
        with warnings.catch_warnings():  # it warns of long vectors, which only its own tests need to know
            warnings.simplefilter("ignore", UserWarning)
            es.tell(points, list(range(len(points))), check_points=False)
            es.ask(1)  # brings its decomposition up to date, so that asking changes nothing
        self._generation += 1

    def _padded(self, result: _Result) -> Vector:
        """A copy of the result's point with (axes,) coordinates, the missing one drawn as if it had been asked."""
        es, missing = self._cma, self._axes - len(result.point)
        noise = rng(self._seed, result.number, purpose=1).standard_normal(missing)
        rest = es.mean[len(result.point) :] + es.stds[len(result.point) :] * noise
        return cast(Vector, np.concatenate([result.point, rest]))


def _new_state(start: Vector, sigma0: float, size: int, diagonal: bool) -> Any:
    """cma's own state. Its sampler is given zeros for random numbers: all of ours come from `rng`.

    Without a seed and with a `randn` of its own it never touches the global random state; -9 keeps it from printing and
    from writing files. The path-length rule (CSA) is set since the other one wants two mirrored samples per update.
    """
    settings = {
        "popsize": size,
        "seed": math.nan,
        "randn": _zeros,
        "verbose": -9,
        "AdaptSigma": CMAAdaptSigmaCSA,
        "CMA_diagonal": diagonal,
    }
    with warnings.catch_warnings():  # it adds a filter of its own to the global list
        state = cma.CMAEvolutionStrategy(start, sigma0, settings)
    state.ask(1)
    return state


def _zeros(*shape: int) -> NDArray[np.float64]:
    return np.zeros(shape)
