"""Sequential local quadratics, one per objective: the best search by values alone, for one merge or a whole front.

Ours, after card 1b of MAP's variants (arXiv:2406.07529 is MAP): quadratics of all losses are fitted again after every
result, near the points that suit one preference, and their best point within a trust box is evaluated. The forms grow
with the data (`quadratic_fit`), links follow the metric (`quadratic_links`). Good from some 30 evaluations, for 1 to
about 8 objectives, to 100 axes and more. Every preference is a new weight vector, spread evenly over the simplex, under
an augmented Chebyshev value, so that concave fronts are reached too. Where the fits say nothing of points that they
have not seen, every second point is a step between good points instead, as differential evolution takes it.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, cast, final

import numpy as np
from pydantic import Field, PositiveInt

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, rng
from mergesearch.strategies.random import SobolPoints
from mergesearch.strategies.surrogates.quadratic_fit import Form
from mergesearch.strategies.surrogates.quadratic_model import (
    Belief,
    Local,
    Results,
    believe,
    best_point,
    local,
    metric,
    widened,
)
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Vector, frozen_array

_DESIGN, _NOISE, _PREFERENCE = 1, 2, 3  # purposes of random numbers
_FEWEST = 5  # scored points below which nothing is fitted
_EVERY_TELL = 300  # results up to which each one is fitted at once; beyond, every ceil(sqrt n)-th
_GROWTH = 1.1  # links, forms and variances are chosen again when the results have grown by this factor
_WIDER = 1.5  # of the trust box, where it holds back a trusted model
_CLOSE = 0.2  # share of the step around a model's optimum while other results are awaited
_SURE = 0.8  # leave-one-out R² from which the box may widen


class Options(PluginOptions):
    """`radius`: half-width of the trust box, in unit-cube widths. `step`: standard deviation of exploring points around
    the model's optimum, in radii; None: 0.5 for one objective, 0.25 for a front. `design_evaluations`: points before
    the first fit; None: half the axes and 2, at most a quarter of the budget. `trust_r2`: leave-one-out R² below which
    the box is halved and every second point is a step between good points."""

    radius: float = Field(default=0.2, gt=0, le=1)
    step: float | None = Field(default=None, gt=0, le=2)
    design_evaluations: PositiveInt | None = None
    trust_r2: float = Field(default=0.2, le=1)


@final
class QuadraticSearch(Strategy):
    """Strategy; see `strategies/base.py` for the contract.

    The start, then Sobol points of the trust box around it ('design'), then the model's optimum ('front') in turn with
    steps around it ('sample'): one in four for one objective, where only the last counts, every second for a front.
    While results are awaited, the optimum too is asked for with a small step, so that no two points are the same.
    """

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = True

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self._options = cast(Options, options)
        self._problem, self._seed = problem, seed
        self._many = len(problem.objectives)
        usual = max(_FEWEST, min(problem.dim // 2 + 2, int(problem.evaluations / 4)))
        self._design = self._options.design_evaluations or usual
        self._step = self._options.step or (0.5 if self._many == 1 else 0.25)
        self._sobol = SobolPoints(problem.dim, seed, _DESIGN)
        self._shift = rng(seed, 0, _PREFERENCE).random(max(self._many - 1, 1))
        self._turns = Turns()
        self._asked: set[bytes] = set()
        self._awaited: set[int] = set()
        self._failed = 0
        self._rows: list[tuple[Vector, Vector, Vector, Vector]] = []  # point, losses, standard errors, items
        self._beliefs: dict[int, tuple[Belief, ...]] = {}  # by how many results they were learned from
        self._last: tuple[int, bytes, Local] | None = None

    def ask(self, number: int) -> Proposal | None:
        """Never None."""
        turn = self._turns.of(number)
        if turn == 0:
            return Proposal(self._problem.start, "start")
        if turn < self._design or len(self._rows) < _FEWEST:
            return Proposal(self._in_box(turn), "design")
        random = rng(self._seed, number, _NOISE)
        results, preference = self._results(self._dated()), self._preference(turn)
        if turn % 2 and not self._trusted(len(results.points)):
            return Proposal(self._between(results, preference, random), "sample")
        model = self._local(results, preference)
        best = self._aim(model, results, preference)
        exploits = turn % (4 if self._many == 1 else 2) == 0
        alone = not self._awaited and turn == self._turns.taken
        if exploits and alone and best.tobytes() not in self._asked:
            return Proposal(best, "front")
        step = self._step * (_CLOSE if exploits else 1.0) * self._radius(len(results.points))
        noise = metric(model, preference, random.standard_normal(self._problem.dim))
        return Proposal(np.clip(best + step * noise, 0.0, 1.0), "front" if exploits else "sample")

    def asked(self, candidate: Candidate) -> None:
        """Counts the turn and remembers what is awaited."""
        self._turns = self._turns.after(candidate)
        if candidate.point is not None:
            self._asked.add(candidate.point.tobytes())
            self._awaited.add(candidate.number)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Keeps the result. A failed candidate is left out of the fits."""
        self._awaited.discard(candidate.number)
        if candidate.point is None:
            return
        if observation is None or not np.all(np.isfinite(observation.losses)):
            self._failed += 1
            return
        losses, stderr, n = observation.losses, observation.stderr, observation.n
        self._rows.append((candidate.point, frozen_array(losses), frozen_array(stderr), frozen_array(n)))

    def recommend(self) -> Vector | None:
        """The model's optimum under the objectives' weights, or the start where that is predicted to be no worse; None
        before there is a model."""
        if len(self._rows) < _FEWEST:
            return None
        results, weights = self._results(len(self._rows)), self._weights()
        model = self._local(results, weights)
        best = self._aim(model, results, weights)
        low, span = results.scaled()
        values = ((model.losses(np.array([best, self._problem.start])) - low) / span) @ weights
        return best if values[0] < values[1] else self._problem.start.copy()

    def diagnostics(self) -> Mapping[str, float]:
        """Of each objective's fit the leave-one-out R² of its losses, its form (1 linear, 2 one curvature, 3 diagonal,
        4 crossed) and whether a saturating link was taken; `trusted` 0.0 where some R² is below `trust_r2`."""
        count = len(self._rows)
        figures = {"told": float(count), "failed": float(self._failed), "design": float(self._design)}
        if count < _FEWEST:
            return figures
        for objective, belief in zip(self._problem.objectives, self._believed(count), strict=True):
            figures[f"r2.{objective.name}"] = belief.r2
            figures[f"form.{objective.name}"] = float(belief.prior.form)
            figures[f"saturating.{objective.name}"] = float(belief.ceiling > 0.0)
        figures["trusted"] = float(self._trusted(count))
        figures["radius"] = self._radius(count)
        return figures

    def notes(self) -> tuple[str, ...]:
        """What was fitted after 10, 20, 40, ... results, and where that is not trusted."""
        sentences, count = [], 10
        while count <= len(self._rows):
            fits = ", ".join(
                f"{o.name} {Form(b.prior.form).name.lower()}{' behind a saturating link' if b.ceiling else ''}"
                f" (R² {b.r2:.2f})"
                for o, b in zip(self._problem.objectives, self._believed(count), strict=True)
            )
            doubt = "" if self._trusted(count) else "; not trusted: the box is halved and half of the points are steps"
            sentences.append(f"after {count} results the losses were fitted as {fits}{doubt}")
            count *= 2
        return tuple(sentences)

    def _weights(self) -> Vector:
        weights = np.array([o.weight for o in self._problem.objectives])
        total = float(weights.sum())
        return cast(Vector, weights / total if total > 0.0 else np.full(self._many, 1.0 / self._many))

    def _preference(self, turn: int) -> Vector:
        """Weights (M,) of a turn, evenly spread over the simplex: gaps between the sorted coordinates of Roberts'
        additive sequence (the generalised golden ratio), shifted by the seed."""
        m = self._many
        ratio = 2.0
        for _ in range(40):
            ratio = (1.0 + ratio) ** (1.0 / m)
        u = (self._shift[: m - 1] + turn * ratio ** -np.arange(1.0, m)) % 1.0
        return cast(Vector, np.diff(np.concatenate([[0.0], np.sort(u), [1.0]])))

    def _in_box(self, turn: int) -> Vector:
        low = np.maximum(self._problem.start - self._options.radius, 0.0)
        high = np.minimum(self._problem.start + self._options.radius, 1.0)
        return cast(Vector, low + self._sobol[turn] * (high - low))

    def _between(self, results: Results, preference: Vector, random: np.random.Generator) -> Vector:
        """One of the best tenth under a preference (D,), moved by half the difference of two other good points."""
        order = np.argsort(results.badness(preference), kind="stable")
        few = order[: max(3, len(order) // 10)]
        parent, left = (results.points[i] for i in random.choice(few, 2, replace=False))
        right = results.points[random.choice(order[: max(4, len(order) // 2)])]
        noise = 0.1 * self._options.radius * random.standard_normal(self._problem.dim)
        return cast(Vector, np.clip(parent + 0.5 * (left - right) + noise, 0.0, 1.0))

    def _dated(self) -> int:
        """How many of the results the next fit sees."""
        count = len(self._rows)
        return count if count <= _EVERY_TELL else count - count % math.ceil(math.sqrt(count))

    def _results(self, count: int) -> Results:
        return Results(*(np.array(column) for column in zip(*self._rows[:count], strict=True)))

    def _believed(self, count: int) -> tuple[Belief, ...]:
        """Links and priors for so many results, learned from as many or a little fewer."""
        at = _FEWEST
        while (after := max(at + 2, math.ceil(_GROWTH * at))) <= count:
            at = after
        if at not in self._beliefs:
            self._beliefs[at] = believe(self._problem.objectives, self._results(at), self._options.radius)
        return self._beliefs[at]

    def _trusted(self, count: int) -> bool:
        return all(belief.r2 >= self._options.trust_r2 for belief in self._believed(count))

    def _radius(self, count: int) -> float:
        return self._options.radius * (1.0 if self._trusted(count) else 0.5)

    def _local(self, results: Results, preference: Vector) -> Local:
        """Fits near the points that suit a preference (M,)."""
        count, centre = len(results.points), results.centre(preference)
        if self._last is None or self._last[:2] != (count, centre.tobytes()):
            model = local(self._problem.objectives, self._believed(count), results, centre, self._radius(count))
            self._last = count, centre.tobytes(), model
        return self._last[2]

    def _aim(self, model: Local, results: Results, preference: Vector) -> Vector:
        """The model's best point (D,) under a preference, in a wider box where this one holds a sure model back."""
        low, span = results.scaled()
        best = best_point(model, preference, low, span)
        if min(belief.r2 for belief in self._believed(len(results.points))) < _SURE:
            return best
        wider = widened(model, best, _WIDER)
        return best if wider is None else best_point(wider, preference, low, span)
