"""Nested MAP: experts are merged two by two, each pair by a two-axis MAP; few evaluations for many experts, one merge.

After NMMAP in MAP's code (arXiv:2406.07529). Every expert alone is scored; the two nodes of the closest losses are
merged by two scales, fitted by a quadratic; the pair becomes a node, until one is left. Scales multiply along the tree:
the coefficient of an expert is the product on its path, and that product is what is proposed, never an intermediate
model. The objectives' weights are the one preference. An early bad pair cannot be undone: where evaluations are left
they go around the result, all experts at once (ours). Without a space of experts the axes are halved, and halved again,
into at most eight blocks, and a scale runs from 0 to twice the start (ours).
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar, SupportsIndex, cast, final

import numpy as np
from pydantic import Field

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, rng, weighted_loss
from mergesearch.strategies.random import SobolPoints
from mergesearch.strategies.surrogates.linked_quadratic import Form, Matrix, Sample, fit
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Direction, Objective, Vector

_PAIR, _AROUND, _EQUAL = 1, 2, 3  # purposes of random numbers
_BLOCKS = 8  # at most so many, where the axes mean nothing
_SUM = Objective("sum", Direction.MIN)  # what a pair is chosen by: a weighted mean has the range of none of its parts
_GRID = np.stack(np.meshgrid(np.linspace(0.0, 1.0, 41), np.linspace(0.0, 1.0, 41)), axis=-1).reshape(-1, 2)
_RIDGE = 1e-3


class Options(PluginOptions):
    """`pair_evaluations`: points for each pair, fewer where the budget is smaller (the code of MAP takes 20).
    `equal_share`: share of them whose two scales are the same. `step`: standard deviation of the points around the
    result, in unit-cube widths."""

    pair_evaluations: int = Field(default=20, ge=6)
    equal_share: float = Field(default=0.2, ge=0, lt=1)
    step: float = Field(default=0.05, gt=0, le=1)


@final
class NestedMap(Strategy):
    """Strategy; see `strategies/base.py` for the contract.

    The start, all experts at one scale, each alone ('design'), the pairs ('sample'), the whole tree's result ('front'),
    then points around it. A stage begins when the one before has been asked, with what is told by then.
    """

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = False

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self._options = cast(Options, options)
        self._problem, self._seed = problem, seed
        self._members = _members(problem)  # (K, D): which axes belong to an expert
        self._zero, self._one = _ends(problem, self._members)
        experts = len(self._members)
        room = int((problem.evaluations - 4 - experts) / max(experts - 1, 1))
        self._size = max(6, min(self._options.pair_evaluations, room))
        self._sobol = SobolPoints(2, seed, _PAIR)
        self._turns = Turns()
        self._told: list[tuple[Vector, float]] = []
        self._failed = 0
        self._dates: list[int] = []  # results known when each stage began
        self._nodes: list[tuple[tuple[Vector, float], ...]] = []  # the nodes after each stage, as far as needed

    def ask(self, number: int) -> Proposal | None:
        """Never None."""
        turn, experts = self._turns.of(number), len(self._members)
        if turn == 0:
            return Proposal(self._problem.start, "start")
        if turn == 1:
            equal = np.full(experts, rng(self._seed, 0, _EQUAL).uniform(0.1, 0.9))
            return Proposal(self._point(equal), "design")
        if turn < 2 + experts:
            return Proposal(self._point(np.eye(experts)[turn - 2]), "design")
        stage, place = divmod(turn - 2 - experts, self._size)
        if stage >= experts - 1:
            result = self._point(self._after(experts - 1)[0][0])
            if turn == 2 + experts + self._size * (experts - 1) and experts > 1:
                return Proposal(result, "front")
            noise = rng(self._seed, number, _AROUND).standard_normal(self._problem.dim)
            return Proposal(np.clip(result + self._options.step * noise, 0.0, 1.0), "sample")
        first, second = self._pair(self._after(stage))
        scales = self._scales(stage * self._size + place, place)
        return Proposal(self._point(scales[0] * first[0] + scales[1] * second[0]), "sample")

    def asked(self, candidate: Candidate) -> None:
        """Counts the turn, and dates the stages that begin with the next one."""
        self._turns = self._turns.after(candidate)
        while self._begun() > len(self._dates):
            self._dates.append(len(self._told))

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Keeps the weighted loss. A failed candidate is left out."""
        if candidate.point is None:
            return
        if observation is None or not np.all(np.isfinite(observation.losses)):
            self._failed += 1
        else:
            self._told.append((candidate.point, weighted_loss(self._problem, observation.losses)))

    def recommend(self) -> Vector | None:
        """The result of the tree so far, once it is whole; None before."""
        return self._point(self._after(len(self._members) - 1)[0][0]) if self._is_whole() else None

    def diagnostics(self) -> Mapping[str, float]:
        """Blocks or experts, points for each pair, pairs decided, and the coefficient of each in the result so far."""
        experts = len(self._members)
        figures = {
            "experts": float(experts),
            "pair_evaluations": float(self._size),
            "pairs": float(max(len(self._dates) - 1, 0)),
            "told": float(len(self._told)),
            "failed": float(self._failed),
        }
        if self._is_whole():
            for k, scale in enumerate(self._after(experts - 1)[0][0]):
                figures[f"scale.{self._name(k)}"] = float(scale)
        return figures

    def notes(self) -> tuple[str, ...]:
        """Which nodes were paired, in order, and by what scales."""
        sentences = []
        for stage in range(len(self._dates) - 1):
            pair = self._pair(self._after(stage))
            merged = self._after(stage + 1)[-1][0]
            names = [" + ".join(self._name(k) for k in np.flatnonzero(node[0] > 0.0)) or "nothing" for node in pair]
            scales = ", ".join(f"{self._name(k)} {merged[k]:.2f}" for k in np.flatnonzero(merged))
            sentences.append(f"merged {names[0]} with {names[1]}: {scales or 'all scales 0'}")
        return tuple(sentences)

    def _name(self, k: SupportsIndex) -> str:
        space = self._problem.space
        return space.experts[k] if space is not None and len(space.experts) == len(self._members) else f"block{k}"

    def _is_whole(self) -> bool:
        """True once all points of all pairs were asked."""
        experts = len(self._members)
        return experts > 1 and self._turns.taken >= 2 + experts + self._size * (experts - 1)

    def _begun(self) -> int:
        """Stages whose first turn was taken, the one after the last pair included."""
        experts = len(self._members)
        over = self._turns.taken - 3 - experts
        return 0 if over < 0 else min(over // self._size + 1, experts)

    def _point(self, scales: Vector) -> Vector:
        """The point (D,) of scales (K,); an axis of several experts takes their mean, one of none keeps the start."""
        counts = self._members.sum(axis=0)
        share = (scales @ self._members) / np.maximum(counts, 1)
        point = self._zero + share * (self._one - self._zero)
        return cast(Vector, np.clip(np.where(counts > 0, point, self._problem.start), 0.0, 1.0))

    def _scales(self, index: int, place: int) -> Vector:
        """Two scales in [0, 1]; the same for the first share of a stage."""
        equal = round(self._options.equal_share * self._size)
        scales = self._sobol[index]
        return np.full(2, scales[0]) if place < equal else scales

    def _after(self, stage: int) -> tuple[tuple[Vector, float], ...]:
        """Nodes (scales, loss) after so many pairs were merged, the merged one last."""
        if len(self._dates) <= stage:  # asked ahead: nothing of the stage is recorded yet
            return self._merged(stage, len(self._told))
        while len(self._nodes) <= stage:
            at = len(self._nodes)
            self._nodes.append(self._merged(at, self._dates[at]))
        return self._nodes[stage]

    def _merged(self, stage: int, told: int) -> tuple[tuple[Vector, float], ...]:
        if stage == 0:
            alone = np.eye(len(self._members))
            known = {point.tobytes(): loss for point, loss in self._told[:told]}
            return tuple((one, known.get(self._point(one).tobytes(), np.inf)) for one in alone)
        nodes = self._after(stage - 1)
        first, second = self._pair(nodes)
        rest = tuple(node for node in nodes if node is not first and node is not second)
        best, loss = self._best(stage - 1, first[0], second[0], told)
        return (*rest, (best[0] * first[0] + best[1] * second[0], loss))

    def _pair(self, nodes: tuple[tuple[Vector, float], ...]) -> tuple[tuple[Vector, float], tuple[Vector, float]]:
        """The two neighbours of the closest losses. A node without a loss comes last."""
        ranked = sorted(nodes, key=lambda node: node[1])  # stable: ties keep the order
        gaps = [b[1] - a[1] if np.isfinite(b[1]) else np.inf for a, b in pairwise(ranked)]
        at = int(np.argmin(gaps))
        return ranked[at], ranked[at + 1]

    def _best(self, stage: int, first: Vector, second: Vector, told: int) -> tuple[Vector, float]:
        """The two scales of the least predicted loss, and that loss; 0.5 each where there is too little to fit."""
        known = {point.tobytes(): loss for point, loss in self._told[:told]}
        pairs = [self._scales(stage * self._size + place, place) for place in range(self._size)]
        pairs += [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
        points = [self._point(s[0] * first + s[1] * second).tobytes() for s in pairs]
        rows = [(s, known[p]) for s, p in zip(pairs, points, strict=True) if p in known]
        if len(rows) < 3:
            return np.full(2, 0.5), np.inf
        at, losses = np.array([s for s, _ in rows]), np.array([loss for _, loss in rows])
        sample = Sample(at, losses, np.ones(len(rows)), np.ones(len(rows)))
        form = Form.FULL if len(rows) >= 8 else Form.LINEAR
        predicted = fit(_SUM, sample, np.full(2, 0.5), 0.5, form, _RIDGE).losses(_GRID)
        best = int(np.argmin(predicted))
        return _GRID[best], float(predicted[best])


def _members(problem: Problem) -> Matrix:
    """(K, D) 1.0 where an axis fills a slot of an expert; without experts, contiguous blocks of axes."""
    space = problem.space
    if space is not None and len(space.experts) >= 2:
        members = np.zeros((len(space.experts), problem.dim))
        for slot in space.slots:
            for _, k in zip(*np.nonzero(slot.axis >= 0), strict=True):
                members[k, slot.axis[:, k][slot.axis[:, k] >= 0]] = 1.0
        if np.count_nonzero(members.sum(axis=1)) >= 2 and np.any(members.sum(axis=0) == 1.0):
            return members
    blocks = 1
    while 2 * blocks <= min(_BLOCKS, problem.dim):
        blocks *= 2
    table = np.zeros((blocks, problem.dim))
    for k, axes in enumerate(np.array_split(np.arange(problem.dim), blocks)):
        table[k, axes] = 1.0
    return table


def _ends(problem: Problem, members: Matrix) -> tuple[Vector, Vector]:
    """Points (D,) of all coefficients 0 and of all at 1: where the axes have no meaning, 0 and twice the start."""
    space = problem.space
    if space is None or len(space.experts) != len(members):
        return np.zeros(problem.dim), np.minimum(2.0 * problem.start, 1.0)
    return space.point(np.zeros(problem.dim)), space.point(np.ones(problem.dim))
