"""Scrambled Sobol points over the whole box: the control that every other strategy has to beat.

Learns nothing, so the order in which results arrive does not matter, and a study gives the same set of evaluations
on any pool. Sobol': scipy.stats.qmc (Joe and Kuo's directions, Matousek's linear scrambling and a digital shift).
"""

from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, rng
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Vector

_BLOCK = 256  # a power of two, which keeps the balance of the sequence


class Options(PluginOptions):
    """None: there is nothing to tune."""


@final
class Random(Strategy):
    """Strategy; see `strategies/base.py` for the contract. The first point is the start, then the sequence."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = True

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:  # noqa: ARG002
        self._start = problem.start
        self._sobol = SobolPoints(problem.dim, seed)
        self._turns = Turns()
        self._told = self._failed = 0

    def ask(self, number: int) -> Proposal | None:
        """Never None."""
        turn = self._turns.of(number)
        return Proposal(self._start, "start") if turn == 0 else Proposal(self._sobol[turn - 1], "sample")

    def asked(self, candidate: Candidate) -> None:
        """Counts the turn."""
        self._turns = self._turns.after(candidate)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:  # noqa: ARG002
        """Counts it; nothing is learned."""
        self._told += 1
        self._failed += observation is None

    def recommend(self) -> Vector | None:
        """None: the best of noisy scores is a biased pick, and there is no model behind them."""
        return None

    def diagnostics(self) -> Mapping[str, float]:
        """Counts of told and failed candidates."""
        return {"told": float(self._told), "failed": float(self._failed)}


@final
class SobolPoints:
    """Scrambled Sobol points (D,) in the unit cube by index. `purpose` tells several sequences of one seed apart."""

    def __init__(self, dim: int, seed: int, purpose: int = 0) -> None:
        self._engine = qmc.Sobol(dim, scramble=True, rng=rng(seed, 0, purpose))
        self._blocks: dict[int, NDArray[np.float64]] = {}  # the last two: a long search would fill the memory

    def __getitem__(self, index: int) -> Vector:
        number, row = divmod(index, _BLOCK)
        if number not in self._blocks:
            while len(self._blocks) > 1:
                del self._blocks[min(self._blocks)]
            if self._engine.num_generated != number * _BLOCK:
                self._engine.reset()
                if number:
                    self._engine.fast_forward(number * _BLOCK)
            self._blocks[number] = self._engine.random(_BLOCK)
        point: Vector = self._blocks[number][row]
        return point
