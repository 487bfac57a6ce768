"""MAP: one quadratic surrogate per objective, and the front that they predict. For one to about eight objectives.

Source: arXiv:2406.07529, with cures for its known faults: the fit is local (a box around the start, which follows
the predicted front), weighted and ridged; the search never leaves the box; what is predicted is evaluated, and the
surrogates are fitted again with it. Up to (D+1)(D+2)/2 unknowns per objective: with fewer points than that the form
shrinks to a diagonal or linear one, and `diagnostics` says so.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, cast, final

import numpy as np
from pydantic import Field, PositiveInt
from scipy.optimize import minimize

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, rng
from mergesearch.strategies.random import SobolPoints
from mergesearch.strategies.surrogates.linked_quadratic import Form, Matrix, Sample, Surrogate, best_fit, unknowns
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Vector, frozen_array

_LOG = logging.getLogger(__name__)
_DESIGN, _SEARCH, _NOISE = 1, 2, 3  # purposes of random numbers
_FEWEST = 6  # scored points below which nothing is fitted
_LEAP = 0.35  # step around a front point, in half-widths of the box (card 1b)


class Design(StrEnum):
    """Where the first points lie: a box around the start, or the whole unit cube."""

    LOCAL = "local"
    BOX = "box"


class Options(PluginOptions):
    """`design`: where the first points lie. `half_width`: of the local box, in unit-cube widths.
    `design_evaluations`: how many; None: twice the unknowns of the full form, at most a share of the budget.
    `design_share`: that share. `refits`: how often the surrogates are fitted in what is left. `generations`: of
    NSGA-III on the surrogates. `trust_r2`: leave-one-out R² below which every second point samples the box rather than
    the predicted front."""

    design: Design = Design.LOCAL
    half_width: float = Field(default=0.25, gt=0, le=1)
    design_evaluations: PositiveInt | None = None
    design_share: float = Field(default=0.6, gt=0, lt=1)
    refits: int = Field(default=6, ge=2)
    generations: PositiveInt = 40
    trust_r2: float = 0.7


@dataclass(frozen=True, eq=False)
class _Told:
    """An evaluated point (D,), its losses (M,) and items (M,); both None where it failed."""

    point: Vector
    losses: Vector | None
    n: Vector | None


@dataclass(frozen=True)
class _Round:
    """The `size` points from turn `first` on come from surrogates of the first `told` results."""

    first: int
    told: int
    size: int


@dataclass(frozen=True, eq=False)
class _Plan:
    """A round's surrogates, the box they are trusted in, and the points to evaluate in turn (f, D), spread first."""

    models: tuple[Surrogate, ...]
    low: Vector
    high: Vector
    points: Matrix
    trusted: bool


@final
class Map(Strategy):
    """Strategy; see `strategies/base.py` for the contract.

    First the design: the start, the problem's seeds, then scrambled Sobol points. Then rounds: what has been told is
    fitted, the predicted front is spread over the round's turns ('front'), more turns step around it ('sample').
    Rounds are dated by the log; their costly part is computed when a point is asked for, and kept.
    """

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = True

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self._options = cast(Options, options)
        self._problem, self._seed = problem, seed
        full = unknowns(Form.FULL, problem.dim)
        self._design = self._options.design_evaluations or 2 * full
        self._design = max(1, min(self._design, int(self._options.design_share * problem.evaluations)))
        self._wanted = 3 * full
        if problem.evaluations < self._wanted:
            _LOG.warning(
                "strategy 'map': %d evaluations are few for %d axes, a full quadratic wants %d; it falls back to a "
                "simpler form. Tie axes together, or use 'cma_es'.",
                *(problem.evaluations, problem.dim, self._wanted),
            )
        self._first = (problem.start, *problem.seeds[: self._design // 2])
        self._sobol = SobolPoints(problem.dim, seed, _DESIGN)
        self._turns = Turns()
        self._asked: list[Vector] = []
        self._told: list[_Told] = []
        self._rounds: list[_Round] = []
        self._plans: list[_Plan | None] = []  # of the rounds that were needed so far; None: too few points
        self._final: tuple[int, tuple[Surrogate, ...]] | None = None

    def ask(self, number: int) -> Proposal | None:
        """Never None."""
        turn = self._turns.of(number)
        if turn < len(self._first):
            return Proposal(self._first[turn], "start" if turn == 0 else "design")
        plan = self._plan() if self._rounds else None
        if plan is None:
            return Proposal(self._in_box(turn, *self._box(self._problem.start)), "design")
        place = turn - self._rounds[-1].first
        if not plan.trusted and place % 2:
            return Proposal(self._in_box(turn, plan.low, plan.high), "design")
        place = place if plan.trusted else place // 2
        if place < len(plan.points) and self._is_new(plan.points[place]):
            return Proposal(plan.points[place], "front")
        step = _LEAP * self._options.half_width * rng(self._seed, number, _NOISE).standard_normal(self._problem.dim)
        return Proposal(np.clip(plan.points[place % len(plan.points)] + step, plan.low, plan.high), "sample")

    def asked(self, candidate: Candidate) -> None:
        """Counts the turn; begins a round when the design or the last round is used up, within the budget."""
        self._turns = self._turns.after(candidate)
        if candidate.point is None:
            return
        self._asked.append(candidate.point)
        due = self._rounds[-1].first + self._rounds[-1].size if self._rounds else self._design
        if due <= self._turns.taken < self._problem.evaluations:
            size = max(1, math.ceil((self._problem.evaluations - self._design) / self._options.refits))
            scored = sum(t.losses is not None for t in self._told)
            self._rounds.append(_Round(self._turns.taken, len(self._told), size if scored >= _FEWEST else 2))

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Keeps the result for the next round. A failed candidate is left out of the fits."""
        if candidate.point is None:
            return
        if observation is None:
            self._told.append(_Told(candidate.point, None, None))
        else:
            self._told.append(_Told(candidate.point, frozen_array(observation.losses), frozen_array(observation.n)))

    def recommend(self) -> Vector | None:
        """The evaluated point with the least weighted sum of predicted losses; None before there are surrogates."""
        models = self._latest()
        if not models:
            return None
        points = self._scored(len(self._told))[0]
        return cast(Vector, points[int(np.argmin(self._weights() @ _predict(models, points).T))].copy())

    def diagnostics(self) -> Mapping[str, float]:
        """Budget and design against what a full quadratic wants; of each objective's fit the leave-one-out R², the
        form (1 linear, 2 diagonal, 3 full) and its unknowns; `front_trusted` 0.0 where some R² is below `trust_r2`."""
        figures = {
            "design": float(self._design),
            "budget": float(self._problem.evaluations),
            "budget_wanted": float(self._wanted),
            "told": float(len(self._told)),
            "failed": float(sum(t.losses is None for t in self._told)),
            "rounds": float(len(self._rounds)),
        }
        models = self._latest()
        for model in models:
            figures[f"r2.{model.objective.name}"] = model.r2 if np.isfinite(model.r2) else 0.0
            figures[f"form.{model.objective.name}"] = float(model.form)
            figures[f"unknowns.{model.objective.name}"] = float(unknowns(model.form, self._problem.dim))
        if models:
            figures["front_trusted"] = float(self._trusted(models))
        return figures

    def _weights(self) -> Vector:
        weights = np.array([o.weight for o in self._problem.objectives])
        return cast(Vector, weights / weights.sum())

    def _trusted(self, models: tuple[Surrogate, ...]) -> bool:
        return all(model.r2 >= self._options.trust_r2 for model in models)

    def _scored(self, told: int) -> tuple[Matrix, Matrix, Matrix]:
        """Points (k, D), losses (k, M) and items (k, M) of what was scored among the first `told` results."""
        kept = [(t.point, t.losses, t.n) for t in self._told[:told] if t.losses is not None and t.n is not None]
        if not kept:
            none = np.zeros((0, len(self._problem.objectives)))
            return np.zeros((0, self._problem.dim)), none, none
        points, losses, items = zip(*kept, strict=True)
        return np.array(points), np.array(losses), np.array(items)

    def _box(self, centre: Vector) -> tuple[Vector, Vector]:
        if self._options.design is Design.BOX:
            return np.zeros(self._problem.dim), np.ones(self._problem.dim)
        half = self._options.half_width
        return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)

    def _in_box(self, turn: int, low: Vector, high: Vector) -> Vector:
        return low + self._sobol[turn] * (high - low)

    def _is_new(self, point: Vector) -> bool:
        return not any(np.max(np.abs(point - old)) < 1e-9 for old in self._asked)

    def _models(self, told: int, centre: Vector) -> tuple[Surrogate, ...]:
        points, losses, items = self._scored(told)
        if len(points) < _FEWEST:
            return ()
        half = 0.5 if self._options.design is Design.BOX else self._options.half_width
        weight = np.ones(len(points))
        if self._options.design is Design.LOCAL:
            weight = np.exp(-0.5 * np.mean(np.square((points - centre) / half), axis=1))
        return tuple(
            best_fit(objective, Sample(points, losses[:, j], items[:, j], weight), centre, half)
            for j, objective in enumerate(self._problem.objectives)
        )

    def _centre(self, plan: _Plan | None) -> Vector:
        """Where the next fit is centred: amid the predicted front of the plan before it."""
        if plan is None or self._options.design is Design.BOX:
            return self._problem.start if self._options.design is Design.LOCAL else np.full(self._problem.dim, 0.5)
        return cast(Vector, plan.points.mean(axis=0))

    def _latest(self) -> tuple[Surrogate, ...]:
        """Surrogates of everything told."""
        if self._final is None or self._final[0] != len(self._told):
            before = self._plan() if self._rounds else None
            self._final = (len(self._told), self._models(len(self._told), self._centre(before)))
        return self._final[1]

    def _plan(self) -> _Plan | None:
        """The plan of the current round; those before it are computed first, since the box follows the front."""
        while len(self._plans) < len(self._rounds):
            index = len(self._plans)
            before = next((p for p in reversed(self._plans) if p is not None), None)
            centre = self._centre(before)
            models = self._models(self._rounds[index].told, centre)
            self._plans.append(self._solve(index, models, centre) if models else None)
        return self._plans[-1]

    def _solve(self, index: int, models: tuple[Surrogate, ...], centre: Vector) -> _Plan:
        low, high = self._box(centre)
        evaluated = np.clip(self._scored(self._rounds[index].told)[0], low, high)
        ideals = _scalar_optima(models, low, high, np.clip(centre, low, high))
        size = self._rounds[index].size
        if len(models) == 1:
            points = ideals
        else:
            from mergesearch.strategies.surrogates.surrogate_front import POPULATION, predicted_front  # heavy: pymoo

            random = rng(self._seed, index, _SEARCH)
            best = evaluated[np.argsort(self._weights() @ _predict(models, evaluated).T, kind="stable")]
            fill = low + random.random((POPULATION, len(low))) * (high - low)
            first = np.vstack([ideals, best[: POPULATION // 3], fill])
            points, losses = predicted_front(
                lambda x: _predict(models, x), low, high, first, self._options.generations, int(random.integers(2**31))
            )
            points = points[_spread(losses, size)]
        return _Plan(models, low, high, points, self._trusted(models))


def _predict(models: tuple[Surrogate, ...], points: Matrix) -> Matrix:
    """Predicted losses (k, M) at points (k, D)."""
    return np.stack([model.losses(points) for model in models], axis=1)


def _scalar_optima(models: tuple[Surrogate, ...], low: Vector, high: Vector, start: Vector) -> Matrix:
    """Points (k, D) of the box where each objective, and where their sum, is best by the linked quadratics."""
    mixes = list(np.eye(len(models)))
    if len(models) > 1:
        mixes.append(np.full(len(models), 1.0 / len(models)))
    found = []
    for mix in mixes:

        def value(x: Vector, mix: Vector = mix) -> tuple[float, Vector]:
            total = sum(w * float(m.linked(x[None])[0]) for w, m in zip(mix, models, strict=True))
            slope = np.sum([w * m.slope(x) for w, m in zip(mix, models, strict=True)], axis=0)
            return float(total), slope

        result = minimize(value, start, jac=True, method="L-BFGS-B", bounds=list(zip(low, high, strict=True)))
        found.append(np.clip(result.x, low, high))
    return np.array(found)


def _spread(losses: Matrix, count: int) -> list[int]:
    """At most `count` rows of a front (f, M): each objective's best, then always the row furthest from those chosen."""
    span = np.ptp(losses, axis=0)
    scaled = (losses - losses.min(axis=0)) / np.where(span > 0, span, 1.0)
    chosen = list(dict.fromkeys(int(i) for i in np.argmin(scaled, axis=0)))[:count]
    distance = np.min([np.linalg.norm(scaled - scaled[i], axis=1) for i in chosen], axis=0)
    while len(chosen) < count and float(distance.max()) > 0.0:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
    return chosen
