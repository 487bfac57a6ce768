"""Which of the points that were evaluated on all examples is the best, and whether things get worse."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from mergesearch.strategies.base import Observation, Problem, weighted_loss
from mergesearch.types import Candidate, Vector

_SURE = 4.0  # standard errors of a slope: it is looked at some ten times in a run, and neighbours are not independent
_LUCK = 0.5  # standard errors by which a random point must win: of many, the luckiest looks better than it is
_ITERATES = ("monitor", "gradient")


@dataclass(frozen=True, eq=False)
class Seen:
    """A point (D,) with its weighted loss, its standard error (0 where unknown), and the candidate's origin."""

    number: int
    point: Vector
    loss: float
    stderr: float
    origin: str


@final
class Monitor:
    """Points evaluated on all examples. `by` names the differentiable loss that ranks them, '' for the objectives'.

    Of equally good ones an iterate counts most, the later the better: the loss that it followed has gone down further.
    """

    def __init__(self, problem: Problem, by: str) -> None:
        self._problem, self._by = problem, by
        self._seen: dict[int, Seen] = {}
        self.start: Seen | None = None
        self.best: Seen | None = None

    @property
    def count(self) -> int:
        """Points seen."""
        return len(self._seen)

    def add(self, candidate: Candidate, observation: Observation) -> bool:
        """Takes in a complete evaluation; True where it is the best so far."""
        losses = observation.losses if not self._by else observation.guides
        if candidate.point is None or losses is None or (self._by and candidate.request.gradient != self._by):
            return False
        loss = weighted_loss(self._problem, losses)
        if not np.isfinite(loss):
            return False
        weights = np.array([o.weight for o in self._problem.objectives])
        noise = 0.0 if self._by else float(np.linalg.norm(weights * observation.stderr) / weights.sum())
        seen = Seen(candidate.number, candidate.point, loss, noise, candidate.origin)
        self._seen[candidate.number] = seen
        if candidate.origin == "start":
            self.start = seen
        better = self.best is None or _rank(seen) <= _rank(self.best)
        if better:
            self.best = seen
        return better

    def knows(self, point: Vector) -> bool:
        """Whether exactly this point was seen."""
        return any(np.array_equal(point, seen.point) for seen in self._seen.values())

    def worse(self, row: int) -> bool:
        """Whether the last `row` checks of iterates were all worse than the start by more than its standard error."""
        checks = [seen for seen in self._seen.values() if seen.origin in _ITERATES][-row:]
        start = self.start
        if start is None or len(checks) < row:
            return False
        return all(seen.loss > start.loss + max(start.stderr, 1e-9 * abs(start.loss)) for seen in checks)


def _rank(seen: Seen) -> tuple[float, bool, int]:
    handicap = _LUCK * seen.stderr if seen.origin == "sample" else 0.0
    return seen.loss + handicap, seen.origin not in _ITERATES, -seen.number


def rises(values: Sequence[float]) -> bool:
    """Whether a series goes up beyond doubt: the slope of a straight line through it is 4 standard errors or more."""
    y = np.asarray(values) - np.mean(values)
    x = np.arange(len(y)) - (len(y) - 1) / 2
    slope = float(x @ y / (x @ x))
    error = np.sqrt(max(float(np.sum((y - slope * x) ** 2)), 0.0) / max(len(y) - 2, 1) / float(x @ x))
    return slope > max(_SURE * float(error), 1e-9 * float(np.mean(np.abs(values))))
