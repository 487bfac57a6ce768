"""A candidate in a dictionary: what `front --json` and `candidate --json` print."""

from dataclasses import asdict
from typing import Any

from mergesearch.results import Results
from mergesearch.types import Request, Scored, Split


def candidate_row(results: Results, number: int) -> dict[str, Any]:
    """A candidate's number, origin and scores on each split; its request and cost where they are not the usual."""
    splits: dict[str, dict[str, Any]] = {}
    for split in Split:
        outcome = results.outcomes.get((number, split))
        if isinstance(outcome, Scored):
            splits[split.value] = {
                name: {"value": score.value, "stderr": score.stderr, "n": score.n}
                for name, score in outcome.scores.items()
            }
        elif outcome is not None:
            splits[split.value] = {"failed": outcome.kind, "message": outcome.message}
    candidate = results.candidates[number]
    row = {"candidate": number, "origin": candidate.origin, "scores": splits}
    if candidate.request != Request() or candidate.cost != 1.0:
        row |= {"request": asdict(candidate.request), "cost": candidate.cost}
    return row
