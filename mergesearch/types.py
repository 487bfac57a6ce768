"""The frozen values that cross layers. They check themselves when built and are never changed afterwards."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mergesearch.errors import SpecError

Vector: TypeAlias = NDArray[np.float64]


class Direction(StrEnum):
    """Which way a score improves."""

    MAX = "max"
    MIN = "min"


class Split(StrEnum):
    """Which examples a score was taken on. A strategy sees SEARCH alone.

    SEARCH guides the strategy, CONFIRM chooses among finalists, TEST is read once for each reported recipe.
    """

    SEARCH = "search"
    CONFIRM = "confirm"
    TEST = "test"


class Status(StrEnum):
    """Where a study stands. Only a controller that holds the lease changes it."""

    NEW = "new"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    FAILED = "failed"
    DONE = "done"


def frozen_array(values: ArrayLike) -> Vector:
    """A read-only float64 copy of `values`."""
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


@dataclass(frozen=True)
class Guide:
    """Another metric of the same scorer that a strategy is told in an objective's place: a smooth one (cross-entropy)
    beside a coarse one (accuracy on a few hundred examples)."""

    metric: str
    direction: Direction
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Objective:
    """One number to improve. `score` is in its natural direction, `loss` is always minimised.

    `low` and `high` bound the metric where it is bounded (accuracy: 0 and 1), else None. `weight` is its share in a
    weighted sum, at least 0. `guide` is what strategies are told instead; fronts and tables show the objective.
    """

    name: str
    direction: Direction = Direction.MAX
    weight: float = 1.0
    low: float | None = None
    high: float | None = None
    guide: Guide | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "direction", Direction(self.direction))  # 'max' as plain text is the same
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise SpecError(f"objective {self.name!r}: weight {self.weight} must be a number of at least 0")

    @property
    def told(self) -> "Objective":
        """The objective as a strategy knows it: its guide under its own name and weight, or itself."""
        if self.guide is None:
            return self
        return Objective(self.name, self.guide.direction, self.weight, self.guide.low, self.guide.high)

    def told_score(self, outcome: "Scored") -> "Score":
        """What a strategy is told of an outcome: the guide's score, or its own."""
        return outcome.metrics[self.name][self.guide.metric] if self.guide else outcome.scores[self.name]

    def loss(self, score: float) -> float:
        """The one place where a sign is flipped."""
        return -score if self.direction is Direction.MAX else score

    def score(self, loss: float) -> float:
        """Inverse of `loss`."""
        return -loss if self.direction is Direction.MAX else loss


@dataclass(frozen=True)
class Request:
    """How much of an evaluation is wanted: which examples, and whether gradients come with the scores.

    `share` of each objective's examples, from the share `offset` of their fixed order on; beyond the end it begins
    again. The whole of them by default. `gradient` names the scorers' differentiable loss ('loss', 'entropy', 'kl',
    ...) whose gradient with respect to the point is wanted too, '' for none. `continues` is the number of an earlier
    candidate at the same point that was scored on exactly the examples before `offset`: what is recorded then covers
    both, from the first example on.
    """

    share: float = 1.0
    offset: float = 0.0
    gradient: str = ""
    continues: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0 or not 0.0 <= self.offset < 1.0:
            raise SpecError(f"a request needs 0 < share <= 1 and 0 <= offset < 1, got {self.share} and {self.offset}")
        if self.continues is not None and (self.gradient or self.offset == 0.0 or self.offset + self.share > 1 + 1e-9):
            raise SpecError("a request that continues another starts where that one ended, and takes no gradient")

    @property
    def covers(self) -> float:
        """The share of the examples that the recorded scores stand for."""
        return min(self.share + (self.offset if self.continues is not None else 0.0), 1.0)

    @property
    def complete(self) -> bool:
        """Whether the recorded scores stand for all examples: only such candidates are compared and make a front."""
        return self.covers > 1.0 - 1e-9

    def rows(self, count: int) -> NDArray[np.int64]:
        """Positions among `count` examples, at least one. Neighbouring windows share none and leave none out."""
        first, end = math.floor(self.offset * count + 0.5), math.floor((self.offset + self.share) * count + 0.5)
        return np.arange(first, max(end, first + 1), dtype=np.int64) % count

    def cost(self, gradient_cost: float) -> float:
        """In evaluations of all examples: the share, times `gradient_cost` where a gradient is wanted."""
        return self.share * (gradient_cost if self.gradient else 1.0)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A numbered point to evaluate: shape (D,) in the unit cube; None for a baseline, whose recipe is fixed.

    `origin` says who proposed it: the strategy's own word ('start', 'sample', 'front', ...), 'recommended', or
    'baseline:<name>'. `cost` is what it takes from the budget, in evaluations of all examples.
    """

    number: int
    point: Vector | None
    origin: str = "sample"
    request: Request = Request()
    cost: float = 1.0

    def __post_init__(self) -> None:
        if self.point is None:
            return
        point = frozen_array(self.point)
        if point.ndim != 1 or not np.all((point >= 0.0) & (point <= 1.0)):
            raise SpecError(f"candidate {self.number}: its point must be one vector within the unit cube, got {point}")
        object.__setattr__(self, "point", point)


@dataclass(frozen=True)
class Score:
    """Mean of a metric over `n` examples, with its standard error (0.0 where it is not known)."""

    value: float
    stderr: float = 0.0
    n: int = 1


@dataclass(frozen=True)
class Timing:
    """Where the seconds of one evaluation went.

    `queue`: waiting for a worker; `build`: making the candidate; `score`: scoring it; `record`: the controller's part,
    the write of the ask, and from the result's arrival to its write. `gpu`: GPU-seconds, build and score times the
    GPUs that the worker held.
    """

    queue: float = 0.0
    build: float = 0.0
    score: float = 0.0
    record: float = 0.0
    gpu: float = 0.0


@dataclass(frozen=True, eq=False)
class Scored:
    """The outcome of an evaluation that worked.

    `scores[objective]` is the objective's own metric. `metrics[objective][name]` holds every metric the scorer gave,
    the objective's own included. `examples[objective]` is the per-example value of the objective's own metric,
    float32 (n,), in the study's fixed order; absent where a scorer has none. `gradients[objective]` is the gradient
    of the requested differentiable loss with respect to the point, float64 (D,) in unit-cube widths; the loss itself
    stands in `metrics[objective]` under its name. Empty where none was asked for.
    """

    scores: Mapping[str, Score]
    metrics: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    examples: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    gradients: Mapping[str, Vector] = field(default_factory=dict)
    timing: Timing = Timing()
    worker: str = ""


@dataclass(frozen=True)
class Failed:
    """The outcome of an evaluation that did not work.

    `kind` is the name of the error's class, or 'not_finite', 'worker_lost', 'timeout'; `message` one sentence.
    """

    kind: str
    message: str
    timing: Timing = Timing()
    worker: str = ""


Outcome: TypeAlias = Scored | Failed


@dataclass(frozen=True)
class Asked:
    """Log entry: this candidate is to be evaluated on this split. Recorded before anything is submitted."""

    seq: int
    candidate: Candidate
    split: Split


@dataclass(frozen=True)
class Told:
    """Log entry: the evaluation of a candidate on a split ended. At most one for each (candidate, split)."""

    seq: int
    candidate: Candidate
    split: Split
    outcome: Outcome


Event: TypeAlias = Asked | Told


def losses(objectives: tuple[Objective, ...], outcome: Outcome) -> Vector | None:
    """Losses (M,) of an outcome in the order of `objectives`; None where it failed."""
    if isinstance(outcome, Failed):
        return None
    return frozen_array([o.loss(outcome.scores[o.name].value) for o in objectives])


def told_losses(objectives: tuple[Objective, ...], outcome: Scored) -> Vector:
    """Losses (M,) as strategies are told them: of the guides where objectives have one."""
    return frozen_array([o.told.loss(o.told_score(outcome).value) for o in objectives])


def weighted_loss(objectives: tuple[Objective, ...], values: Vector) -> float:
    """Weighted mean of losses (M,), the weights scaled to sum to 1: the one number where one is needed."""
    weights = np.array([o.weight for o in objectives])
    return float(weights @ values / weights.sum())
