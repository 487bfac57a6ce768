"""NSGA-III over surrogates: the front that they predict. The surrogates cost nothing, so thousands of points are tried.

Settings follow MAP's code (arXiv:2406.07529): crossover 0.7, mutation 0.3, SBX and polynomial mutation with index 20 at
1/D per axis. The reference directions are as many as fit the population of 100, where MAP's were 3 for two objectives.
"""

from collections.abc import Callable
from math import comb
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.core.evaluator import Evaluator
from pymoo.core.problem import Problem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.problems.static import StaticProblem
from pymoo.util.ref_dirs import get_reference_directions

from mergesearch.pareto import front

Matrix = NDArray[np.float64]

POPULATION = 100


def partitions(objectives: int) -> int:
    """Das-Dennis partitions: the most whose directions fit the population, at least 1."""
    count = 1
    while comb(objectives + count, count + 1) <= POPULATION:
        count += 1
    return count


def predicted_front(
    losses: Callable[[Matrix], Matrix], low: Matrix, high: Matrix, first: Matrix, generations: int, seed: int
) -> tuple[Matrix, Matrix]:
    """Non-dominated points (f, D) in the box [low, high] and their predicted losses (f, M), M of at least 2.

    `losses` maps points (k, D) to losses (k, M). `first` (k, D) is the first population, cut to its size.
    All random numbers come from `seed`.
    """
    objectives = losses(first[:1]).shape[1]
    problem = Problem(n_var=len(low), n_obj=objectives, xl=low, xu=high)
    algorithm = NSGA3(
        ref_dirs=get_reference_directions("das-dennis", objectives, n_partitions=partitions(objectives)),
        pop_size=max(POPULATION, comb(objectives + partitions(objectives) - 1, partitions(objectives))),
        sampling=first[:POPULATION],
        crossover=SBX(prob=0.7, eta=20),
        mutation=PM(prob=0.3, prob_var=1.0 / len(low), eta=20),
        eliminate_duplicates=True,
    )
    algorithm.setup(problem, termination=("n_gen", generations), seed=seed, verbose=False)
    while algorithm.has_next():
        population = algorithm.ask()
        Evaluator().eval(StaticProblem(problem, F=losses(population.get("X"))), population)
        algorithm.tell(infills=population)
    points = np.clip(cast(Matrix, algorithm.pop.get("X").astype(np.float64)), low, high)
    values = losses(points)
    kept = front(values)
    return points[kept], values[kept]
