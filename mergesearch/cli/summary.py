"""A study in a dictionary: what `show --json` and `studies --json` print."""

from typing import Any

from mergesearch.stored import StoredStudy
from mergesearch.types import Scored, Split


def summary(study: StoredStudy) -> dict[str, Any]:
    """Status, counts, best, front size and what the strategy says of itself; plain JSON values."""
    results = study.results
    record = study.record
    return {
        "name": record.name,
        "status": record.status.value,
        "message": record.message,
        "strategy": study.facts.get("strategy"),
        "evaluations": results.search_told,
        "budget": study.budget,
        "failed": results.failed,
        "pending": len(results.pending),
        "best": None if results.best is None else candidate_row(study, results.best),
        "chosen": None if study.chosen is None else candidate_row(study, study.chosen),
        "front_size": len(results.front),
        "hypervolume": results.hypervolume(),
        "seconds": record.seconds,
        "diagnostics": dict(study.diagnostics),
    }


def candidate_row(study: StoredStudy, number: int) -> dict[str, Any]:
    """A candidate's number, origin and scores on each split it was scored on."""
    results = study.results
    splits = {}
    for split in Split:
        outcome = results.outcomes.get((number, split))
        if isinstance(outcome, Scored):
            splits[split.value] = {
                name: {"value": score.value, "stderr": score.stderr, "n": score.n}
                for name, score in outcome.scores.items()
            }
        elif outcome is not None:
            splits[split.value] = {"failed": outcome.kind, "message": outcome.message}
    return {"candidate": number, "origin": results.candidates[number].origin, "scores": splits}
