"""What the evolutionary front strategies share: a population that lives on the order in which results arrive.

There is no barrier between generations. Results are gathered as they come; every `group` of them is joined with the
population and the survivors are chosen. An ask draws a child from the survivors as they stand, or, until the first
population is complete, another point around the start. Variation is pymoo's: simulated binary crossover and polynomial
mutation (Deb and Agrawal 1995; Deb and Goyal 1996), with the settings of its NSGA-II.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray
from pymoo.operators.crossover.sbx import cross_sbx
from pymoo.operators.mutation.pm import mut_pm

from mergesearch.pareto import front
from mergesearch.strategies.base import Observation, Problem, Proposal, rng
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Vector

Matrix: TypeAlias = NDArray[np.float64]
Survive: TypeAlias = Callable[[Matrix, int, np.random.Generator], tuple[NDArray[np.int64], Matrix]]
"""(losses (n, M), how many survive, generator) -> positions of the survivors, and merits (k, 2) of which a tournament
compares the first, then the second; larger is better."""

_VARIATION, _SURVIVAL = 1, 2  # purposes of random numbers
_CROSSOVER, _SBX_INDEX, _PM_INDEX = 0.9, 15.0, 20.0
_TRIES = 10  # draws of a child that is not a copy of a known point
_SEED_SHARE = 0.25  # of the first population may be the problem's seeds


@dataclass(frozen=True, eq=False)
class Plan:
    """`size`: survivors kept. `group`: results between two choices of survivors. `spread`: standard deviation of the
    first points around the start, in unit-cube widths."""

    size: int
    group: int
    spread: float


@dataclass(eq=False)
class _State:
    """Survivors: points (k, D), losses (k, M), merits (k, 2); `used` arrivals went into them, in `generations`."""

    points: Matrix
    losses: Matrix
    merits: Matrix
    used: int = 0
    generations: int = 0


@final
@dataclass(eq=False)
class Evolving:
    """The population. Survivors are chosen when a point is asked for, so that a replay costs nothing."""

    problem: Problem
    seed: int
    plan: Plan
    survive: Survive
    told: int = 0
    failed: int = 0
    _turns: Turns = field(default_factory=Turns)
    _points: list[Vector] = field(default_factory=list)  # as they arrived, failures left out
    _losses: list[Vector] = field(default_factory=list)
    _known: set[bytes] = field(default_factory=set)
    _kept: _State | None = None

    def ask(self, number: int) -> Proposal:
        """The start, then the seeds and points around the start, then children of the survivors."""
        turn, state = self._turns.of(number), self._state()
        if turn == 0:
            return Proposal(self.problem.start, "start")
        generator = rng(self.seed, number, _VARIATION)
        if state is None:
            seeds = self.problem.seeds[: int(_SEED_SHARE * self.plan.size)]
            if turn <= len(seeds) and seeds[turn - 1].tobytes() not in self._known:
                return Proposal(seeds[turn - 1], "seed")
            step = self.plan.spread * generator.standard_normal(self.problem.dim)
            return Proposal(np.clip(self.problem.start + step, 0.0, 1.0), "design")
        child = self._child(state, generator)
        for _ in range(_TRIES):
            if child.tobytes() not in self._known:
                break
            child = self._child(state, generator)
        return Proposal(child, "child")

    def asked(self, candidate: Candidate) -> None:
        """Counts the turn."""
        self._turns = self._turns.after(candidate)
        if candidate.point is not None:
            self._known.add(candidate.point.tobytes())

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Adds an arrival; whoever proposed it, it takes part."""
        if candidate.point is None:
            return
        self.told += 1
        self.failed += observation is None
        self._known.add(candidate.point.tobytes())
        if observation is not None:
            self._points.append(candidate.point)
            self._losses.append(observation.losses)

    def diagnostics(self) -> dict[str, float]:
        """Counts, and how many of the survivors look non-dominated."""
        state = self._state()
        return {
            "told": float(self.told),
            "failed": float(self.failed),
            "population_size": float(self.plan.size),
            "generations": float(state.generations if state else 0),
            "front": float(len(front(state.losses)) if state else 0),
            "spread": float(np.mean(state.points.std(axis=0))) if state else self.plan.spread,
        }

    def _state(self) -> _State | None:
        """The survivors of what has arrived so far; None until the first population is complete."""
        while True:
            used = self._kept.used if self._kept else 0
            wanted = self.plan.group if self._kept else self.plan.size
            if len(self._points) - used < wanted:
                return self._kept
            points, losses = np.array(self._points[used : used + wanted]), np.array(self._losses[used : used + wanted])
            if self._kept:
                points, losses = np.vstack([self._kept.points, points]), np.vstack([self._kept.losses, losses])
            generations = self._kept.generations + 1 if self._kept else 0
            chosen, merits = self.survive(losses, self.plan.size, rng(self.seed, generations, _SURVIVAL))
            self._kept = _State(points[chosen], losses[chosen], merits, used + wanted, generations)

    def _child(self, state: _State, generator: np.random.Generator) -> Vector:
        """One child (D,) of two parents that each won a tournament of two."""
        count, dim = state.points.shape
        pairs = generator.permuted(np.tile(np.arange(count), (2, 1)), axis=1)[:, :2]  # two tournaments of two each
        parents = [max(map(int, pair), key=lambda i: tuple(state.merits[i])) for pair in pairs]
        low, high = np.zeros(dim), np.ones(dim)
        both = state.points[parents][:, None, :].copy()  # (2, 1, D)
        if generator.random() < _CROSSOVER:
            index, half = np.full((1, 1), _SBX_INDEX), np.full((1, 1), 0.5)
            both = cross_sbx(both, low, high, index, half, half.copy(), random_state=generator)
        child = both[int(generator.integers(2))]
        probability = np.full(1, min(0.5, 1.0 / dim))
        child = mut_pm(child, low, high, np.full(1, _PM_INDEX), probability, True, random_state=generator)
        return np.clip(np.asarray(child[0], dtype=np.float64), 0.0, 1.0)
