"""What gradient learners share: their settings, the pace of a step, the rule that steps, and the choice of a loss."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import SpecError
from mergesearch.plugins import did_you_mean
from mergesearch.strategies.base import Problem
from mergesearch.types import Vector


@dataclass(frozen=True)
class Settings:
    """What the options of all gradient learners have in common.

    `steps`: aimed at; windows are made so large that the budget gives about as many. `batch`: least examples of an
    objective in a window. `batches_per_step`: windows of a step; None: as many as are asked for at once, at most 8.
    `monitor`: the differentiable loss that ranks iterates; '' for the losses of the objectives. `balance`: divide
    each objective's loss by its first value. `guarded`: stop when iterates are worse than the start.
    """

    loss: str
    steps: int
    batch: int
    batches_per_step: int | None = None
    monitor: str = ""
    balance: bool = False
    guarded: bool = True


@dataclass(frozen=True)
class Pace:
    """Where a step stands: share of the gradient budget spent, how many of the planned windows its examples are worth
    (several, where several workers share a step), and how much shorter than planned it shall be."""

    progress: float
    windows: float = 1.0
    shrink: float = 1.0

    def cosine(self, floor: float = 0.0) -> float:
        """The factor of a cosine schedule from 1 down to `floor`."""
        return max(floor, 0.5 * (1.0 + math.cos(math.pi * min(self.progress, 1.0))))


class Rule(Protocol):
    """How a learner steps: `values` (D,) is its iterate in natural units, within the box."""

    values: Vector

    def step(self, gradients: NDArray[np.float64], weights: Vector, pace: Pace) -> None:
        """Moves `values`, given the gradients (M, D) of the losses at them and the weights (M,) of the losses."""
        ...

    def restart(self, values: Vector) -> None:
        """Goes on from these values (D,), with nothing remembered of the steps before."""
        ...

    def diagnostics(self) -> Mapping[str, float]:
        """Figures of its own."""
        ...


def chosen_loss(kind: str, problem: Problem, wanted: str | None, preferred: tuple[str, ...]) -> str:
    """The loss that an option names, else the first of `preferred` that the study offers; '' where it offers none.

    Raises:
        SpecError: it offers others only.
    """
    if not problem.gradients:
        return ""
    names = (wanted,) if wanted else preferred
    for name in names:
        if name in problem.gradients:
            return name
    near = did_you_mean(names[0], problem.gradients) if wanted else f"; known are {', '.join(problem.gradients)}"
    raise SpecError(f"strategy {kind!r} wants gradients of {' or '.join(map(repr, names))}{near}; set its option loss")


def chosen_monitor(kind: str, problem: Problem, wanted: str) -> str:
    """The loss behind option `monitor`: '' for 'metric'.

    Raises:
        SpecError: the study does not offer it.
    """
    return "" if wanted == "metric" else chosen_loss(kind, problem, wanted, ())
