"""NSGA-III around the start: a front along reference directions. For three to eight objectives, from 1,000 evaluations.

Deb and Jain, IEEE TEC 18(4), 2014; survival and variation are pymoo's. Directions are Das and Dennis' up to three
objectives, two layers of them from four on (section V of the paper), as many as fit the population. Ours: losses are
scaled to the front of each choice of survivors, so that neither their units nor early outliers decide.
"""

from collections.abc import Mapping
from functools import partial
from itertools import product
from math import comb
from typing import ClassVar, cast, final
from warnings import catch_warnings

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from pymoo.algorithms.moo.nsga3 import ReferenceDirectionSurvival
from pymoo.core.population import Population
from pymoo.core.problem import Problem as PymooProblem
from pymoo.util.ref_dirs import get_reference_directions

from mergesearch.pareto import front
from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy
from mergesearch.strategies.evolving.population import Evolving, Matrix, Plan
from mergesearch.types import Candidate, Vector

_LAYERS_FROM = 4  # objectives
_INNER = 0.5  # size of the inner layer
_MOST = 30  # partitions looked at


class Options(PluginOptions):
    """`population_size`: survivors kept; None: by the budget, 12 to 150. `group`: results between two choices of
    survivors; None: as many as the population. `spread`: standard deviation of the first points around the start, in
    unit-cube widths."""

    population_size: PositiveInt | None = Field(default=None, ge=4)
    group: PositiveInt | None = None
    spread: float = Field(default=0.15, gt=0, le=1)


def default_size(evaluations: float) -> int:
    """Population for a budget."""
    return int(np.clip(round(1.6 * np.sqrt(max(evaluations, 0.0))), 12, 150))


def directions(objectives: int, most: int) -> Matrix:
    """Reference directions (R, M) on the simplex: the most that are no more than `most`, at least the M axes."""
    if objectives < _LAYERS_FROM:
        partitions = max([p for p in range(1, max(most, 2)) if comb(objectives + p - 1, p) <= most], default=1)
        return _layer(objectives, partitions if objectives > 1 else 1)
    sizes = {
        (outer, inner): _count(objectives, outer) + _count(objectives, inner)
        for outer, inner in product(range(1, _MOST), range(_MOST))
        if inner <= outer
    }
    fit = {key: count for key, count in sizes.items() if count <= most}
    outer, inner = max(fit, key=lambda key: (fit[key], key)) if fit else (1, 0)
    if inner == 0:
        return _layer(objectives, outer)
    return np.vstack([_layer(objectives, outer), _INNER * _layer(objectives, inner) + (1.0 - _INNER) / objectives])


def _count(objectives: int, partitions: int) -> int:
    return comb(objectives + partitions - 1, partitions) if partitions else 0


def _layer(objectives: int, partitions: int) -> Matrix:
    return np.asarray(get_reference_directions("das-dennis", objectives, n_partitions=partitions), dtype=np.float64)


@final
class Nsga3(Strategy):
    """Strategy; see `strategies/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = True

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        chosen = cast(Options, options)
        size = chosen.population_size or default_size(problem.evaluations)
        self._directions = directions(len(problem.objectives), size)
        plan = Plan(size, chosen.group or size, chosen.spread)
        self._evolving = Evolving(problem, seed, plan, partial(survive, self._directions))

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
        """Counts, generations, reference directions, size of the front, and the population's spread."""
        return {**self._evolving.diagnostics(), "directions": float(len(self._directions))}


def survive(
    along: Matrix, losses: Matrix, size: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], Matrix]:
    """By rank, then by niche of the directions `along`: positions of the survivors, and merits (k, 2).

    The merits are random: NSGA-III selects parents blindly, since its survivors are all of equal worth.
    """
    leading = losses[front(losses)]
    low, span = leading.min(axis=0), np.ptp(leading, axis=0)
    span = np.where(span > 0.0, span, np.ptp(losses, axis=0))  # one point leads
    span = np.where(span > 0.0, span, 1.0)
    population = Population.new(F=np.minimum((losses - low) / span, 1e6), index=np.arange(len(losses)))
    problem = PymooProblem(n_var=1, n_obj=losses.shape[1])
    with catch_warnings():  # it adds a filter of its own to the global list
        chosen = ReferenceDirectionSurvival(along).do(
            problem, population, n_survive=min(size, len(losses)), random_state=generator
        )
    kept = chosen.get("index").astype(np.int64)
    return kept, generator.random((len(kept), 2))
