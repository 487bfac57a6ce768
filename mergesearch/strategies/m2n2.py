"""M2N2: an archive of merges that compete for examples, mated where they complement each other. For diverse pools.

Abrantes and others, "Competition and Attraction Improve Model Fusion", arXiv:2508.16204; formulas follow its code. An
example is a resource that the archive's members share: who alone solves it earns most. A child takes the part before a
cut from one mixture of its parents and the part after it from the opposite mixture. Ours: cuts lie between layer
groups, so that a child is again coefficients by group and expert; mixtures are spherical among the merged changes
(the base is common to all), by their inner products where those are known, straight otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Need, Observation, Problem, Proposal, Strategy, rng
from mergesearch.strategies.evolving.segments import Segments
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Objective, Vector

Matrix = NDArray[np.float64]

_EPSILON = 1e-8  # keeps the demand for an example that nobody solves from dividing by zero
_TRIES = 10  # draws of a child that is not a copy of a known point
_NUDGE = 0.01  # standard deviation of what then tells them apart, in unit-cube widths


class Options(PluginOptions):
    """`archive_size`: members kept. `competition`: exponent on the demand for an example: 1 shares it, 0 is a plain
    sum of scores. `attraction`: whether the second parent is chosen for what the first lacks, or like the first.
    `mutation`: standard deviation added to a child, in unit-cube widths (the paper: none for trained models)."""

    archive_size: int = Field(default=20, ge=2)
    competition: float = Field(default=1.0, ge=0, le=1)
    attraction: bool = True
    mutation: float = Field(default=0.0, ge=0, le=1)


def fitness(scores: Matrix, weights: Vector, competition: float = 1.0) -> Vector:
    """f_k = Σ_j c_j s_kj / z_j^α of scores (P, J) in [0, 1] and capacities c (J,), with z_j = Σ_k s_kj."""
    demand = scores.sum(axis=0)
    return cast(Vector, (weights * scores / (demand**competition + _EPSILON)).sum(axis=1))


def attraction(scores: Matrix, weights: Vector, first: int) -> Vector:
    """g(A, B) = Σ_j c_j / z_j max(s_Bj - s_Aj, 0) for A = `first` and every B, (P,); 0 for A itself."""
    gain = np.maximum(scores - scores[first], 0.0)
    return cast(Vector, (weights / (scores.sum(axis=0) + _EPSILON) * gain).sum(axis=1))


def slerp(a: Vector, b: Vector, t: float, gram: Matrix | None = None) -> Vector:
    """[sin((1-t)Ω) a + sin(tΩ) b] / sin Ω, Ω the angle between a and b under `gram`; straight where sin Ω < 1e-6."""
    wa, wb = slerp_weights(a, b, t, gram)
    return wa * a + wb * b


def slerp_weights(a: Vector, b: Vector, t: float, gram: Matrix | None = None) -> tuple[float, float]:
    """The factors of a and b in `slerp`. `gram` (D, D): inner products of what the coordinates weigh; None: straight.

    A vector without length has no direction: straight, too.
    """
    if gram is None:
        return 1.0 - t, t
    length = np.sqrt(max(float(a @ gram @ a), 0.0) * max(float(b @ gram @ b), 0.0))
    cosine = min(max(float(a @ gram @ b) / length, -1.0), 1.0) if length > 0.0 else 1.0
    omega = float(np.arccos(cosine))
    if np.sin(omega) < 1e-6:
        return 1.0 - t, t
    return float(np.sin((1.0 - t) * omega) / np.sin(omega)), float(np.sin(t * omega) / np.sin(omega))


def child(a: Vector, b: Vector, t: float, left: NDArray[np.bool_], gram: Matrix | None = None) -> Vector:
    """slerp_t left of the cut, slerp_{1-t} right of it; the angle is that of the whole vectors."""
    return cast(Vector, np.where(left, slerp(a, b, t, gram), slerp(a, b, 1.0 - t, gram)))


@dataclass(frozen=True, eq=False)
class _Member:
    """A scored point (D,) with its losses on the examples of each objective."""

    number: int
    point: Vector
    losses: tuple[Vector, ...]


@final
class M2n2(Strategy):
    """Strategy; see `strategies/base.py` for the contract.

    Per-example losses become scores in [0, 1] by the objective's bounds, or by the range seen in the archive. The
    examples of each objective share a capacity in proportion to its weight. Steady state: whoever is idle gets a child
    of the archive as it stands; of any pair until it is full. Without per-example losses each objective counts as one
    example. A child's coefficients beyond an axis' range are clipped to it.
    """

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = True
    NEEDS: ClassVar[frozenset[Need]] = frozenset({Need.EXAMPLES, Need.GEOMETRY})

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self._problem, self._seed, self._options = problem, seed, cast(Options, options)
        self._segments = Segments.of(problem)
        self._first = [problem.start, *self._beginnings()]
        self._turns = Turns()
        self._archive: list[_Member] = []
        self._known: set[bytes] = set()
        self._told = self._failed = self._dropped = 0

    def ask(self, number: int) -> Proposal | None:
        """The start, the seeds and the experts alone, then children. Never None."""
        turn = self._turns.of(number)
        if turn < len(self._first):
            return Proposal(self._first[turn], "start" if turn == 0 else "seed")
        generator = rng(self._seed, number)
        for _ in range(_TRIES):
            point = self._child(generator)
            if point.tobytes() not in self._known:
                return Proposal(point, "child")
        step = _NUDGE * generator.standard_normal(len(point)) * self._segments.moves
        point = np.where((point + step < 0.0) | (point + step > 1.0), point - step, point + step)
        return Proposal(np.clip(point, 0.0, 1.0), "child")

    def asked(self, candidate: Candidate) -> None:
        """Counts the turn."""
        self._turns = self._turns.after(candidate)
        if candidate.point is not None:
            self._known.add(candidate.point.tobytes())

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Adds a member; with too many of them the least fit goes."""
        if candidate.point is None:
            return
        self._told += 1
        self._failed += observation is None
        if observation is None or any(m.number == candidate.number for m in self._archive):
            return
        losses = _resources(observation)
        if self._archive and [len(x) for x in losses] != [len(x) for x in self._archive[0].losses]:
            return  # scored on other examples: not to be compared
        self._archive.append(_Member(candidate.number, candidate.point, losses))
        if len(self._archive) > self._options.archive_size:
            f = fitness(self._scores(), self._capacities(), self._options.competition)
            del self._archive[int(np.argmin(f))]
            self._dropped += 1

    def recommend(self) -> Vector | None:
        """None: its members were all evaluated, and there is no model that would make one of them the better bet."""
        return None

    def diagnostics(self) -> Mapping[str, float]:
        """Counts, members, share of the examples' capacity that some member earns, and where a child can be cut."""
        covered = 0.0
        if self._archive:
            weights = self._capacities()
            covered = float(self._scores().max(axis=0) @ weights / (weights.sum() or 1.0))
        return {
            "told": float(self._told),
            "failed": float(self._failed),
            "members": float(len(self._archive)),
            "dropped": float(self._dropped),
            "covered": covered,
            "cuts": float(self._segments.count - 1),
        }

    def notes(self) -> tuple[str, ...]:
        """What it varies, what it holds, and how it mixes."""
        return self._segments.notes

    def _beginnings(self) -> list[Vector]:
        """Seeds and experts alone, each once, the start left out."""
        seen, found = {self._problem.start.tobytes()}, []
        for point in (*self._problem.seeds, *self._segments.alone):
            held = self._segments.held(point)
            if held.tobytes() not in seen:
                seen.add(held.tobytes())
                found.append(held)
        return found[: max(int(self._problem.evaluations / 2), 1)]

    def _child(self, generator: np.random.Generator) -> Vector:
        """A child (D,) of two members; of the start and a point around it while there are fewer."""
        segments = self._segments
        if len(self._archive) < 2:
            step = 0.15 * generator.standard_normal(self._problem.dim) * segments.moves
            return np.clip(self._problem.start + step, 0.0, 1.0)
        first, second = self._parents(generator)
        a, b = (segments.values(self._archive[i].point) for i in (first, second))
        left = segments.left_of(segments.cut(generator.random()))
        values = child(a, b, float(generator.random()), left, segments.gram)
        point = segments.point(values)
        if self._options.mutation > 0.0:
            point = point + self._options.mutation * generator.standard_normal(len(point)) * segments.moves
        return np.clip(point, 0.0, 1.0)

    def _parents(self, generator: np.random.Generator) -> tuple[int, int]:
        """By roulette on fitness, then on attraction; any pair until the archive is full."""
        count = len(self._archive)
        if count < self._options.archive_size:
            first = int(generator.integers(count))
            return first, (first + 1 + int(generator.integers(count - 1))) % count
        scores, weights = self._scores(), self._capacities()
        f = fitness(scores, weights, self._options.competition)
        first = _roulette(f, generator)
        wish = attraction(scores, weights, first) if self._options.attraction else f.copy()
        wish[first] = 0.0
        if not wish.sum() > 0.0:  # nobody has what it lacks
            wish = np.where(np.arange(count) == first, 0.0, 1.0)
        return first, _roulette(wish, generator)

    def _scores(self) -> Matrix:
        """(P, J) in [0, 1], the objectives' examples one after the other."""
        table = [[m.losses[j] for m in self._archive] for j in range(len(self._problem.objectives))]
        return np.hstack([_as_scores(o, np.array(t)) for o, t in zip(self._problem.objectives, table, strict=True)])

    def _capacities(self) -> Vector:
        """(J,): the examples of an objective share its weight, times its number of examples in the mean."""
        counts = [len(losses) for losses in self._archive[0].losses]
        weights = [o.weight for o in self._problem.objectives]
        scale = sum(counts) / (sum(weights) or 1.0)
        return np.concatenate([np.full(n, scale * w / n) for n, w in zip(counts, weights, strict=True)])


def _resources(observation: Observation) -> tuple[Vector, ...]:
    """Losses of the examples of each objective; its mean loss as a single example where they are not known."""
    if observation.examples is None:
        return tuple(np.array([loss]) for loss in observation.losses)
    return tuple(np.asarray(losses, dtype=np.float64) for losses in observation.examples)


def _as_scores(objective: Objective, losses: Matrix) -> Matrix:
    """Losses (P, n) as scores in [0, 1]: by the objective's bounds, or by the range seen. NaN is the worst."""
    if objective.low is not None and objective.high is not None:
        ends = objective.loss(objective.low), objective.loss(objective.high)
        best, worst = min(ends), max(ends)
    else:
        seen = losses[np.isfinite(losses)]
        best, worst = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 0.0)
    span = worst - best
    scores = (worst - losses) / span if span > 0.0 else np.zeros_like(losses)
    return np.clip(np.nan_to_num(scores, nan=0.0), 0.0, 1.0)


def _roulette(weights: Vector, generator: np.random.Generator) -> int:
    """An index, drawn in proportion to weights of at least 0; any where all are 0."""
    total = np.cumsum(weights)
    if not total[-1] > 0.0:
        return int(generator.integers(len(weights)))
    return min(int(np.searchsorted(total, generator.random() * total[-1], side="right")), len(weights) - 1)
