"""Frank-Wolfe merging: steps towards the expert that lowers the loss fastest; picks the useful few of many experts.

Reference: Chen et al., arXiv:2503.12649. The vertices are base + total x expert, each alone, and the start; the linear
minimisation is over <gradient, task vector>, which is the gradient of a coefficient itself, not over cosines (those
depend on the shared base); the step is 2 / (t + 2) x `step`. `per: expert` takes one vertex for the whole model
(task-wise), `per: group` one in each layer group. The gap <gradient, iterate - vertex> bounds what is still to be won
for a convex loss: it stops where it has shrunk to a thousandth. Ours: `total` is the sum of the start's coefficients
in a group, where the paper's weights sum to 1 and a merge scales them.

`mode: soft` first chooses the best `keep` experts of each objective by the same product, at the start, then moves the
weights of these by Adam with projection on their simplex in every group (the paper repeats the choice and learns by
AdaMerging). Take it where K > 10 or where many experts are of no use.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, cast, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from mergesearch.errors import SpecError
from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Need, Observation, Problem, Proposal, Strategy
from mergesearch.strategies.learning.adam import Adam, on_simplex
from mergesearch.strategies.learning.natural import Natural
from mergesearch.strategies.learning.rules import Pace, Rule, Settings, chosen_loss, chosen_monitor
from mergesearch.strategies.learning.steps import Learner
from mergesearch.types import Candidate, Vector

_SHUT = 1e-3  # share of the first gap at which it stops


class Options(PluginOptions):
    """`loss`: the differentiable loss to follow; None: 'loss', or the study's first. `mode`: 'hard' steps to vertices,
    'soft' chooses experts and learns their weights. `per`: a vertex for all layers ('expert') or for each 'group'.
    `step`: factor on 2 / (t + 2); 1 leaves the start at the first step. `total`: sum of the weights in a group; None:
    the start's. `keep`: experts that 'soft' keeps for each objective. `learning_rate`: of 'soft', in coefficients.
    `steps`: aimed at; None: 20 hard, 100 soft; the batches are made so large that the budget gives about as many.
    `batch`: least examples of an objective in a batch. `batches_per_step`: gradients averaged per step; None: as many
    as are asked for at once, at most 8. `monitor`: what ranks the iterates, 'metric' or a differentiable loss."""

    loss: str | None = None
    mode: Literal["hard", "soft"] = "hard"
    per: Literal["expert", "group"] = "group"
    step: float = Field(default=0.3, gt=0, le=1)
    total: float | None = Field(default=None, gt=0)
    keep: PositiveInt = 1
    learning_rate: float = Field(default=0.01, gt=0, le=1)
    steps: PositiveInt | None = None
    batch: PositiveInt = 16
    batches_per_step: PositiveInt | None = None
    monitor: str = "metric"


@final
class HardRule:
    """Rule of `rules.py`: one vertex per block. `vertices` (K + 1, D), the start last; `block` (D,), -1: held."""

    def __init__(self, begin: Vector, vertices: NDArray[np.float64], block: NDArray[np.int64], step: float) -> None:
        self.values, self._vertices, self._block, self._step = begin, vertices, block, step
        self._count, self.gap, self.first_gap = 0, 0.0, 0.0
        self.picks: list[tuple[int, ...]] = []

    def step(self, gradients: NDArray[np.float64], weights: Vector, pace: Pace) -> None:
        """Towards the vertices of the smallest products with the gradient."""
        gradient, target = weights @ gradients, np.array(self.values)
        picks = []
        for block in range(int(self._block.max()) + 1):
            axes = self._block == block
            best = int(np.argmin(self._vertices[:, axes] @ gradient[axes]))
            picks.append(best)
            target[axes] = self._vertices[best, axes]
        self.picks.append(tuple(picks))
        self.gap = float(gradient @ (self.values - target))
        self.first_gap = self.first_gap or self.gap
        length = min(2.0 / (self._count + 2.0) * self._step * pace.shrink, 1.0)
        self.values = self.values + length * (target - self.values)
        self._count += 1

    def restart(self, values: Vector) -> None:
        """Goes on from these values; the steps go on shrinking."""
        self.values = np.array(values)

    def diagnostics(self) -> Mapping[str, float]:
        """The last duality gap."""
        return {"gap": self.gap}


@final
class SoftRule:
    """Rule of `rules.py`: Adam on the weights of the chosen experts, projected on their simplex in every group."""

    def __init__(self, natural: Natural, begin: Vector, totals: Vector, keep: int, rate: float) -> None:
        self._natural, self._totals, self._keep, self._rate = natural, totals, keep, rate
        self.values, self._adam = begin, Adam(len(begin))
        self.chosen: tuple[int, ...] = ()

    def step(self, gradients: NDArray[np.float64], weights: Vector, pace: Pace) -> None:
        """The first call chooses the experts."""
        if not self.chosen:
            self.chosen = self._choose(gradients[weights > 0.0])
        rate = self._rate * pace.cosine() * pace.shrink * pace.windows
        moved = self.values - rate * self._adam.direction(weights @ gradients)
        natural, values = self._natural, np.array(self.values)
        for group in range(natural.groups):
            inside = (natural.group == group) & (natural.expert >= 0)
            kept = inside & np.isin(natural.expert, self.chosen)
            if kept.any():
                values[inside] = 0.0
                values[kept] = on_simplex(moved[kept], self._totals[group])
        self.values = natural.clip(values)

    def restart(self, values: Vector) -> None:
        """Goes on from these values with empty moments."""
        self.values, self._adam = np.array(values), Adam(len(values))

    def diagnostics(self) -> Mapping[str, float]:
        """How many experts it kept."""
        return {"kept": float(len(self.chosen))}

    def _choose(self, gradients: NDArray[np.float64]) -> tuple[int, ...]:
        natural = self._natural
        own = natural.expert >= 0
        chosen: set[int] = set()
        for gradient in gradients:
            gain = gradient * self._totals[natural.group]
            score = np.bincount(natural.expert[own], weights=gain[own], minlength=natural.experts)
            used = np.unique(natural.expert[own])
            chosen |= {int(k) for k in used[np.argsort(score[used], kind="stable")[: self._keep]]}
        return tuple(sorted(chosen))


@final
class FrankWolfe(Strategy):
    """Strategy; see `strategies/base.py` for the contract and `steps.py` for how it asks."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = False
    NEEDS: ClassVar[frozenset[Need]] = frozenset({Need.GRADIENTS})

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        chosen = cast(Options, options)
        loss = chosen_loss("frank_wolfe", problem, chosen.loss, ("loss", *problem.gradients))
        monitor = chosen_monitor("frank_wolfe", problem, chosen.monitor)
        natural = Natural(problem)
        own = natural.expert >= 0
        if not own.any():
            raise SpecError(
                "strategy 'frank_wolfe' weighs experts, and no axis is one expert's coefficient; "
                "let 'coefficient' vary per expert or per expert_group in the study's space"
            )
        begin = natural.values(problem.start)
        sums = np.bincount(natural.group[own], weights=np.maximum(begin[own], 0.0), minlength=natural.groups)
        totals: Vector = np.full(natural.groups, chosen.total) if chosen.total else np.where(sums > 0.0, sums, 1.0)
        steps = chosen.steps or (20 if chosen.mode == "hard" else 100)
        self._hard: HardRule | None = None
        rule: Rule
        if chosen.mode == "hard":
            block = np.where(own, natural.group if chosen.per == "group" else 0, -1)
            block = np.where(own, np.unique(block, return_inverse=True)[1].reshape(-1) - int((~own).any()), -1)
            rule = self._hard = HardRule(begin, _vertices(natural, begin, totals), block, chosen.step)
        else:
            rule = SoftRule(natural, begin, totals, chosen.keep, chosen.learning_rate)
        settings = Settings(loss, steps, chosen.batch, chosen.batches_per_step, monitor)
        self._learner = Learner(problem, seed, settings, rule, natural)

    def ask(self, number: int) -> Proposal | None:
        """The next check or batch; None while a step is awaited."""
        return self._learner.ask(number)

    def asked(self, candidate: Candidate) -> None:
        """Remembers what the candidate is for."""
        self._learner.asked(candidate)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Adds one result; stops where the gap has closed."""
        self._learner.tell(candidate, observation)
        hard = self._hard
        if hard and hard.first_gap > 0.0 and hard.gap <= _SHUT * hard.first_gap and self._learner.active:
            self._learner.converged(f"the duality gap has shrunk from {hard.first_gap:.3g} to {hard.gap:.3g}")

    def recommend(self) -> Vector | None:
        """The best monitored point, the start among them."""
        return self._learner.recommend()

    def diagnostics(self) -> Mapping[str, float]:
        """Figures of the learner, the gap or the number of experts kept."""
        return self._learner.diagnostics()

    def notes(self) -> tuple[str, ...]:
        """What it decided."""
        return self._learner.notes()


def _vertices(natural: Natural, begin: Vector, totals: Vector) -> NDArray[np.float64]:
    """(K + 1, D): each expert alone with its group's total, within the box; the last is the start."""
    alone = np.where(natural.expert == np.arange(natural.experts)[:, None], totals[natural.group], 0.0)
    alone = np.where(natural.expert >= 0, alone, begin)
    return np.vstack([[natural.clip(vertex) for vertex in alone], begin])
