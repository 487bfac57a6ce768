"""Counts whose turn it is, so that what a strategy proposes depends on the log and the number alone."""

from dataclasses import dataclass

from mergesearch.types import Candidate


@dataclass(frozen=True)
class Turns:
    """`taken` candidates with a point were announced so far; `following` is the number after the last one announced."""

    taken: int = 0
    following: int = 0

    def of(self, number: int) -> int:
        """Place of candidate `number` in the strategy's own order, from 0, however many are asked before announced."""
        return self.taken + max(number - self.following, 0)

    def after(self, candidate: Candidate) -> "Turns":
        """The count once `candidate` is announced. A baseline, which has no point, takes no turn."""
        return Turns(self.taken + (candidate.point is not None), max(self.following, candidate.number + 1))
