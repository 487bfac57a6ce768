"""Evo-Merging: first how sparse each expert's change is, then its signed scale. For pools scored through an API.

"Black-box Model Merging for Language-Model-as-a-Service", arXiv:2509.12951. Two stages of CMA-ES on one log: densities
from 1 with every coefficient at 1/N, a third of the budget; then coefficients from 1/N in [-1.5, 1.5] with the
densities found. 0.05 mean |x| of the searched numbers is added to the loss. Ours: the densities kept are the mean of
the first stage, not its luckiest point; steps are wider than the paper's 0.05, which does not reach far optima; the
study's start is evaluated first and all other axes stay there.
"""

from collections.abc import Mapping
from typing import ClassVar, cast, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, rng
from mergesearch.strategies.cma_es import CmaEs
from mergesearch.strategies.cma_es import Options as CmaOptions
from mergesearch.strategies.evolving.stage import PLAIN, Stage, axes_of
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Vector

_DIAGONAL_ABOVE = 100  # experts beyond which correlations are not learned (card)
_SEED = 4  # purpose of random numbers


class Options(PluginOptions):
    """`sigma0`: standard deviation of the first steps, in widths of the searched range (the paper: 0.05 in natural
    units). `population_size`: results per update. `penalty`: times the mean |x| of a stage's numbers, added to the
    loss. `sparsity_share`: of the budget, for the first stage. `limit`: coefficients stay within ± this."""

    sigma0: float = Field(default=0.1, gt=0, le=1)
    population_size: PositiveInt = Field(default=20, ge=4)
    penalty: float = Field(default=0.05, ge=0)
    sparsity_share: float = Field(default=1 / 3, ge=0, lt=1)
    limit: float = Field(default=PLAIN[1], gt=0)


@final
class EvoBlackbox(Strategy):
    """Strategy; see `strategies/base.py` for the contract.

    A candidate belongs to the stage in which it was announced. The second stage takes the densities as they were
    believed when its first candidate was announced; results of the first that come later are not waited for.
    """

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = False

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self._problem, self._seed, self._options = problem, seed, cast(Options, options)
        self._scales, self._densities = axes_of(problem, "coefficient"), axes_of(problem, "density")
        experts = len(problem.space.experts) if problem.space else problem.dim
        self._even = 1.0 / max(experts, 1)
        self._notes: list[str] = []
        if not len(self._scales):
            self._scales = np.setdiff1d(np.arange(problem.dim, dtype=np.int64), self._densities)
            self._notes.append("no axis is an expert's coefficient: the second stage searches every other axis")
        self._length = round(self._options.sparsity_share * problem.evaluations) if len(self._densities) else 0
        if not len(self._densities):
            self._notes.append("no density is searched: there is the scale stage alone")
        elif not len(self._scales):
            self._length = max(int(problem.evaluations), 1)
        self._held = self._even_scales(problem)
        self._sparse = self._stage(0, self._densities, self._held) if self._length else None
        self._scaled: Stage | None = None if self._sparse else self._stage(1, self._scales, self._held)
        self._turns = Turns()
        self._numbers: dict[int, tuple[Stage, int]] = {}  # candidate -> its stage and number there, until told

    def ask(self, number: int) -> Proposal | None:
        """The start, then the sparsity stage, then the scale stage. Never None."""
        turn = self._turns.of(number)
        if turn == 0:
            return Proposal(self._problem.start, "start")
        if self._sparse is not None and (turn <= self._length or not len(self._scales)):
            return Proposal(self._sparse.ask(turn), "sparsity")
        stage = self._scaled or self._stage(1, self._scales, self._believed())
        return Proposal(stage.ask(turn - self._length), "scale")

    def asked(self, candidate: Candidate) -> None:
        """Announces it to the stage whose turn it is; the second stage begins with its first."""
        turn = self._turns.taken
        self._turns = self._turns.after(candidate)
        if candidate.point is None or turn == 0:
            return
        if self._sparse is not None and (turn <= self._length or not len(self._scales)):
            stage, number = self._sparse, turn
        else:
            if self._scaled is None:
                self._scaled = self._stage(1, self._scales, self._believed())
                self._notes.append(f"after {turn - 1} candidates the densities are held and the scale stage begins")
            stage, number = self._scaled, turn - self._length
        self._numbers[candidate.number] = (stage, number)
        stage.asked(number, candidate)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Tells the stage that asked for it."""
        found = self._numbers.pop(candidate.number, None)
        if found is not None:
            found[0].tell(found[1], candidate, observation)

    def recommend(self) -> Vector | None:
        """The mean of the scale stage; of the sparsity stage before that; None before the first update."""
        for stage in (self._scaled, self._sparse):
            point = stage.recommend() if stage is not None else None
            if point is not None:
                return point
        return None

    def diagnostics(self) -> Mapping[str, float]:
        """Those of the stage it is in, and which that is."""
        stage = self._scaled or self._sparse
        figures = stage.inner.diagnostics() if stage is not None else {}
        return {**figures, "stage": 2.0 if self._scaled is not None else 1.0}

    def notes(self) -> tuple[str, ...]:
        """Which stages there are, and when the second began."""
        return tuple(self._notes)

    def _even_scales(self, problem: Problem) -> Vector:
        """The start with every coefficient at 1/N and every density at 1, as near as their ranges allow."""
        point = np.array(problem.start)
        if problem.space is not None:
            for i in axes_of(problem, "coefficient"):
                point[i] = problem.space.axes[i].unit(self._even)
            for i in self._densities:
                point[i] = problem.space.axes[i].unit(1.0)
        return point

    def _believed(self) -> Vector:
        """The start with even coefficients and the densities that the first stage recommends."""
        point = self._sparse.recommend() if self._sparse is not None else None
        return self._held if point is None else point

    def _stage(self, place: int, axes: NDArray[np.int64], held: Vector) -> Stage:
        chosen, seed = self._options, int(rng(self._seed, place, _SEED).integers(2**31))
        share = chosen.sparsity_share if place == 0 else 1.0 - (chosen.sparsity_share if self._length else 0.0)
        options = CmaOptions(
            sigma0=chosen.sigma0, population_size=chosen.population_size, diagonal_above=_DIAGONAL_ABOVE
        )
        begin, limits = ((1.0, (0.0, 1.0)), (self._even, (-chosen.limit, chosen.limit)))[place]

        def make(inner: Problem) -> Strategy:
            budget = share * self._problem.evaluations
            return CmaEs(Problem(inner.dim, inner.objectives, inner.start, budget), seed, options)

        return Stage(self._problem, axes, held, begin, limits, chosen.penalty, make)
