"""Stops losers early: any strategy, its candidates scored on growing prefixes of the examples. For dear scorers.

Every candidate starts on the first rung, a share of the examples that all of them have in common. One that is worse
than a better candidate by more than chance, example by example (a paired interval), is stopped, and the inner strategy
is told an estimate; the others are promoted and go on where they stopped, so that nothing is scored twice. The search
ranks and the front hold candidates that were scored in full alone.

References: paired racing (F-race), successive halving with asynchronous promotion (arXiv:1810.05934), estimates from
few examples (arXiv:2502.10436); the rule for fronts, worse with confidence in every objective, is ours.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, cast, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from scipy.special import ndtri

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Need, Observation, Problem, Proposal, Strategy
from mergesearch.strategies.make import make_inner
from mergesearch.strategies.surrogates import irt
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Request, Vector

Examples = tuple[NDArray[np.float32], ...]

_RIVALS = 8  # better candidates that a newcomer is raced against, the best first
_MODELS_FOR_IRT = 30  # candidates scored in full below which item parameters mean nothing


class Estimator(StrEnum):
    """What the inner strategy is told of a stopped candidate."""

    PLAIN = "plain"
    REGRESSION = "regression"
    IRT = "irt"


class Options(PluginOptions):
    """`inner`: the strategy that proposes: its `kind` with its options beside it. `rungs`: shares of the examples at
    which a candidate is judged, rising, the whole not among them. `confidence`: of the one-sided paired interval that
    stops a candidate. `estimator`: what the inner strategy is told of a stopped one: 'plain' the mean on its rung,
    'regression' that mean corrected by candidates scored in full, 'irt' an item response estimate for right-or-wrong
    scores (the regression until 30 candidates were scored in full)."""

    inner: dict[str, Any] = Field(default_factory=lambda: {"kind": "cma_es"})
    rungs: tuple[float, ...] = (0.2, 0.5)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    estimator: Estimator = Estimator.REGRESSION

    @field_validator("rungs")
    @classmethod
    def _rise(cls, rungs: tuple[float, ...]) -> tuple[float, ...]:
        if not rungs or any(b <= a for a, b in zip((0.0, *rungs), (*rungs, 1.0), strict=True)):
            raise ValueError("rungs must rise strictly between 0 and 1, such as [0.2, 0.5]")
        return rungs


@dataclass(frozen=True, eq=False)
class _Racer:
    """A candidate on its way up: its number for the inner strategy, its point, the rung it was last judged on."""

    inner: int
    point: Vector
    rung: int
    proposal: Proposal


@dataclass(frozen=True, eq=False)
class _Promotion:
    """A racer that may go on, and the candidate whose scores its next evaluation continues."""

    racer: _Racer
    after: int


@final
class Racing(Strategy):
    """Strategy; see `strategies/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = True
    NEEDS: ClassVar[frozenset[Need]] = frozenset({Need.EXAMPLES})

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self._options = cast(Options, options)
        self._problem, self._seed = problem, seed
        self._inner = make_inner(self._options.inner, problem, seed)
        self._z = float(ndtri(self._options.confidence))
        self._turns = Turns()
        self._inner_asked = 0
        self._numbers: dict[int, int] = {}  # candidate -> its number for the inner strategy, of those not raced
        self._racing: dict[int, _Racer] = {}  # candidate being evaluated -> racer
        self._promoted: list[_Promotion] = []
        self._full: list[tuple[Vector, Examples]] = []  # losses (M,) and examples of candidates scored in full
        self._saved = 0.0
        self._stopped = self._completed = self._failed = 0

    def ask(self, number: int) -> Proposal | None:
        """Promotions first; then a new candidate of the inner strategy, on the first rung."""
        ahead = self._turns.of(number) - self._turns.taken
        if ahead < len(self._promoted):
            return self._continued(self._promoted[ahead])
        inner = self._inner.ask(self._inner_asked + ahead - len(self._promoted))
        if inner is None or inner.request != Request() or not self._full:
            return inner  # the first one, and what is no plain evaluation, is not raced
        return Proposal(inner.point, inner.origin, Request(share=self._options.rungs[0]))

    def _continued(self, promotion: _Promotion) -> Proposal:
        racer = promotion.racer
        done, ends = self._options.rungs[racer.rung], (*self._options.rungs, 1.0)
        request = Request(share=ends[racer.rung + 1] - done, offset=done, continues=promotion.after)
        return Proposal(racer.point, racer.proposal.origin, request)

    def asked(self, candidate: Candidate) -> None:
        """Counts the turn; a candidate that continues another leaves the queue of promotions."""
        self._turns = self._turns.after(candidate)
        if candidate.point is None:
            self._inner.asked(candidate)
            return
        request = candidate.request
        place = next((i for i, p in enumerate(self._promoted) if p.after == request.continues), None)
        if request.continues is not None and place is not None:
            racer = self._promoted.pop(place).racer
            self._racing[candidate.number] = _Racer(racer.inner, racer.point, racer.rung + 1, racer.proposal)
            return
        number, self._inner_asked = self._inner_asked, self._inner_asked + 1
        raced = request == Request(share=self._options.rungs[0])
        told = Request() if raced else request
        self._inner.asked(Candidate(number, candidate.point, candidate.origin, told, candidate.cost))
        if raced:
            proposal = Proposal(candidate.point, candidate.origin)
            self._racing[candidate.number] = _Racer(number, candidate.point, 0, proposal)
        else:
            self._numbers[candidate.number] = number

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Judges a racer on its rung; what is settled is told to the inner strategy."""
        if candidate.point is None:
            self._inner.tell(candidate, observation)
            return
        racer = self._racing.pop(candidate.number, None)
        if racer is None:
            number = self._numbers.pop(candidate.number, None)
            if number is None:  # told twice, or never announced: the inner strategy knows what to do with it
                number = self._inner_asked + candidate.number
            told = Candidate(number, candidate.point, candidate.origin, candidate.request, candidate.cost)
            self._inner.tell(told, observation)
            if observation is not None and candidate.request.complete:
                self._keep(observation)
            return
        told = Candidate(racer.inner, racer.point, racer.proposal.origin)
        if observation is None:
            self._failed += 1
            self._inner.tell(told, None)
        elif racer.rung == len(self._options.rungs):
            self._completed += 1
            self._keep(observation)
            self._inner.tell(told, observation)
        elif self._is_beaten(observation):
            self._stopped += 1
            self._saved += 1.0 - self._options.rungs[racer.rung]
            self._inner.tell(told, self._estimate(observation))
        else:
            self._promoted.append(_Promotion(racer, candidate.number))

    def recommend(self) -> Vector | None:
        """What the inner strategy recommends."""
        return self._inner.recommend()

    def diagnostics(self) -> Mapping[str, float]:
        """Candidates stopped early, scored in full and failed, the cost saved, and the inner strategy's own figures."""
        return {
            **self._inner.diagnostics(),
            "racing.stopped": float(self._stopped),
            "racing.completed": float(self._completed),
            "racing.failed": float(self._failed),
            "racing.saved": self._saved,
        }

    def notes(self) -> tuple[str, ...]:
        """Those of the inner strategy."""
        return self._inner.notes()

    def _keep(self, observation: Observation) -> None:
        if observation.examples is not None:
            self._full.append((observation.losses, observation.examples))

    def _is_beaten(self, observation: Observation) -> bool:
        """Whether some candidate scored in full is better with confidence: in the weighted sum, or, where there is a
        front, in every objective."""
        if observation.examples is None:
            return False
        weights = np.array([o.weight for o in self._problem.objectives])
        weights = weights / weights.sum()
        single = not type(self._inner).MULTI_OBJECTIVE or len(weights) == 1
        ranked = sorted(self._full, key=lambda kept: float(weights @ kept[0]))
        rivals = ranked[:_RIVALS] if single else self._full
        for _, theirs in rivals:
            pairs = [_paired(mine, other) for mine, other in zip(observation.examples, theirs, strict=True)]
            if any(pair is None for pair in pairs):
                continue
            mean, error = np.array([p for p in pairs if p is not None]).T
            if single and float(weights @ mean) > self._z * math.sqrt(float(np.square(weights) @ np.square(error))):
                return True
            if not single and bool(np.all(mean > self._z * error)):
                return True
        return False

    def _estimate(self, observation: Observation) -> Observation:
        """Losses on all examples, as the chosen estimator sees them, with an honest standard error."""
        assert observation.examples is not None
        if self._options.estimator is Estimator.PLAIN:
            return Observation(observation.losses, observation.stderr, observation.n)
        losses, errors = observation.losses.copy(), observation.stderr.copy()
        for j, mine in enumerate(observation.examples):
            known = [(full[1][j], full[0][j]) for full in self._full if len(full[1][j]) > len(mine)]
            parts = np.array([float(values[: len(mine)].mean()) for values, _ in known])
            wholes = np.array([loss for _, loss in known])
            losses[j], deviation = irt.regressed(float(mine.mean()), parts, wholes)
            if math.isfinite(deviation):
                errors[j] = min(errors[j], max(deviation, 1e-9))
            if self._options.estimator is Estimator.IRT and len(known) >= _MODELS_FOR_IRT:
                rows = np.array([values for values, _ in known[-4 * _MODELS_FOR_IRT :]], dtype=np.float64)
                losses[j] = _answered(mine, rows, losses[j])
        return Observation(losses, errors, observation.n)


def _paired(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> tuple[float, float] | None:
    """Mean difference of per-example losses on the examples both have, and its standard error; None without any."""
    n = min(len(mine), len(theirs))
    if n < 2:
        return None
    difference = mine[:n].astype(np.float64) - theirs[:n]
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(n)) + 1e-12


def _answered(mine: NDArray[np.float32], rows: NDArray[np.float64], otherwise: float) -> float:
    """The item response estimate of a mean loss, where each is 0 or -1 (wrong or right); else `otherwise`."""
    right, others = -mine.astype(np.float64), -rows
    if not (np.isin(right, (0.0, 1.0)).all() and np.isin(others, (0.0, 1.0)).all()):
        return otherwise
    items = irt.fit_items(others)
    ability = irt.ability_of(items, right)
    unseen = irt.Items(items.a[len(right) :], items.b[len(right) :])
    return -irt.gmp_irt(unseen, ability, float(right.mean()), len(right), rows.shape[1])
