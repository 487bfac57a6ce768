"""Any strategy, first on few groups, then on those that matter: model, block, module. For more axes than evaluations.

Axes of one knob and expert begin as one; a level of the search ends with evidence on where to split them: the gradient
at the best point where there is one, else two probes for each possible split, which move its two sides apart. What the
evidence does not support stays together. The next level starts where the last one ended and knows all of its results.
Staged search: methods of many papers go from one λ to one per expert to one per layer; the test for a split is ours.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast, final

import numpy as np
from pydantic import Field

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, weighted_loss
from mergesearch.strategies.make import make_inner
from mergesearch.strategies.tied import Blocks, coarsest, halves
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Request, Vector, frozen_array


class Options(PluginOptions):
    """`inner`: the strategy that searches each level: its `kind` with its options beside it. `levels`: of the search,
    the first with one group. `split_share`: of the budget, at most, that probes for splits may take. `probe`: how far a
    probe moves the sides of a split, in unit-cube widths. `sure`: standard errors by which a probe must tell a split
    from nothing; of gradients, the share of the greatest slope. `loss`: the differentiable loss whose gradient is
    evidence; None: the first that the study offers, '' for probes."""

    inner: dict[str, Any] = Field(default_factory=lambda: {"kind": "cma_es"})
    levels: int = Field(default=3, ge=1, le=8)
    split_share: float = Field(default=0.25, gt=0, lt=1)
    probe: float = Field(default=0.1, gt=0, le=0.5)
    sure: float = Field(default=1.0, ge=0)
    loss: str | None = None


@dataclass(frozen=True, eq=False)
class _Split:
    """A block that may be split: which one, and the axes of either side."""

    block: int
    left: Vector
    right: Vector


@dataclass(eq=False)
class _Level:
    """One level: its blocks, the strategy on them, how many turns it has before evidence is gathered."""

    blocks: Blocks
    inner: Strategy
    ends: float
    centre: Vector
    asked: int = 0
    splits: list[_Split] = field(default_factory=list)
    probes: list[Proposal] = field(default_factory=list)
    asked_probes: int = 0
    told_probes: dict[int, Observation | None] = field(default_factory=dict)


@final
class CoarseToFine(Strategy):
    """Strategy; see `strategies/base.py` for the contract. While probes are out, the level's own search goes on."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = True

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self._options = cast(Options, options)
        self._problem, self._seed = problem, seed
        chosen = self._options.loss
        self._loss = (problem.gradients[0] if problem.gradients else "") if chosen is None else chosen
        self._turns = Turns()
        self._cost = 0.0
        self._log: list[tuple[Candidate, Observation | None]] = []
        self._asked_in: dict[int, tuple[int, int, int]] = {}  # candidate -> level, number there, probe or -1
        self._baselines: list[tuple[Candidate, Observation | None]] = []
        self._notes: list[str] = []
        self._levels: list[_Level] = []
        self._begin(coarsest(problem), problem.start)

    def ask(self, number: int) -> Proposal | None:
        """The level's probes once its turns are used up, else what its strategy proposes."""
        level, ahead = self._levels[-1], self._turns.of(number) - self._turns.taken
        waiting = level.probes[level.asked_probes :]
        if ahead < len(waiting):
            return waiting[ahead]
        inner = level.inner.ask(level.asked + ahead - len(waiting))
        if inner is None:
            return None
        return Proposal(level.blocks.spread(inner.point), inner.origin, inner.request)

    def asked(self, candidate: Candidate) -> None:
        """Counts the turn. A level whose share of the budget is used up draws up its probes."""
        self._turns = self._turns.after(candidate)
        if candidate.point is None:
            return
        self._cost += candidate.cost
        place, level = len(self._levels) - 1, self._levels[-1]
        waiting = level.probes[level.asked_probes :]
        if waiting and np.array_equal(waiting[0].point, candidate.point) and candidate.origin == "probe":
            self._asked_in[candidate.number] = (place, -1, level.asked_probes)
            level.asked_probes += 1
            return
        self._asked_in[candidate.number] = (place, level.asked, -1)
        self._pass_on(level, candidate, level.asked)
        level.asked += 1
        last = len(self._levels) == self._options.levels
        if not last and not level.probes and self._cost >= level.ends:
            self._draw_up(level)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Told to the strategy of the level it was asked in; the last probe of a level begins the next one."""
        if candidate.point is None:
            self._baselines.append((candidate, observation))
            self._levels[-1].inner.tell(candidate, observation)
            return
        place, number, probe = self._asked_in.pop(candidate.number, (len(self._levels) - 1, -1, -1))
        level = self._levels[place]
        self._log.append((candidate, observation))
        if probe >= 0:
            level.told_probes[probe] = observation
            if len(level.told_probes) == len(level.probes) and place == len(self._levels) - 1:
                self._refine(level)
        elif number >= 0:
            level.inner.tell(_moved(candidate, level.blocks, number), _tied(observation, level.blocks))
        else:
            level.inner.tell(_moved(candidate, level.blocks, level.asked), _tied(observation, level.blocks))

    def recommend(self) -> Vector | None:
        """What the strategy of the current level recommends; early on, where the level began."""
        level = self._levels[-1]
        point = level.inner.recommend()
        if point is not None:
            return level.blocks.spread(point)
        return level.centre if len(self._levels) > 1 else None

    def diagnostics(self) -> Mapping[str, float]:
        """The level, how many groups of axes it has, and the inner strategy's own figures."""
        level = self._levels[-1]
        return {
            **level.inner.diagnostics(),
            "level": float(len(self._levels)),
            "blocks": float(level.blocks.count),
        }

    def notes(self) -> tuple[str, ...]:
        """What was split and why, level by level."""
        return tuple(self._notes)

    def _pass_on(self, level: _Level, candidate: Candidate, number: int) -> None:
        level.inner.asked(_moved(candidate, level.blocks, number))

    def _begin(self, blocks: Blocks, centre: Vector) -> None:
        """A new level, which is told all results that its axes can express."""
        number = len(self._levels)
        left = self._problem.evaluations - self._cost
        share = left / (self._options.levels - number)
        blocks = blocks.around(centre)
        inner_problem = Problem(
            dim=blocks.count,
            objectives=self._problem.objectives,
            start=blocks.gather(centre),
            evaluations=left if number + 1 == self._options.levels else share,
            gradients=self._problem.gradients,
            gradient_cost=self._problem.gradient_cost,
        )
        level = _Level(blocks, make_inner(self._options.inner, inner_problem, self._seed), self._cost + share, centre)
        for candidate, observation in self._baselines:
            level.inner.tell(candidate, observation)
        if number:  # a first own turn at the centre, which is known, would be wasted
            known = [(c, o) for c, o in self._log if blocks.can_express(cast(Vector, c.point))]
            for candidate, observation in known:
                moved = _moved(candidate, blocks, level.asked)
                level.inner.asked(moved)
                level.inner.tell(moved, _tied(observation, blocks))
                level.asked += 1
        self._levels.append(level)

    def _draw_up(self, level: _Level) -> None:
        """The probes that decide what to split, around the best point so far, within their share of the budget."""
        recommended = level.inner.recommend()
        level.centre = self._best_point() if recommended is None else level.blocks.spread(recommended)
        level.splits = [_Split(b, left, right) for b, left, right in halves(level.blocks, self._problem)]
        if self._loss:
            level.probes = [Proposal(level.centre, "probe", Request(gradient=self._loss))]
            return
        most = int(self._options.split_share * self._problem.evaluations / (self._options.levels - 1) / 2)
        level.splits = level.splits[: max(most, 1)]
        for split in level.splits:
            step = self._options.probe * (split.left / math.sqrt(2.0) - split.right / math.sqrt(2.0))
            level.probes += [Proposal(np.clip(level.centre + s * step, 0.0, 1.0), "probe") for s in (1.0, -1.0)]
        if not level.probes:
            level.ends = math.inf

    def _best_point(self) -> Vector:
        scored = [(weighted_loss(self._problem, o.losses), c) for c, o in self._log if o is not None]
        if not scored:
            return self._problem.start
        return cast(Vector, min(scored, key=lambda pair: (pair[0], pair[1].number))[1].point)

    def _refine(self, level: _Level) -> None:
        """Split what the probes say, and begin the next level."""
        chosen = self._by_gradient(level) if self._loss else self._by_probes(level)
        number = len(self._levels) + 1
        of = f"of {len(level.splits)} possible splits" if level.splits else "there was nothing to split"
        if chosen:
            names = ", ".join(level.blocks.name(level.splits[i].block) for i in chosen[:4])
            more = f" and {len(chosen) - 4} more" if len(chosen) > 4 else ""
            kind = f"the gradient of {self._loss!r}" if self._loss else "probes"
            self._notes.append(f"level {number}: {kind} supported {len(chosen)} {of}: {names}{more}")
        else:
            self._notes.append(f"level {number}: no evidence for a finer search ({of}); the groups stay as they are")
        blocks = level.blocks.split([(level.splits[i].left, level.splits[i].right) for i in chosen])
        self._begin(blocks, frozen_array(level.centre))

    def _by_gradient(self, level: _Level) -> list[int]:
        """Splits whose sides pull apart, compared with the strongest slope of any block or split."""
        observation = level.told_probes[0]
        if observation is None or observation.gradients is None or not np.isfinite(observation.gradients).all():
            return list(range(len(level.splits)))  # no evidence to be had: the plain schedule
        slopes = observation.gradients  # (M, D)
        apart = [float(np.abs(slopes @ (s.left - s.right)).max()) / 2.0 for s in level.splits]
        together = [float(np.abs(slopes @ (s.left + s.right)).max()) / 2.0 for s in level.splits]
        strongest = max([*apart, *together], default=0.0)
        if strongest == 0.0:
            return []
        return [i for i, slope in enumerate(apart) if slope >= 0.1 * self._options.sure * strongest]

    def _by_probes(self, level: _Level) -> list[int]:
        """Splits whose two probes differ in some objective by more than chance."""
        chosen = []
        for i in range(len(level.splits)):
            up, down = level.told_probes[2 * i], level.told_probes[2 * i + 1]
            if up is None or down is None:
                continue
            error = np.sqrt(np.square(up.stderr) + np.square(down.stderr))
            if bool(np.any(np.abs(up.losses - down.losses) > self._options.sure * error)):
                chosen.append(i)
        return chosen


def _moved(candidate: Candidate, blocks: Blocks, number: int) -> Candidate:
    """The candidate as the level's strategy knows it."""
    assert candidate.point is not None
    return Candidate(number, blocks.gather(candidate.point), candidate.origin, candidate.request, candidate.cost)


def _tied(observation: Observation | None, blocks: Blocks) -> Observation | None:
    """The observation with gradients with respect to the blocks."""
    if observation is None or observation.gradients is None:
        return observation
    return Observation(
        observation.losses,
        observation.stderr,
        observation.n,
        observation.guides,
        blocks.pull_back(observation.gradients),
        observation.examples,
    )
