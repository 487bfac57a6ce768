"""How much of its store a study takes."""

from dataclasses import dataclass
from typing import Final

from mergesearch.results import Results
from mergesearch.stored import StoredStudy
from mergesearch.types import Candidate, Scored

ROW_BYTES: Final = 250  # of an evaluation's own row and its places in indexes, as SQLite keeps them
SCORE_BYTES: Final = 90  # of one row of scores


@dataclass(frozen=True)
class Amount:
    """How much a study holds. `bytes` is about what it takes in the database, points and per-example values too."""

    candidates: int
    scored: int
    failed: int
    open: int
    repeats: int
    bytes: int

    @property
    def evaluations(self) -> int:
        """All that were asked."""
        return self.scored + self.failed + self.open


def amount(study: StoredStudy, repeats: int = 0) -> Amount:
    """What a study holds."""
    results = study.results
    scored = sum(isinstance(outcome, Scored) for outcome in results.outcomes.values())
    failed = len(results.outcomes) - scored
    held = len(study.record.spec) + sum(_candidate_bytes(candidate) for candidate in results.candidates.values())
    open_ones = len(results.pending)
    held += ROW_BYTES * (len(results.outcomes) + open_ones) + _outcome_bytes(results)
    return Amount(len(results.candidates), scored, failed, open_ones, repeats, held)


def _candidate_bytes(candidate: Candidate) -> int:
    return 100 + (0 if candidate.point is None else candidate.point.nbytes)


def _outcome_bytes(results: Results) -> int:
    total = 0
    for outcome in results.outcomes.values():
        if isinstance(outcome, Scored):
            total += SCORE_BYTES * (len(outcome.scores) + sum(map(len, outcome.metrics.values())))
            total += sum(4 * score.n for score in outcome.scores.values() if score.n > 1)  # float32 per example
            total += sum(gradient.nbytes for gradient in outcome.gradients.values())
    return total
