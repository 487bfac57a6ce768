"""Lines of a study's log, as people read them."""

from typing import Any, Final

from mergesearch.report.estimate import Estimate, unit_of
from mergesearch.results import BASELINE, Results
from mergesearch.types import Failed, Objective, Outcome, Scored
from mergesearch.web.folding import Entry

LONGEST: Final = 300  # characters of a message; the failures page has all of it
OBJECTIVES_SHOWN: Final = 6


def log_line(results: Results, entry: Entry) -> dict[str, Any]:
    """seq, number, split, kind ('asked', 'scored', 'failed') and a sentence."""
    kind, text = "asked", _asked(results, entry.number)
    if entry.told:
        outcome = results.outcomes[entry.number, entry.split]
        kind = "failed" if isinstance(outcome, Failed) else "scored"
        text = _told(results, outcome)
    return {"seq": entry.seq, "number": entry.number, "split": entry.split.value, "kind": kind, "text": text}


def _asked(results: Results, number: int) -> str:
    origin = results.candidates.origin(number)
    if origin.startswith(BASELINE):
        return f"baseline {origin.removeprefix(BASELINE)}"
    return origin


def _told(results: Results, outcome: Outcome) -> str:
    if isinstance(outcome, Failed):
        return f"{outcome.kind}: {outcome.message}"[:LONGEST]
    shown = [_score(objective, outcome) for objective in results.objectives[:OBJECTIVES_SHOWN]]
    return ", ".join(shown) + (", …" if len(results.objectives) > OBJECTIVES_SHOWN else "")


def _score(objective: Objective, outcome: Scored) -> str:
    score, unit = outcome.scores[objective.name], unit_of(objective)
    return f"{objective.name} {unit.estimate(Estimate(score.value, score.stderr))}{unit.suffix}"
