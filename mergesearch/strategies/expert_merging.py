"""Expert Merging: coefficients without labels, by agreement with each expert's own outputs; the learner for LLMs.

Reference: Zhang et al., arXiv:2509.25712. Coefficients are sigmoids of logits, here within the range of their axis;
AdamW on the logits, decay 1e-5, clip 1.0, a cosine with a floor of 0.1, and a pull of each group's
coefficient towards the mean of its expert over the groups, (gamma / KL) sum |alpha - mean|. The loss is 'alignment'
(hidden states and logits) where the study offers it, else 'kl'. Ours: one cosine instead of warm restarts; a weaker
gamma, as the paper's 5 belongs to unscaled hidden-state errors; a rate of 0.2, where the paper has 0.5, and one that
grows with the square root of the batches that a step averages.

++ (`chunks`): groups are shared out by importance, sum over experts of |alpha| mean|tau| n, with mean|tau| taken as
norm / sqrt(n). The paper cuts important layers into pieces; here a group is the finest piece, so the important groups
keep coefficients of their own and each run of unimportant neighbours moves as one. The paper's floors waste budget:
largest remainders share out all of it, and what a group has beyond one piece goes to the next. A large network's
geometry must be read first; without one the task vectors count as equally long.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, cast, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Need, Observation, Problem, Proposal, Strategy
from mergesearch.strategies.learning.adam import Adam, averaged, clipped
from mergesearch.strategies.learning.natural import Natural
from mergesearch.strategies.learning.rules import Pace, Settings, chosen_loss, chosen_monitor
from mergesearch.strategies.learning.steps import Learner
from mergesearch.types import Candidate, Vector

_DECAY, _CLIP, _FLOOR = 1e-5, 1.0, 0.1
_EDGE = 0.01  # a start at a bound would have an infinite logit, and one near it would not get away
_WALL = math.log(999.0)


class Options(PluginOptions):
    """`loss`: the differentiable loss to follow; None: 'alignment' where it is to be had, else 'kl'. `learning_rate`:
    of AdamW, in logits. `gamma`: pull of each group's coefficient towards its expert's mean. `chunks`: share of the
    groups that get coefficients of their own by importance (++); None: every group. `kappa`: exponent of the
    importance. `steps`: aimed at; the batches are made so large that the budget gives about as many. `batch`: least
    examples of an objective in a batch. `batches_per_step`: gradients averaged per step; None: as many as are asked
    for at once, at most 8. `monitor`: what ranks the iterates, the study's 'metric' or a differentiable loss."""

    loss: str | None = None
    learning_rate: float = Field(default=0.2, gt=0, le=5)
    gamma: float = Field(default=0.05, ge=0)
    chunks: float | None = Field(default=None, gt=0, le=1)
    kappa: float = Field(default=0.5, ge=0)
    steps: PositiveInt = 40
    batch: PositiveInt = 16
    batches_per_step: PositiveInt | None = None
    monitor: str = "metric"


@final
class LogitRule:
    """Rule of `rules.py`: AdamW on the logits of values within their range.

    `tied` (D,): axes with one label share one step. The pull takes the sign of each value's distance from the mean of
    its expert, less the mean of these signs, which is the gradient of the mean distance.
    """

    def __init__(self, natural: Natural, begin: Vector, rate: float, gamma: float, tied: NDArray[np.int64]) -> None:
        self._natural, self._rate, self._gamma, self._tied = natural, rate, gamma, tied
        self.values: Vector = begin
        self._logits, self._adam = np.zeros(len(begin)), Adam(len(begin))
        self.restart(begin)

    def step(self, gradients: NDArray[np.float64], weights: Vector, pace: Pace) -> None:
        """One step on the logits."""
        inside = 1.0 / (1.0 + np.exp(-self._logits))
        natural = self._natural
        slope = (natural.high - natural.low) * inside * (1.0 - inside)
        loss = averaged((weights @ gradients) * slope, self._tied)
        gradient = loss + averaged(self._pull() * slope, self._tied)
        rate = self._rate * pace.cosine(_FLOOR) * pace.shrink * math.sqrt(pace.windows)
        move = self._adam.direction(clipped(gradient, _CLIP))
        self._logits = np.clip(self._logits - rate * (move + _DECAY * self._logits), -_WALL, _WALL)
        inside = 1.0 / (1.0 + np.exp(-self._logits))
        moved = natural.clip(natural.low + (natural.high - natural.low) * inside)
        self.values = np.where(loss == 0.0, self.values, moved)  # a flat axis stays what it was

    def restart(self, values: Vector) -> None:
        """Goes on from these values with empty moments."""
        natural = self._natural
        inside = np.clip((values - natural.low) / (natural.high - natural.low), _EDGE, 1.0 - _EDGE)
        self.values, self._logits, self._adam = natural.clip(values), np.log(inside / (1.0 - inside)), Adam(len(values))

    def diagnostics(self) -> Mapping[str, float]:
        """How many steps its coefficients share."""
        return {"chunks": float(len(np.unique(self._tied)))}

    def _pull(self) -> Vector:
        own = self._natural.expert >= 0
        apart = np.where(own, self.values - self._natural.by_expert(self.values)[self._natural.expert], 0.0)
        sign = np.where(np.abs(apart) > 1e-9, np.sign(apart), 0.0)
        middle = self._natural.by_expert(sign)[self._natural.expert]
        return np.asarray(np.where(own, self._gamma * (sign - middle) / max(own.sum(), 1), 0.0))


@final
class ExpertMerging(Strategy):
    """Strategy; see `strategies/base.py` for the contract and `steps.py` for how it asks."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = False
    NEEDS: ClassVar[frozenset[Need]] = frozenset({Need.GRADIENTS, Need.GEOMETRY})

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        chosen = cast(Options, options)
        loss = chosen_loss("expert_merging", problem, chosen.loss, ("alignment", "kl"))
        monitor = chosen_monitor("expert_merging", problem, chosen.monitor)
        natural = Natural(problem)
        begin = natural.values(problem.start)
        tied = np.arange(problem.dim)
        if chosen.chunks is not None:
            pieces = allocate(
                importance(problem, natural, begin),
                max(round(chosen.chunks * natural.groups), 1),
                chosen.kappa,
                capacity=1,
            )
            tied = _tied(natural, runs(pieces))
        rule = LogitRule(natural, begin, chosen.learning_rate, chosen.gamma, tied)
        settings = Settings(loss, chosen.steps, chosen.batch, chosen.batches_per_step, monitor)
        self._learner = Learner(problem, seed, settings, rule, natural)

    def ask(self, number: int) -> Proposal | None:
        """The next check or batch; None while a step is awaited."""
        return self._learner.ask(number)

    def asked(self, candidate: Candidate) -> None:
        """Remembers what the candidate is for."""
        self._learner.asked(candidate)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Adds one result."""
        self._learner.tell(candidate, observation)

    def recommend(self) -> Vector | None:
        """The best monitored point, the start among them."""
        return self._learner.recommend()

    def diagnostics(self) -> Mapping[str, float]:
        """Figures of the learner."""
        return self._learner.diagnostics()

    def notes(self) -> tuple[str, ...]:
        """What it decided."""
        return self._learner.notes()


def importance(problem: Problem, natural: Natural, values: Vector) -> Vector:
    """Share (G,) of each group: sum over experts of |alpha| mean|tau| n, at these values (D,)."""
    size = np.ones((natural.groups, natural.experts))
    geometry = problem.geometry
    if geometry is not None and geometry.gram.shape[:2] == size.shape:
        squares = np.maximum(np.einsum("gkk->gk", geometry.gram), 0.0)
        size = np.sqrt(squares * geometry.sizes[:, None])  # norm / sqrt(n) times n
    total = np.zeros(natural.groups)
    own = natural.expert >= 0
    np.add.at(total, natural.group[own], np.abs(values[own]) * size[natural.group[own], natural.expert[own]])
    return total / total.sum() if total.sum() > 0.0 else np.full(natural.groups, 1.0 / natural.groups)


def allocate(
    shares: Vector, budget: int, kappa: float, capacity: int | None = None, floors: bool = False
) -> NDArray[np.int64]:
    """Pieces (G,) for each group: `budget` shared out by shares**kappa, by largest remainders or the paper's `floors`.

    None gets more than `capacity`; what is over goes to the rest by the same rule.
    """
    pieces: NDArray[np.int64] = np.zeros(len(shares), dtype=np.int64)
    room = np.ones(len(shares), dtype=bool)
    while (left := budget - int(pieces.sum())) > 0 and room.any():
        weight = np.where(room, np.maximum(shares, 0.0) ** kappa, 0.0)
        weight = weight if weight.sum() > 0.0 else room.astype(np.float64)
        quota = left * weight / weight.sum()
        more: NDArray[np.int64] = np.floor(quota + 1e-9).astype(np.int64)
        if floors:
            return more
        rest = np.where(room, quota - more, -1.0)
        more[np.argsort(-rest, kind="stable")[: left - int(more.sum())]] += 1
        pieces = pieces + np.where(room, more, 0)
        if capacity is None:
            break
        pieces = np.asarray(np.minimum(pieces, capacity), dtype=np.int64)
        room = pieces < capacity
    return pieces


def runs(pieces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Chunk (G,) of each group: one with a piece stands alone, neighbours without one are a chunk together."""
    new = np.ones(len(pieces), dtype=bool)
    new[1:] = (pieces[1:] > 0) | (pieces[:-1] > 0)
    return np.asarray(np.cumsum(new) - 1)


def _tied(natural: Natural, chunk: NDArray[np.int64]) -> NDArray[np.int64]:
    alone = natural.experts * len(chunk) + np.arange(len(natural.expert))
    labels = np.where(natural.expert >= 0, natural.expert * len(chunk) + chunk[natural.group], alone)
    return np.asarray(np.unique(labels, return_inverse=True)[1]).reshape(-1)
