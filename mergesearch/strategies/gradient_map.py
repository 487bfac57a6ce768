"""Layer-wise fronts by gradients: surrogates of the losses guide, the metrics choose. Best from 10 to 400 axes.

Needs an operator and scorers that give gradients. Each evaluation with a gradient gives D equations per objective, from
which low-rank quadratic surrogates of the differentiable losses (`gradient_surrogate.py`) are built after tens of
evaluations. They are asked for many preferences at once (`gradient_front.py`); the point that adds most to the front of
expected metrics comes next: with a gradient while the surrogates are still learning, without once they are known. Steps
are as long as earlier predictions came true (`trust.py`). Gradients that do not explain how the losses change are
reported and left alone; the search then goes on by values (`local_values.py`). The combination is this project's own.

An ask takes up to 0.3 s of CPU time at 384 axes; the first one of a resumed study a second for every hundred gradients.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast, final

import numpy as np
from pydantic import Field, PositiveInt

from mergesearch.errors import SpecError
from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Need, Observation, Problem, Proposal, Strategy, rng, weighted_loss
from mergesearch.strategies.reference import Reference
from mergesearch.strategies.surrogates import gradient_front as fronts
from mergesearch.strategies.surrogates import trust as trusting
from mergesearch.strategies.surrogates.gradient_front import Reach, Ruler
from mergesearch.strategies.surrogates.gradient_surrogate import Matrix, Records, Surrogate, surrogate
from mergesearch.strategies.surrogates.local_values import LocalFit, Values, local_fit
from mergesearch.strategies.surrogates.trust import Trust
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Request, Vector

_MEMORY = 64  # evaluations with gradients that the surrogates keep
_PATIENCE = 8  # evaluations told, none with a gradient, before values must do
_UNINFORMED = 8  # points asked at most before the first gradient is told
_BLIND = 3  # of them with gradients: the rest cost less, and the next ones will know more
_FEWEST, _FIRST = 3, 8  # gradients asked for whatever the budget, and before any plain evaluation
_FRESH = 16  # points asked until other preferences are drawn
_JITTER = 0.03  # of the cap: keeps points distinct and steps in general position
_SMOOTH = 0.05  # of the cap: gradients of points closer than this are averaged


class Options(PluginOptions):
    """`loss`: the differentiable loss that guides; None: the one the study prefers. `radius`: first step, in unit-cube
    widths per axis (root mean square). `preferences`: weights asked at once. `gradient_share`: share of the budget
    spent on evaluations with gradients; with one objective they take nearly all of it."""

    loss: str | None = None
    radius: float = Field(default=0.06, gt=0, le=0.5)
    preferences: PositiveInt = Field(default=48, le=1000)
    gradient_share: float = Field(default=0.35, gt=0, le=1)


@dataclass(frozen=True, eq=False)
class _View:
    """What the log so far amounts to. `spread` are points by preference, `own` the one for the study's weights."""

    surrogate: Surrogate
    trust: Trust
    ruler: Ruler
    records: Records
    weights: Matrix
    spread: Matrix
    predicted: Matrix

    def believed(self, points: Matrix) -> Matrix:
        """Expected metric losses (k, M) of points (k, D): less noisy than what was measured there."""
        return self.ruler.losses(self.surrogate.guides(points))


@final
class GradientMap(Strategy):
    """Strategy; see `strategies/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = True
    NEEDS: ClassVar[frozenset[Need]] = frozenset({Need.GRADIENTS})

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        chosen = cast(Options, options)
        if chosen.loss is not None and problem.gradients and chosen.loss not in problem.gradients:
            raise SpecError(f"gradient_map: loss {chosen.loss!r} is not one of {', '.join(problem.gradients)}")
        self._problem, self._seed, self._options = problem, seed, chosen
        self._loss = (chosen.loss or problem.gradients[0]) if problem.gradients else ""
        self._weights = np.array([o.weight for o in problem.objectives])
        self._weights = self._weights / self._weights.sum() if self._weights.sum() > 0 else self._weights + 1.0
        self._turns, self._busy = Turns(), dict[int, Candidate]()
        self._reference = Reference()
        self._points: list[Vector] = []  # everything asked, for what is expected of it
        self._wanted = 0  # gradients asked for
        self._missing = 0  # evaluations that brought none
        self._guides: list[tuple[Vector, Vector, Matrix, Vector | None]] = []
        self._values: list[tuple[Vector, Vector, Vector]] = []
        self._events: list[int | None] = []  # row of `_guides`, or None for a failure, in the order told
        self._agreement = trusting.no_agreement(len(problem.objectives))
        self._faulty: tuple[int, ...] = ()
        self._notes: list[str] = []
        self._trust = trusting.first_trust(len(problem.objectives), chosen.radius, problem.dim)
        self._folded = 0
        self._cached: tuple[tuple[int, int], _View] | None = None
        self._fitted: tuple[int, LocalFit] | None = None

    def ask(self, number: int) -> Proposal | None:
        """The start with its gradient, then points of the expected front; by values where gradients do not serve."""
        turn, ahead = self._turns.of(number), max(number - self._turns.following, 0)
        if turn == 0:
            return Proposal(self._problem.start, "start", self._request(0))
        generator = rng(self._seed, number)
        if self._by_values():
            return Proposal(self._by_value(generator, number), "sample")
        if not self._guides:
            if turn >= _UNINFORMED and self._coming():
                return None  # the first gradient says more than any further guess
            return Proposal(self._near_start(turn, generator), "design", self._request(ahead))
        view, request = self._view(), self._request(ahead)
        known = view.believed(np.array(self._points or view.records.points))
        corner = self._reference.corner if turn % 2 else None  # the whole front in turn with what beats the base
        order = fronts.spread_order(view.predicted, known, ahead + 1, corner)
        best = view.spread[order[ahead % len(order)]]
        jitter = _JITTER * view.trust.cap
        if len(view.spread) == 1:  # one objective: what waits already covers the optimum
            distance = float(np.min(np.linalg.norm(view.surrogate.nodes - best, axis=1)))
            jitter = max(1e-3 * jitter, 0.3 * distance * math.sqrt(len(self._busy) + ahead))
        point = best + jitter / math.sqrt(len(best)) * generator.standard_normal(len(best))
        return Proposal(np.clip(point, 0.0, 1.0), "gradient" if request.gradient else "front", request)

    def asked(self, candidate: Candidate) -> None:
        """Counts turns and gradients, and remembers what is being evaluated."""
        self._turns = self._turns.after(candidate)
        if candidate.point is None:
            return
        self._points.append(candidate.point)
        self._busy[candidate.number] = candidate
        self._wanted += bool(candidate.request.gradient)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Keeps guides and gradients apart from metric losses; a failure shortens the steps."""
        self._busy.pop(candidate.number, None)
        if candidate.point is None:
            self._reference = self._reference.after(candidate, observation)
            return
        if observation is None:
            self._events.append(None)
            return
        complete = candidate.request.complete and bool(np.isfinite(observation.losses).all())
        if complete:
            self._values.append((candidate.point, observation.losses, observation.n))
        guides, gradients = observation.guides, observation.gradients
        if guides is None or gradients is None or not (np.isfinite(guides).all() and np.isfinite(gradients).all()):
            self._missing += not self._guides
            self._say_if_missing()
            return
        self._events.append(len(self._guides))
        self._guides.append((candidate.point, guides, gradients, observation.losses if complete else None))
        self._check_gradients()

    def recommend(self) -> Vector | None:
        """The surrogates' optimum for the study's weights; None before anything is known."""
        if self._by_values():
            if len(self._values) < 2:
                return None
            found = self._fit().optimum(self._value_weights(self._weights), rng(self._seed, 0, 1))
            return np.array(found)
        return self._view().spread[0].copy() if self._guides else None

    def diagnostics(self) -> Mapping[str, float]:
        """Greatest step, error of the last prediction, agreement of gradients and changes (1: true), counts."""
        trust = self._fold()
        figures = {
            "cap": trust.cap,
            "error": trust.ratio,
            "gradients": float(len(self._guides)),
            "values": float(len(self._values)),
            "by_values": float(self._by_values()),
        }
        names = [o.name for o in self._problem.objectives]
        return figures | {f"agreement[{n}]": float(a) for n, a in zip(names, self._agreement.cosine, strict=True)}

    def notes(self) -> tuple[str, ...]:
        """Why gradients were left alone, if they were."""
        return tuple(self._notes)

    def _by_values(self) -> bool:
        return not self._loss or bool(self._faulty) or (not self._guides and self._missing >= _PATIENCE)

    def _coming(self) -> int:
        """Evaluations with gradients that are under way."""
        return sum(bool(c.request.gradient) for c in self._busy.values())

    def _request(self, ahead: int) -> Request:
        """With a gradient while their share of the budget lasts."""
        if self._by_values():
            return Request()
        problem, wanted = self._problem, self._wanted + ahead
        if not self._guides and self._coming() + ahead >= _BLIND:
            return Request()
        share = 0.9 if len(self._weights) == 1 else self._options.gradient_share
        most = max(_FEWEST, int(share * problem.evaluations / problem.gradient_cost))
        others = len(self._points) - self._wanted
        due = share >= 0.9 or wanted < _FIRST or problem.gradient_cost * wanted * (1.0 - share) < share * others
        return Request(gradient=self._loss) if wanted < most and due else Request()

    def _near_start(self, turn: int, generator: np.random.Generator) -> Vector:
        """Before any gradient is told: towards the seeds in turn, or in random directions."""
        problem, radius = self._problem, self._options.radius
        away = generator.standard_normal(problem.dim)
        if turn <= len(problem.seeds):
            toward = problem.seeds[turn - 1] - problem.start
            length = float(np.sqrt(np.mean(np.square(toward))))
            away = 0.1 * away + (toward / length if length > 1e-12 else 0.0)
        return np.clip(problem.start + radius * away, 0.0, 1.0)

    def _fold(self) -> Trust:
        """The trust after all that was told: each prediction is made from the records before it."""
        while self._folded < len(self._events):
            row = self._events[self._folded]
            self._folded += 1
            if row is None:
                self._trust = self._trust.failed()
            elif row > 0:
                before = _stack(self._guides[max(0, row - _MEMORY) : row])
                self._trust = self._trust.seen(self._surrogate(before, self._trust), *self._guides[row][:2])
        return self._trust

    def _surrogate(self, records: Records, trust: Trust) -> Surrogate:
        scale = np.linalg.norm(records.gradients[0], axis=1)
        sums = records.guides @ (self._weights / np.where(scale > 1e-300, scale, 1.0))
        centre = records.points[int(np.argmin(sums))]
        distances = np.linalg.norm(records.points - centre, axis=1)
        return surrogate(records, centre, max(float(np.median(distances)), trust.cap), _SMOOTH * trust.cap)

    def _view(self) -> _View:
        key = (len(self._events), len(self._points) // _FRESH)
        if self._cached is None or self._cached[0] != key:
            self._cached = (key, self._looked(key[1]))
        return self._cached[1]

    def _looked(self, epoch: int) -> _View:
        trust, kept = self._fold(), self._guides[-_MEMORY:]
        records = _stack(kept)
        model = self._surrogate(records, trust)
        both = [(g, loss) for _, g, _, loss in self._guides if loss is not None]
        scale = fronts.ruler(np.array([g for g, _ in both]), np.array([loss for _, loss in both])) if both else None
        scale = scale or Ruler(np.zeros(len(self._weights)), np.ones(len(self._weights)))
        weights = fronts.preferences(self._options.preferences, self._weights, 1000 * self._seed + epoch)
        reach, corner = Reach(trust.cap, trust.cubic), self._reference.corner
        spread = fronts.minima(model, weights * scale.slope, reach, records.guides)
        if corner is not None and len(weights) > 1:  # and with preferences near those that lead beyond the corner
            near = fronts.focused(weights, scale.losses(model.guides(spread)), corner, rng(self._seed, epoch, 2))
            spread = np.vstack([spread, fronts.minima(model, near * scale.slope, reach, records.guides)])
            weights = np.vstack([weights, near])
        return _View(model, trust, scale, records, weights, spread, scale.losses(model.guides(spread)))

    def _check_gradients(self) -> None:
        """Compares the newest gradient with the change that was seen."""
        if self._faulty or len(self._guides) < 2:
            return
        self._agreement = self._agreement.after(_stack(self._guides[-_MEMORY - 1 : -1]), _stack(self._guides[-1:]))
        self._faulty = self._agreement.faulty
        if self._faulty:
            found = self._agreement.cosine
            names = ", ".join(f"{self._problem.objectives[j].name} ({found[j]:+.2f})" for j in self._faulty)
            self._notes.append(
                f"the gradients of {self._loss!r} do not explain how it changed over {self._agreement.steps} steps "
                f"(+1 is right, -1 a wrong sign): {names}; the search goes on by values alone"
            )

    def _say_if_missing(self) -> None:
        if self._loss and not self._guides and self._missing == _PATIENCE:
            self._notes.append(f"{_PATIENCE} evaluations brought no gradients; the search goes on by values alone")

    def _value_weights(self, weights: Vector) -> Vector:
        spread = np.std([loss for _, loss, _ in self._values], axis=0)
        found: Vector = weights / np.where(spread > 1e-12, spread, 1.0)
        return found

    def _fit(self) -> LocalFit:
        if self._fitted is None or self._fitted[0] != len(self._values):
            points, losses, n = (np.array(part) for part in zip(*self._values, strict=True))
            radius = min(2.0 * self._options.radius, 0.5)
            fitted = local_fit(self._problem.objectives, Values(points, losses, n), self._weights, radius)
            self._fitted = (len(self._values), fitted)
        return self._fitted[1]

    def _by_value(self, generator: np.random.Generator, number: int) -> Vector:
        """The local optimum for the study's weights and for drawn preferences in turn, with noise to learn from."""
        radius, dim = self._options.radius, self._problem.dim
        if len(self._values) < min(2 * dim + 2, max(4, int(self._problem.evaluations) // 4)):
            centre = self._problem.start
            if self._values:
                centre = min(self._values, key=lambda v: weighted_loss(self._problem, v[1]))[0]
            return np.clip(centre + radius * generator.standard_normal(dim), 0.0, 1.0)
        weights = self._weights if number % 2 else generator.dirichlet(np.ones(len(self._weights)))
        best = self._fit().optimum(self._value_weights(weights), generator)
        return np.clip(best + 0.35 * radius * generator.standard_normal(dim), 0.0, 1.0)


def _stack(rows: list[tuple[Vector, Vector, Matrix, Vector | None]]) -> Records:
    points, guides, gradients, _ = zip(*rows, strict=True)
    return Records(np.array(points), np.array(guides), np.array(gradients))
