"""The ordered log of a strategy with a model: what was told, what is pending, what failed; and when a model is fitted.

Fits are a function of the results alone, so a replay gives the same ones, however often and when it was asked before.
"""

import math
from dataclasses import dataclass

import numpy as np

from mergesearch.strategies.base import Observation, Problem, rng
from mergesearch.strategies.surrogates.acquisition import around
from mergesearch.strategies.surrogates.gaussian_process import Hyper, Matrix, Sample, fit, typical
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Vector

_FIRST = 8  # results at the first thorough fit; then at every doubling
_DENSE = 300  # results up to which every one of them brings a fit
_FITTING, _NUDGE = 91, 92  # purposes of random numbers
_CLOSE = 1e-6  # a proposal nearer to a known point than this (in every coordinate) is moved away


@dataclass(frozen=True, eq=False)
class Result:
    """A told candidate: its point (D,), losses (M,), their standard errors (M,), and who proposed it."""

    number: int
    point: Vector
    losses: Vector
    stderr: Vector
    origin: str


class Told:
    """Results in the order in which they were told, without failures; each candidate counts once."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.results: list[Result] = []
        self.pending: dict[int, Vector] = {}
        self.failed: list[Vector] = []
        self._known: set[int] = set()

    def asked(self, candidate: Candidate) -> None:
        """Notes the candidate as pending."""
        self.turns = self.turns.after(candidate)
        if candidate.point is not None:
            self.pending[candidate.number] = candidate.point

    def tell(self, candidate: Candidate, observation: Observation | None) -> bool:
        """Notes how it ended. False for what says nothing new: a baseline, or a second tell."""
        self.pending.pop(candidate.number, None)
        if candidate.point is None or candidate.number in self._known:
            return False
        self._known.add(candidate.number)
        if observation is None or not np.isfinite(observation.losses).all():
            self.failed.append(candidate.point)
            return True
        stderr = np.nan_to_num(observation.stderr, nan=0.0, posinf=0.0)
        self.results.append(
            Result(candidate.number, candidate.point, observation.losses.copy(), stderr, candidate.origin)
        )
        return True

    @property
    def position(self) -> tuple[int, int, tuple[int, ...]]:
        """What a proposal may depend on, as a key: counts of results and failures, and the numbers pending."""
        return len(self.results), len(self.failed), tuple(self.pending)

    def points(self) -> Matrix:
        """Points (n, D) of the results; there must be one."""
        return np.array([result.point for result in self.results])

    def pending_points(self, dim: int) -> Matrix:
        """Points (k, D) still being evaluated."""
        return np.array(list(self.pending.values())).reshape(-1, dim)

    def failed_points(self, dim: int) -> Matrix:
        """Points (k, D) whose evaluation failed."""
        return np.array(self.failed).reshape(-1, dim)

    def objective(self, index: int) -> Sample:
        """The results of one objective, with the variances known of them."""
        return Sample(
            self.points(),
            np.array([result.losses[index] for result in self.results]),
            np.square([result.stderr[index] for result in self.results]),
        )

    def weighted(self, problem: Problem) -> Sample:
        """The results of the problem's weighted mean, as if the objectives' errors were independent."""
        weights = np.array([objective.weight for objective in problem.objectives])
        weights = weights / weights.sum()
        return Sample(
            self.points(),
            np.array([result.losses @ weights for result in self.results]),
            np.array([np.square(result.stderr) @ np.square(weights) for result in self.results]),
        )

    def apart(self, point: Vector, seed: int, number: int) -> Vector:
        """The point (D,) for candidate `number`, moved by a little where it repeats one told, failed or pending."""
        others = [*(result.point for result in self.results), *self.failed, *self.pending.values()]
        table, shift = np.array(others).reshape(-1, len(point)), 1e-3
        generator = rng(seed, number, _NUDGE)
        while np.any(np.abs(table - point).max(axis=1) < _CLOSE):
            point = around(point, generator.uniform(size=len(point)), shift)
            shift *= 2.0
        return point


class Fits:
    """Parameters of one process by the number of results they are fitted to.

    Thorough fits, from several starts, at 8, 16, 32, ... results, each beginning with the one before; any other begins
    with the thorough one below it. So a replay repeats a handful of fits, not all of them. Beyond 300 results they are
    renewed at every ceil(sqrt(n))-th.
    """

    def __init__(self, dim: int, seed: int, starts: int, begin: Hyper | None = None, centres: Vector | None = None):
        self._dim, self._seed, self._starts = dim, seed, starts
        self._begin, self._centres = begin or typical(dim), centres
        self._thorough: dict[int, Hyper] = {}
        self._latest: tuple[int, Hyper] = (0, self._begin)

    def at(self, sample: Sample) -> Hyper:
        """The parameters for all results of a sample in the order of the log, in its own units."""
        count = len(sample.targets)
        if count > _DENSE:
            step = math.ceil(math.sqrt(count))
            count = max(count // step * step, _DENSE)
        if self._latest[0] != count:
            self._latest = (count, self._fitted(sample, count))
        return self._latest[1]

    def _fitted(self, sample: Sample, count: int) -> Hyper:
        below = _FIRST * 2 ** math.floor(math.log2(count / _FIRST)) if count >= _FIRST else 0
        hyper = self._begin
        anchor = _FIRST
        while anchor <= below:
            if anchor not in self._thorough:
                starts = [hyper, *self._random_starts(anchor)]
                self._thorough[anchor] = fit(sample.first(anchor).standardised()[0], starts, self._centres)
            hyper = self._thorough[anchor]
            anchor *= 2
        return hyper if count == below else fit(sample.first(count).standardised()[0], [hyper], self._centres)

    def _random_starts(self, count: int) -> list[Hyper]:
        """`starts` - 1 more beginnings: the typical one, a short one, then random ones."""
        generator = rng(self._seed, count, _FITTING)
        root = math.sqrt(self._dim)
        starts = [typical(self._dim), Hyper(np.full(self._dim, 0.15 * root), 1.0, 1e-2)]
        while len(starts) < self._starts - 1:
            lengths = root * np.exp(generator.uniform(math.log(0.1), math.log(2.0), self._dim))
            starts.append(Hyper(lengths, 1.0, float(np.exp(generator.uniform(math.log(1e-5), math.log(1e-1))))))
        return starts[: self._starts - 1]
