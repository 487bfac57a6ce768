"""CMA-ES in the unit cube, one objective (several as a weighted sum). Good from about 5 to some hundred axes.

Reference: Hansen, arXiv:1604.00772; the state and its updates are those of the package cma. Results may arrive in any
order: every `population_size` of them make one update, points drawn from an older distribution included, and an ask
draws from the distribution as it stands. Recommends the distribution's mean, which is a better pick from noisy scores
than the luckiest point. When nothing is left to learn it restarts nearby with twice the population and keeps the mean
of the better descent.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, cast, final

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, rng, weighted_loss
from mergesearch.strategies.evolving.cma_state import Form, State
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Vector

_CENTRE = ("start", "recommended")  # origins of points that were put at the mean, not drawn around it
_RESTART = 3  # purpose of random numbers
_NOISY = 0.5  # share of the losses' variance that is noise, from which updates are damped
_UPDATES_TO_DOUBLE = 8  # that a budget must hold with the doubled population: measured on noisy quadratics
_FEWEST_UPDATES = 5  # that must fit into what is left of the budget before it restarts
_VD_AXES = 10  # fewer are not for the limited-memory form, says its package


class Covariance(StrEnum):
    """What is learned of the distribution's shape; `auto`: full up to `diagonal_above` axes, then diagonal."""

    AUTO = "auto"
    FULL = "full"
    DIAGONAL = "diagonal"
    LIMITED_MEMORY = "limited_memory"


class Noise(StrEnum):
    """How it defends itself against noise, beside its population."""

    AUTO = "auto"
    POPULATION = "population"
    LEARNING_RATE = "learning_rate"


class Options(PluginOptions):
    """`sigma0`: first step size, in unit-cube widths. `population_size`: results per update; None: the paper's
    4 + floor(3 ln D), and twice that from 8 such updates on, since scores are noisy. `covariance`: what is learned of
    the shape: `full`, `diagonal` (variances alone), `limited_memory` (variances and one direction: VD-CMA) or `auto`.
    `diagonal_above`: axes beyond which `auto` learns variances only. `noise`: `population` relies on the doubled
    population; `learning_rate` also damps updates by their signal-to-noise ratio: better from some hundred evaluations
    on where noise is strong and differs between candidates, slower otherwise; `auto` begins to damp once standard
    errors explain half of the losses' variance; None: `auto` above `diagonal_above` axes, where noise would carry the
    mean off, else `population`. `restart_sigma`: it restarts when no axis has a larger standard
    deviation, in unit-cube widths; 0: never. `restart_within`: it restarts when the losses of a whole update lie within
    so many standard errors; 0: never. `restart_spread`: standard deviation of the new beginning around the start."""

    sigma0: float = Field(default=0.15, gt=0, le=1)
    population_size: PositiveInt | None = Field(default=None, ge=4)
    covariance: Covariance = Covariance.AUTO
    diagonal_above: int = Field(default=200, ge=0)
    noise: Noise | None = None
    restart_sigma: float = Field(default=1e-3, ge=0, lt=1)
    restart_within: float = Field(default=1.0, ge=0)
    restart_spread: float = Field(default=0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> "Options":
        if self.covariance is Covariance.LIMITED_MEMORY and self.noise is Noise.LEARNING_RATE:
            raise ValueError("noise 'learning_rate' needs covariance 'full' or 'diagonal'")
        return self


def default_size(dim: int, evaluations: float) -> int:
    """Twice the paper's 4 + floor(3 ln D), since scores are noisy; the paper's where the budget allows few updates."""
    size = 4 + math.floor(3 * math.log(dim))
    return 2 * size if evaluations >= _UPDATES_TO_DOUBLE * 2 * size else size


@dataclass(frozen=True, eq=False)
class _Result:
    """A told point (D,), its weighted loss (inf: failed) and standard error, and when it was asked: how many restarts
    and updates had been made by then."""

    number: int
    point: Vector
    loss: float
    stderr: float
    asked_in: tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Best:
    """The mean (D,) at which an earlier descent ended, and the mean loss of its last update."""

    mean: Vector
    loss: float


@final
class CmaEs(Strategy):
    """Strategy; see `strategies/base.py` for the contract.

    The start is evaluated first but makes no update, and neither does a recommended mean: a point at the mean says
    nothing about directions and would only shrink the step. Nor does a point from elsewhere that lies far outside.
    """

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = False

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self._problem, self._seed, self._options = problem, seed, cast(Options, options)
        self._notes: list[str] = []
        self._form = self._chosen_form()
        many = problem.dim > self._options.diagonal_above
        self._noise = self._options.noise or (Noise.AUTO if many else Noise.POPULATION)
        self._damped = self._noise is Noise.LEARNING_RATE
        size = self._options.population_size or default_size(problem.dim, problem.evaluations)
        self._state = self._new_state(problem.start, size)
        self._turns = Turns()
        self._asked_in: dict[int, tuple[int, int]] = {}  # candidate number -> restarts and updates made, until told
        self._waiting: list[_Result] = []
        self._restarts = self._updates = self._told = self._failed = 0
        self._best: _Best | None = None
        self._last = math.inf  # mean loss of the last update

    def ask(self, number: int) -> Proposal | None:
        """Never None: while results are awaited, more points are drawn from the same distribution."""
        if self._turns.of(number) == 0:
            return Proposal(self._problem.start, "start")
        return Proposal(self._state.draw(rng(self._seed, number)), "sample")

    def asked(self, candidate: Candidate) -> None:
        """Remembers which distribution the candidate belongs to."""
        self._turns = self._turns.after(candidate)
        if candidate.point is not None:
            self._asked_in[candidate.number] = (self._restarts, self._updates)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Adds one result; makes an update when `population_size` have gathered."""
        asked_in = self._asked_in.pop(candidate.number, (self._restarts, -1))
        if candidate.point is None:
            return
        self._told += 1
        self._failed += observation is None
        if candidate.origin in _CENTRE or asked_in[0] != self._restarts or self._state.is_far(candidate.point):
            return
        loss = math.inf if observation is None else weighted_loss(self._problem, observation.losses)
        stderr = 0.0 if observation is None else self._stderr(observation)
        self._waiting.append(_Result(candidate.number, candidate.point, loss, stderr, asked_in))
        if len(self._waiting) == self._state.size:
            self._update()

    def recommend(self) -> Vector | None:
        """The distribution's mean, or that of an earlier descent which ended lower; None before the first update."""
        if self._best is not None and self._best.loss <= self._last:
            return self._best.mean.copy()
        return self._state.mean if self._updates else None

    def diagnostics(self) -> Mapping[str, float]:
        """Step size, widest and narrowest axis (standard deviations in unit-cube widths), learning rate of the mean,
        updates and restarts made, failures."""
        deviations = self._state.deviations
        return {
            "sigma": self._state.sigma,
            "widest": float(deviations.max()),
            "narrowest": float(deviations.min()),
            "learning_rate": self._state.rates[0],
            "updates": float(self._updates),
            "restarts": float(self._restarts),
            "population_size": float(self._state.size),
            "told": float(self._told),
            "failed": float(self._failed),
        }

    def notes(self) -> tuple[str, ...]:
        """What form of the covariance it chose where that was not obvious, and each restart."""
        return tuple(self._notes)

    def _chosen_form(self) -> Form:
        """Full, diagonal or limited memory, by the options and the number of axes."""
        dim, wanted = self._problem.dim, self._options.covariance
        if wanted is Covariance.AUTO:
            if dim <= self._options.diagonal_above:
                return Form.FULL
            self._notes.append(f"{dim} axes are many: variances are learned, correlations are not")
            return Form.DIAGONAL
        if wanted is Covariance.LIMITED_MEMORY and dim < _VD_AXES:
            self._notes.append(f"{dim} axes are few: the full covariance is learned instead of a limited-memory one")
            return Form.FULL
        return Form(wanted.value)

    def _new_state(self, start: Vector, size: int) -> State:
        return State(start, self._options.sigma0, size, self._form, self._damped, self._seed)

    def _stderr(self, observation: Observation) -> float:
        """Standard error of the weighted loss, the objectives' errors taken as independent."""
        weights = np.array([o.weight for o in self._problem.objectives])
        return float(np.sqrt(np.sum(np.square(weights * observation.stderr))) / weights.sum())

    def _update(self) -> None:
        """One update by the ranks of the results gathered, none if all failed; then perhaps a restart.

        Failures come last. Equal losses keep the order of their numbers, which favours no direction and no length.
        """
        ranked = sorted(self._waiting, key=lambda r: (r.loss, r.number))
        self._waiting = []
        if ranked[0].loss == math.inf:
            return
        now = (self._restarts, self._updates)
        self._state.update(
            [r.point for r in ranked],
            [r.asked_in == now for r in ranked],
            lambda place: float(rng(self._seed, ranked[place].number, purpose=1).standard_normal()),
        )
        self._updates += 1
        scored = [r for r in ranked if r.loss < math.inf]
        self._watch_noise(scored)
        self._last = float(np.mean([r.loss for r in scored]))
        reason = self._reason_to_restart(scored)
        if reason and 2 * self._state.size * _FEWEST_UPDATES <= self._problem.evaluations - self._told:
            self._restart(reason)

    def _watch_noise(self, scored: list[_Result]) -> None:
        """Under `auto`: damps updates from now on, once standard errors explain most of the losses' variance."""
        if self._noise is not Noise.AUTO or self._damped or self._form is Form.LIMITED_MEMORY:
            return
        explained = float(np.mean([r.stderr**2 for r in scored]))
        if len(scored) > 1 and explained > _NOISY * float(np.var([r.loss for r in scored], ddof=1)):
            self._damped = True
            self._state.damp()
            self._notes.append(f"after {self._told} results noise outweighed the differences: updates are damped")

    def _reason_to_restart(self, scored: list[_Result]) -> str:
        """Why there is nothing left to learn here; '' where there is."""
        widest = float(self._state.deviations.max())
        if widest < self._options.restart_sigma:
            return f"its widest axis had a standard deviation of {widest:.1e}"
        error = float(np.median([r.stderr for r in scored]))
        span = scored[-1].loss - scored[0].loss
        if len(scored) == self._state.size and span < self._options.restart_within * error:
            return f"the losses of a whole update lay within {span:.2g}, their standard error is {error:.2g}"
        return ""

    def _restart(self, reason: str) -> None:
        """Keeps the mean, and begins again near the start with twice the population."""
        if self._best is None or self._last < self._best.loss:
            self._best = _Best(self._state.mean, self._last)
        self._restarts += 1
        size = 2 * self._state.size
        step = rng(self._seed, self._restarts, _RESTART).standard_normal(self._problem.dim)
        begin = np.clip(self._problem.start + self._options.restart_spread * step, 0.0, 1.0)
        self._state = self._new_state(begin, size)
        self._last = math.inf
        self._notes.append(f"after {self._told} results it restarted with a population of {size}: {reason}")
