"""LoraHub: weights of a pool of adapters from nothing, by a few dozen evaluations. For few examples of a new task.

Huang and others, arXiv:2307.13269: weights in [-1.5, 1.5] begin at 0, 0.05 mean |w| is added to the loss. The paper's
optimizer is Nevergrad's NGOpt with 40 evaluations; the default here is CMA-ES. Not taken over: its code sums the two
factors of the adapters apart, which mixes them crosswise; how weights are applied is the operator's affair here.
Ours: the study's start is evaluated first, and axes that are not coefficients stay there.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar, cast, final

import numpy as np
from pydantic import Field

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy
from mergesearch.strategies.cma_es import CmaEs
from mergesearch.strategies.cma_es import Options as CmaOptions
from mergesearch.strategies.evolving.stage import PLAIN, Stage, axes_of
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Vector


class Optimizer(StrEnum):
    """What looks for the weights."""

    CMA_ES = "cma_es"
    NGOPT = "ngopt"


class Options(PluginOptions):
    """`optimizer`: `cma_es`, or the paper's `ngopt`. `sigma0`: standard deviation of the first steps, in widths of the
    searched range. `penalty`: times the mean |w|, added to the loss. `limit`: weights stay within ± this."""

    optimizer: Optimizer = Optimizer.CMA_ES
    sigma0: float = Field(default=0.1, gt=0, le=1)
    penalty: float = Field(default=0.05, ge=0)
    limit: float = Field(default=PLAIN[1], gt=0)


@final
class Lorahub(Strategy):
    """Strategy; see `strategies/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = False

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        chosen = cast(Options, options)
        self._problem = problem
        self._notes: list[str] = []
        axes = axes_of(problem, "coefficient")
        if not len(axes):
            axes = np.arange(problem.dim, dtype=np.int64)
            self._notes.append("no axis is an expert's coefficient: all axes are searched as weights")
        elif len(axes) < problem.dim:
            self._notes.append(f"{problem.dim - len(axes)} axes that are not coefficients stay at the start")
        limits = (-chosen.limit, chosen.limit)

        def make(inner: Problem) -> Strategy:
            if chosen.optimizer is Optimizer.CMA_ES:
                return CmaEs(inner, seed, CmaOptions(sigma0=chosen.sigma0))
            from mergesearch.strategies.nevergrad import Nevergrad  # not the default
            from mergesearch.strategies.nevergrad import Options as NevergradOptions

            return Nevergrad(inner, seed, NevergradOptions(optimizer="NGOpt", sigma0=chosen.sigma0))

        self._stage = Stage(problem, axes, problem.start, 0.0, limits, chosen.penalty, make)
        self._turns = Turns()
        self._numbers: dict[int, int] = {}  # candidate number -> the stage's number, while it is evaluated

    def ask(self, number: int) -> Proposal | None:
        """The start, then samples. Never None."""
        turn = self._turns.of(number)
        return Proposal(self._stage.ask(turn), "sample") if turn else Proposal(self._problem.start, "start")

    def asked(self, candidate: Candidate) -> None:
        """Announces it to the stage, unless it is the start of the study."""
        turn = self._turns.taken
        self._turns = self._turns.after(candidate)
        if candidate.point is not None and turn:
            self._numbers[candidate.number] = turn
            self._stage.asked(turn, candidate)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Tells the stage what it asked for."""
        turn = self._numbers.pop(candidate.number, None)
        if turn is not None:
            self._stage.tell(turn, candidate, observation)

    def recommend(self) -> Vector | None:
        """What the optimizer recommends; None before it has learned anything."""
        return self._stage.recommend()

    def diagnostics(self) -> Mapping[str, float]:
        """Those of the optimizer."""
        return self._stage.inner.diagnostics()

    def notes(self) -> tuple[str, ...]:
        """What it holds, and what the optimizer says."""
        return (*self._notes, *self._stage.inner.notes())
