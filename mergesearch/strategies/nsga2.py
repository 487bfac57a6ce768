"""NSGA-II around the start: a front by crowding distance. For two or three objectives and several hundred evaluations.

Deb, Pratap, Agarwal, Meyarivan, IEEE TEC 6(2), 2002; survival and variation are pymoo's. The first population lies
around the start, which is worth more than the choice of the algorithm, and results are taken in groups as they arrive.
Under noise a population keeps lucky points: confirm a front before it is trusted.
"""

from collections.abc import Mapping
from typing import ClassVar, cast, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from pymoo.core.population import Population
from pymoo.core.problem import Problem as PymooProblem
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy
from mergesearch.strategies.evolving.population import Evolving, Matrix, Plan
from mergesearch.types import Candidate, Vector


class Options(PluginOptions):
    """`population_size`: survivors kept; None: by the budget, 10 to 100. `group`: results between two choices of
    survivors; None: as many as the population. `spread`: standard deviation of the first points around the start, in
    unit-cube widths."""

    population_size: PositiveInt | None = Field(default=None, ge=4)
    group: PositiveInt | None = None
    spread: float = Field(default=0.15, gt=0, le=1)


def default_size(evaluations: float) -> int:
    """Population for a budget."""
    return int(np.clip(round(1.6 * np.sqrt(max(evaluations, 0.0))), 10, 100))


@final
class Nsga2(Strategy):
    """Strategy; see `strategies/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = True

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        chosen = cast(Options, options)
        size = chosen.population_size or default_size(problem.evaluations)
        self._evolving = Evolving(problem, seed, Plan(size, chosen.group or size, chosen.spread), survive)

    def ask(self, number: int) -> Proposal | None:
        """Never None."""
        return self._evolving.ask(number)

    def asked(self, candidate: Candidate) -> None:
        """Counts the turn."""
        self._evolving.asked(candidate)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Adds an arrival."""
        self._evolving.tell(candidate, observation)

    def recommend(self) -> Vector | None:
        """None: every survivor was evaluated, and there is no model that would make one of them the better bet."""
        return None

    def diagnostics(self) -> Mapping[str, float]:
        """Counts, generations, size of the front, and the population's spread (mean standard deviation)."""
        return self._evolving.diagnostics()


def survive(losses: Matrix, size: int, generator: np.random.Generator) -> tuple[NDArray[np.int64], Matrix]:
    """By rank, then by crowding distance: positions of the survivors, and the merits (k, 2) -rank, crowding."""
    population = Population.new(F=losses, index=np.arange(len(losses)))
    problem = PymooProblem(n_var=1, n_obj=losses.shape[1])
    kept = RankAndCrowding().do(problem, population, n_survive=min(size, len(losses)), random_state=generator)
    merits = np.column_stack([-kept.get("rank").astype(float), kept.get("crowding").astype(float)])
    return kept.get("index").astype(np.int64), np.nan_to_num(merits, posinf=1e300)
