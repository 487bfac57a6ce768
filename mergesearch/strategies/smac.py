"""SMAC3's random forest with expected improvement, one objective (several as a weighted sum). For rugged knobs.

Splits axes instead of smoothing them, so thresholds, densities and other knobs with steps do it no harm; on smooth
task-vector scales `gp` and `cma_es` are better. Needs the package smac: `pip install 'mergesearch[smac]'`.
Reference: Lindauer et al., JMLR 23(54), 2022; Hutter et al. (2011) for the forest. See `smac_search.py` for how one
of its asks is made a function of the log.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar, cast, final

import numpy as np
from pydantic import Field

from mergesearch.errors import SpecError
from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, rng
from mergesearch.strategies.random import SobolPoints
from mergesearch.strategies.surrogates.acquisition import around
from mergesearch.strategies.surrogates.told import Told
from mergesearch.types import Candidate, Vector

_DESIGN, _SEARCH = 1, 2  # purposes of random numbers


class Options(PluginOptions):
    """`startup`: points drawn around the start before the forest is used; None: 5 + D, at most 20 and a quarter of the
    budget. `spread`: their standard deviation in unit-cube widths. `trees`: in the forest. `draws`: points weighed per
    ask. `interleave`: chance that an ask is a uniformly random point, SMAC's guard against a forest that is wrong.
    `constant_liar`: count what is still being evaluated as mediocre, so that concurrent asks spread."""

    startup: int | None = Field(default=None, ge=2)
    spread: float = Field(default=0.2, gt=0, le=1)
    trees: int = Field(default=10, ge=1)
    draws: int = Field(default=2000, ge=16)
    interleave: float = Field(default=0.2, ge=0, le=1)
    constant_liar: bool = True


@final
class Smac(Strategy):
    """Strategy; see `strategies/base.py` for the contract. A failed candidate counts as bad as the worst result.

    SMAC is loaded, which takes seconds, when the first point after the start-up is asked for; a replay never needs it.
    An ask takes about 0.05 s of CPU time at 40 results, 0.6 s at 300 results and 24 axes, 1.5 s at 96 axes.
    """

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = False

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        if find_spec("smac") is None:
            raise SpecError("strategy 'smac' needs the package smac; `pip install 'mergesearch[smac]'`")
        self._options = cast(Options, options)
        self._problem, self._seed = problem, seed
        startup = min(5 + problem.dim, 20, max(int(problem.evaluations / 4), 2))
        self._startup = startup if self._options.startup is None else self._options.startup
        self._design = SobolPoints(problem.dim, seed, _DESIGN)
        self._told = Told()

    def ask(self, number: int) -> Proposal | None:
        """Never None."""
        turn = self._told.turns.of(number)
        if turn == 0:
            return Proposal(self._problem.start, "start")
        if turn <= self._startup or len(self._told.results) < 2:
            return Proposal(around(self._problem.start, self._design[turn - 1], self._options.spread), "design")
        point, origin = self._proposed(int(rng(self._seed, number, _SEARCH).integers(2**31)))
        return Proposal(self._told.apart(point, self._seed, number), origin)

    def asked(self, candidate: Candidate) -> None:
        """Notes the candidate as pending."""
        self._told.asked(candidate)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Notes its losses."""
        self._told.tell(candidate, observation)

    def recommend(self) -> Vector | None:
        """The evaluated point of which a forest expects most, so that luck counts for less; None at the start-up."""
        if len(self._told.results) < max(self._startup, 2):
            return None
        points, costs = self._told.points(), self._costs()
        seed = int(rng(self._seed, len(costs), _SEARCH).integers(2**31))
        return np.array(points[int(np.argmin(_search().predicted(points, costs, self._options.trees, seed)))])

    def diagnostics(self) -> Mapping[str, float]:
        """Counts of told and failed candidates."""
        return {"told": float(len(self._told.results)), "failed": float(len(self._told.failed))}

    def _costs(self) -> Vector:
        """Weighted losses (n,) of the results, brought to 0.05 .. 1.05: SMAC takes the logarithm of costs."""
        losses = self._told.weighted(self._problem).targets
        peak = max(float(np.abs(losses).max()), 1e-300)  # differences of huge losses would overflow
        losses = losses / peak
        span = float(np.ptp(losses))
        costs: Vector = 0.05 + (losses - losses.min()) / (span if span > 1e-12 else 1.0)
        return costs

    def _proposed(self, seed: int) -> tuple[Vector, str]:
        points, costs = [self._told.points()], [self._costs()]
        failed = self._told.failed_points(self._problem.dim)
        points.append(failed)
        costs.append(np.full(len(failed), costs[0].max()))
        if self._options.constant_liar:
            points.append(self._told.pending_points(self._problem.dim))
            costs.append(np.full(len(points[-1]), np.median(costs[0])))
        options = self._options
        found: tuple[Vector, str] = _search().propose(
            np.vstack(points), np.concatenate(costs), options.trees, options.draws, options.interleave, seed
        )
        return found


def _search() -> Any:
    """The module that imports SMAC."""
    return import_module("mergesearch.strategies.surrogates.smac_search")
