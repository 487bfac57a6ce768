"""What a strategy is. To add one: one file, one line in `STRATEGIES`; the contract suite finds it by itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mergesearch import types
from mergesearch.errors import SpecError
from mergesearch.plugins import PluginOptions
from mergesearch.space import SearchSpace
from mergesearch.types import Candidate, Objective, Request, Vector, frozen_array


class Need(StrEnum):
    """What a strategy cannot do without, or only worse."""

    GRADIENTS = "gradients"  # it asks for gradients: refused where the study has none to give
    EXAMPLES = "examples"  # observations carry the per-example scores, in a replay too
    GEOMETRY = "geometry"  # `Problem.geometry`: all weights are read once before the search


@dataclass(frozen=True, eq=False)
class Geometry:
    """Inner products of the models' weights, by the space's groups in the order of depth.

    `gram` (G, K, K): of the task vectors of every two experts within a group. `base` (G,): of the base with itself.
    `sizes` (G,): merged numbers in a group.
    """

    gram: NDArray[np.float64]
    base: Vector
    sizes: Vector


@dataclass(frozen=True, eq=False)
class Problem:
    """What a strategy is told at its start: D axes, M objectives, the start point (D,), and its budget.

    `evaluations` is the budget: the cost of all that it asks, counted in evaluations of all examples; one with a
    gradient costs `gradient_cost`. `gradients` names the differentiable losses whose gradients can be asked for, the
    preferred one first: 'loss' is labelled, the others ('kl', 'entropy', ...) are not; none: (). `seeds` are further
    points (D,) worth evaluating early, such as every expert alone; a strategy may ignore them. `space` says what the
    axes mean: knobs, experts and groups; None where they mean nothing (a black box). `geometry` is there for
    strategies that need it, and where there are models.
    """

    dim: int
    objectives: tuple[Objective, ...]
    start: Vector
    evaluations: float
    seeds: tuple[Vector, ...] = ()
    gradients: tuple[str, ...] = ()
    gradient_cost: float = 3.0
    space: SearchSpace | None = None
    geometry: Geometry | None = None

    def __post_init__(self) -> None:
        points = [frozen_array(point) for point in (self.start, *self.seeds)]
        for point in points:
            if point.shape != (self.dim,) or not np.all((point >= 0.0) & (point <= 1.0)):
                raise SpecError(f"a strategy's start and seeds must have {self.dim} coordinates in [0, 1], got {point}")
        object.__setattr__(self, "start", points[0])
        object.__setattr__(self, "seeds", tuple(points[1:]))


@dataclass(frozen=True, eq=False)
class Proposal:
    """A point (D,) to evaluate, why ('start', 'design', 'sample', 'front', ...) and how. Keeps a read-only copy."""

    point: Vector
    origin: str = "sample"
    request: Request = Request()

    def __post_init__(self) -> None:
        object.__setattr__(self, "point", frozen_array(self.point))


@dataclass(frozen=True, eq=False)
class Observation:
    """What an evaluation on the search split gave: losses, their standard errors and the examples behind each, (M,).

    Where a gradient was asked for: `guides` (M,) are the differentiable losses, `gradients` (M, D) their gradients
    with respect to the point; both None otherwise. `examples[j]` are the losses of objective j per example, float32
    (n,), in the fixed order; None unless the strategy needs them and the scorers give them.
    """

    losses: Vector
    stderr: Vector
    n: Vector
    guides: Vector | None = None
    gradients: NDArray[np.float64] | None = None
    examples: tuple[NDArray[np.float32], ...] | None = None


class Strategy(Protocol):
    """Proposes points, learns from their losses. Always minimises, always in the unit cube.

    A strategy's state is a function of (problem, seed, options, the ordered log of `asked` and `tell`). It is resumed
    by replaying that log, and nothing of it is saved. The calls, in a study with two workers:

        p = s.ask(0); s.asked(Candidate(0, p.point))      # the controller records a candidate, then says so
        p = s.ask(1); s.asked(Candidate(1, p.point))
        s.tell(candidate_1, Observation(...))             # results in any order, each candidate at most once
        p = s.ask(2); s.asked(Candidate(2, p.point))      # never waits for candidate 0

    A candidate that someone else proposed (a recommended point, another machine's) is announced by `asked` and told
    like the strategy's own. A baseline, which has no point, is told too: its origin says what it is, and a strategy may
    learn from it what base and experts score (`reference.py`). It takes no turn, so that the strategy's first own
    proposal stays the start. One thread at a time.

    The controller asks nothing that does not fit what is left of the budget, and keeps one evaluation of it for what
    `recommend` says at the end. So a strategy need not count, but may plan with `Problem.evaluations`.
    Subclass it explicitly: what has a value here is the usual case.
    """

    Options: ClassVar[type[PluginOptions]]
    MULTI_OBJECTIVE: ClassVar[bool]  # True: builds a front; False: minimises the weighted sum of the losses
    NEEDS: ClassVar[frozenset[Need]] = frozenset()

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None: ...

    def ask(self, number: int) -> Proposal | None:
        """The point of its `number`-th candidate, counted from 0; None: nothing to propose until more is told.

        Changes nothing that a later call could notice: random numbers are drawn from (seed, number), so asking twice,
        or never (a replay), leaves the same strategy. May return None only while something asked is not yet told.
        """
        ...

    def asked(self, candidate: Candidate) -> None:
        """`candidate` was recorded and is being evaluated. Called once for each, in the order of their numbers."""
        ...

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """The candidate's losses; None if its evaluation failed. `candidate.point` is the point that was evaluated."""
        ...

    def recommend(self) -> Vector | None:
        """The point (D,) it believes best, to be evaluated before it is trusted; None if it has no such belief."""
        ...

    def diagnostics(self) -> Mapping[str, float]:
        """Figures that say how it is doing, such as a step size or the cross-validated R² of each fit."""
        ...

    def notes(self) -> tuple[str, ...]:
        """Sentences about what it decided and why, oldest first: they only grow. Shown to people, kept in the store."""
        return ()


def rng(seed: int, number: int, purpose: int = 0) -> np.random.Generator:
    """The generator of candidate `number`: the same numbers on every machine, whatever was drawn before."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number, purpose])))


def weighted_loss(problem: Problem, losses: Vector) -> float:
    """The problem's weighted mean of losses (M,)."""
    return types.weighted_loss(problem.objectives, losses)
