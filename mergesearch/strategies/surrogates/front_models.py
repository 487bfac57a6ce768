"""One Gaussian process per objective behind the strategies that look for a front: design, fits, recommendation."""

import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Literal, TypeAlias

import numpy as np

from mergesearch.pareto import front
from mergesearch.strategies.base import Problem, Proposal, rng
from mergesearch.strategies.random import SobolPoints
from mergesearch.strategies.surrogates.acquisition import Feasibility, LogImprovement, around, candidates, maximise
from mergesearch.strategies.surrogates.gaussian_process import Hyper, Matrix, Process, Sample, length_centres, process
from mergesearch.strategies.surrogates.told import Fits, Told
from mergesearch.types import Vector

Base: TypeAlias = Literal["front", "start"]  # what a reference point is measured from
PRIOR_UNTIL = 24  # results after which length-scales suggested by the weights are dropped (AP-BMM)
_DESIGN, _SEARCH, _FANTASY = 1, 2, 3  # purposes of random numbers


class FrontModels:
    """The design (start, seeds, points around the start), then processes of each objective's standardised losses.

    `startup` None: 2 (D + 1) points, at most a quarter of the budget; the problem's seeds are among them. `suggested`:
    length-scales (D,) that hold as the prior's relative medians until 24 results are in (ours: AP-BMM only begins
    there, which a fit forgets).
    """

    def __init__(
        self,
        problem: Problem,
        seed: int,
        startup: int | None,
        spread: float,
        starts: int,
        suggested: Vector | None = None,
    ) -> None:
        self.problem, self.seed, self.told = problem, seed, Told()
        limit = max(int(problem.evaluations / 4), 2)
        self.startup = min(2 * (problem.dim + 1), limit) if startup is None else startup
        self._spread = spread
        self._points = SobolPoints(problem.dim, seed, _DESIGN)
        dim, count = problem.dim, len(problem.objectives)
        self._fits = [Fits(dim, seed, starts) for _ in range(count)]
        self._early = self._fits
        if suggested is not None:
            centres = length_centres(dim) + np.log(suggested) - np.log(suggested).mean()
            self._early = [Fits(dim, seed, starts, Hyper(suggested), centres) for _ in range(count)]
        self._models: tuple[int, list[Process]] | None = None

    def design(self, number: int) -> Proposal | None:
        """The point of the design whose turn it is; None once the models are to be asked."""
        turn = self.told.turns.of(number)
        if turn == 0:
            return Proposal(self.problem.start, "start")
        if turn > self.startup and len(self.told.results) >= 2:
            return None
        seeds = self.problem.seeds[: self.startup]
        if turn <= len(seeds):
            return Proposal(seeds[turn - 1], "seed")
        return Proposal(around(self.problem.start, self._points[turn - 1], self._spread), "design")

    @property
    def ready(self) -> bool:
        """Whether the models are in use."""
        return len(self.told.results) >= max(self.startup, 2)

    def samples(self) -> list[tuple[Sample, float, float]]:
        """For each objective its standardised results, and the mean and deviation that were taken out."""
        return [self.told.objective(j).standardised() for j in range(len(self.problem.objectives))]

    def models(self) -> list[Process]:
        """The process of each objective, cached by how many results there are."""
        count = len(self.told.results)
        if self._models is None or self._models[0] != count:
            fits = self._early if count <= PRIOR_UNTIL else self._fits
            made = []
            for j, fit in enumerate(fits):
                sample = self.told.objective(j)
                made.append(process(sample.standardised()[0], fit.at(sample)))
            self._models = (count, made)
        return self._models[1]

    def means(self) -> Matrix:
        """Posterior mean losses (n, M) at the results' points, in the losses' own units."""
        columns: list[Vector] = [
            level + scale * model.fitted()[:, 0]
            for model, (_, level, scale) in zip(self.models(), self.samples(), strict=True)
        ]
        return np.stack(columns, axis=1)

    def normalised(self) -> Matrix:
        """Posterior mean losses (n, M), scaled to 0 (best) .. 1 (worst) of the results."""
        means = self.means()
        low, span = means.min(axis=0), np.ptp(means, axis=0)
        return np.asarray((means - low) / np.where(span > 0, span, 1.0), dtype=np.float64)

    def tried(self, number: int, count: int) -> Matrix:
        """Points (k, D) to weigh for candidate `number`: over the cube and around the front of posterior means."""
        model = self.models()[0]
        best = model.points[front(self.means())]
        generator = rng(self.seed, number, _SEARCH)
        if len(best) > count // 4:
            best = best[np.sort(generator.choice(len(best), count // 4, replace=False))]
        return candidates(best, np.zeros(self.problem.dim), np.ones(self.problem.dim), count, generator)

    def feasibility(self) -> Feasibility:
        """The chance that an evaluation works."""
        return Feasibility.of(self.told.points(), self.told.failed_points(self.problem.dim))

    def single(self, model: Process, number: int, draws: int, restarts: int, fantasies: int) -> Vector:
        """The point (D,) with the largest expected improvement of one process, pending points imagined."""
        dim = self.problem.dim
        pending = self.told.pending_points(dim)
        if len(pending):
            normals = rng(self.seed, number, _FANTASY).standard_normal((fantasies, len(pending)))
            model = model.with_pending(pending, normals)
        order = np.argsort(model.fitted().mean(axis=1), kind="stable")[:4]
        low, high = np.zeros(dim), np.ones(dim)
        tried = candidates(model.points[order], low, high, draws, rng(self.seed, number, _SEARCH))
        return maximise(LogImprovement.of(model, self.feasibility()), tried, low, high, restarts)

    def recommend(self) -> Vector | None:
        """The evaluated point with the least weighted posterior mean; None before the models are in use."""
        if not self.ready:
            return None
        weights = np.array([objective.weight for objective in self.problem.objectives])
        return np.array(self.models()[0].points[int(np.argmin(self.means() @ weights))])

    def diagnostics(self) -> Mapping[str, float]:
        """Counts; size of the front of posterior means; shortest and longest length-scale, largest noise floor."""
        figures = {"told": float(len(self.told.results)), "failed": float(len(self.told.failed))}
        if not self.ready:
            return figures
        hypers = [model.hyper for model in self.models()]
        return figures | {
            "front": float(len(front(self.means()))),
            "shortest": min(float(hyper.lengths.min()) for hyper in hypers),
            "longest": max(float(hyper.lengths.max()) for hyper in hypers),
            "noise": max(hyper.noise for hyper in hypers),
        }

    def reference(self, margin: float, base: Base) -> Vector:
        """The reference losses (M,): those counted as 0, and `margin` of the gain from there to the least seen beyond.

        'start' counts the start's losses as 0 (where it failed, the median result's), 'front' the worse of them and
        the worst on the front, all as posterior means. Without a gain, the spread of the results stands in for it.
        """
        means = self.means()
        known = [np.array_equal(result.point, self.problem.start) for result in self.told.results]
        zero = means[known.index(True)] if any(known) else np.median(means, axis=0)
        if base == "front":
            zero = np.maximum(zero, means[front(means)].max(axis=0))
        gain, spread = zero - means.min(axis=0), means.std(axis=0)
        gain = np.where(gain > 1e-3 * spread, gain, np.where(spread > 0, spread, 1.0))
        return np.asarray(zero + margin * gain, dtype=np.float64)


def check_objectives(kind: str, count: int, most: int) -> str | None:
    """A sentence where a strategy cannot take that many objectives, else None."""
    if count <= most:
        return None
    return (
        f"strategy {kind!r} handles up to {most} objectives, since the cost of hypervolume explodes with their number; "
        f"the study has {count}: use 'parego'"
    )


def load_botorch() -> None:
    """Imports BoTorch, which takes seconds, without the warnings of what it imports itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("mergesearch.strategies.surrogates.botorch_front")
