"""What a benchmark run is: a target to search, and a recorder that charges each evaluation and notes checkpoints.

Every method, ours or a peer, is charged alike: one evaluation of all examples costs 1, with a gradient
`Target.gradient_cost`. At each checkpoint the recorder keeps how many evaluations fitted in, and which point the
method would have handed over; the target then says what those are worth.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mergesearch.pareto import front
from mergesearch.space import SearchSpace
from mergesearch.strategies.base import Geometry, Observation
from mergesearch.types import Candidate, Objective, Vector


class BudgetSpent(Exception):
    """The next evaluation does not fit into the budget: the usual end of a peer's run."""


class Target(Protocol):
    """Something to search over the unit cube; losses are minimised."""

    name: str
    dim: int
    objectives: tuple[Objective, ...]
    start: Vector
    seeds: tuple[Vector, ...]
    gradients: tuple[str, ...]
    gradient_cost: float
    space: SearchSpace | None
    checkpoints: tuple[int, ...]

    def observe(self, candidate: Candidate, examples: bool = False) -> Observation:
        """What an evaluation shows, noise included; per-example losses where `examples` asks for them."""
        ...

    def geometry(self) -> Geometry | None:
        """Inner products of the models' weights; None where there are no models."""
        ...

    def baselines(self) -> Sequence[tuple[str, Observation]]:
        """Origin and observation of the base and of every expert, as a study tells them; () where there are none."""
        ...

    def worth(self, points: NDArray[np.float64], losses: NDArray[np.float64], chosen: Vector) -> dict[str, float]:
        """Figures of merit of complete evaluations (n, D), (n, M) and of the point handed over (D,)."""
        ...


@dataclass(eq=False)
class Recorder:
    """The log of one run. `recommend` is the method's own idea of the point to hand over; None: the best seen."""

    target: Target
    budget: float
    recommend: Callable[[], Vector | None] | None = None
    points: list[Vector] = field(default_factory=list)
    losses: list[Vector] = field(default_factory=list)
    spent: float = 0.0
    evaluations: int = 0
    with_gradient: int = 0
    seconds: float = 0.0  # CPU seconds spent in evaluations
    snapshots: list[tuple[int, int, Vector | None]] = field(default_factory=list)

    def __call__(self, point: Sequence[float] | Vector) -> Vector:
        """A plain evaluation for a peer: its losses (M,). Raises BudgetSpent where it does not fit."""
        inside = np.clip(np.asarray(point, dtype=np.float64), 0.0, 1.0)
        return self.add(Candidate(self.evaluations, inside)).losses

    def weighted(self, point: Sequence[float] | Vector) -> float:
        """The weighted mean of the losses, for peers with one objective."""
        return float(self._weights() @ self(point))

    def add(self, candidate: Candidate, examples: bool = False) -> Observation:
        """Evaluate, charge and record. Raises BudgetSpent where it does not fit."""
        if candidate.point is None or self.spent + candidate.cost > self.budget + 1e-9:
            raise BudgetSpent
        self._mark(self.spent + candidate.cost)
        begun = time.process_time()
        observation = self.target.observe(candidate, examples)
        self.seconds += time.process_time() - begun
        self.spent += candidate.cost
        self.evaluations += 1
        self.with_gradient += bool(candidate.request.gradient)
        if candidate.request.complete:
            self.points.append(candidate.point)
            self.losses.append(observation.losses)
        return observation

    def best_seen(self, count: int | None = None) -> Vector:
        """The point of the first `count` with the least weighted loss; the start before the first evaluation."""
        values = [float(self._weights() @ row) for row in self.losses[:count]]
        return self.points[int(np.argmin(values))] if values else self.target.start

    def figures(self) -> list[dict[str, float]]:
        """What each checkpoint's evaluations and choice are worth."""
        self._mark(np.inf)
        rows = []
        for cost, count, chosen in self.snapshots:
            best = self.best_seen(count)
            points, losses = np.array(self.points[:count]), np.array(self.losses[:count])
            if count == 0:
                points, losses = np.zeros((0, self.target.dim)), np.zeros((0, len(self.target.objectives)))
            row = {"cost": float(cost), "evaluations": float(count)}
            row |= self.target.worth(points, losses, best if chosen is None else chosen)
            rows.append(row)
        return rows

    def _mark(self, cost: float) -> None:
        for checkpoint in self.target.checkpoints[len(self.snapshots) :]:
            if checkpoint > self.budget or cost <= checkpoint + 1e-9:
                break
            chosen = self.recommend() if self.recommend else None
            self.snapshots.append((checkpoint, len(self.points), None if chosen is None else np.clip(chosen, 0.0, 1.0)))

    def _weights(self) -> Vector:
        weights = np.array([objective.weight for objective in self.target.objectives])
        return weights / weights.sum()


def shown_front(losses: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows that look non-dominated, equal rows once."""
    if len(losses) == 0:
        return np.zeros(0, dtype=np.int64)
    kept = front(losses)
    _, first = np.unique(losses[kept], axis=0, return_index=True)
    return kept[np.sort(first)]
