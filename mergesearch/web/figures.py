"""A study in figures: what the list of studies, its page and its stream of events show of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mergesearch.report.estimate import mean_unit
from mergesearch.report.holding import holder
from mergesearch.report.live import best_text
from mergesearch.report.table import mean
from mergesearch.report.view import StudyView, knee
from mergesearch.report.volume import Volume, volume
from mergesearch.store.base import StudyRecord
from mergesearch.types import Direction, Status


@dataclass(frozen=True)
class Best:
    """The candidate with the best weighted mean on the search split; `mean` higher is better unless all are minimised.
    `text` is '#57 (mean 73.8±1.2 %)'."""

    number: int
    mean: float
    mean_stderr: float
    scores: dict[str, float]
    text: str


@dataclass(frozen=True)
class Figures:
    """What a study's log comes to; made once for each version of it. `percent`: means are shown in percent. Costs are
    in evaluations of all examples, `controls` is label -> study, `by` who launched it, '' where that was not kept."""

    version: int
    evaluations: int
    cost: float
    budget: float
    failures: int
    strategy: str
    objectives: tuple[tuple[str, Direction], ...]
    best: Best | None
    chosen: int | None
    knee: int | None
    front_size: int
    volume: Volume
    percent: bool
    ended: str
    controls: Mapping[str, str]
    by: str


def figures_of(view: StudyView, version: int, facts: Mapping[str, Any]) -> Figures:
    """The figures of a study."""
    results, named = view.results, facts.get("controls")
    return Figures(
        version=version,
        evaluations=results.search_told,
        cost=results.cost_told,
        budget=view.budget,
        failures=results.failed,
        strategy=view.strategy,
        objectives=tuple((o.name, o.direction) for o in results.objectives),
        best=_best(view),
        chosen=view.chosen,
        knee=knee(results),
        front_size=results.front_size,
        volume=volume(results),
        percent=mean_unit(results.objectives).percent,
        ended=view.ended,
        controls={str(k): str(v) for k, v in named.items()} if isinstance(named, Mapping) else {},
        by=str(facts.get("by", "")),
    )


def _best(view: StudyView) -> Best | None:
    results = view.results
    number = results.best
    outcome = None if number is None else results.outcome(number)
    if number is None or outcome is None:
        return None
    found = mean(results.objectives, outcome)
    scores = {name: finite(score.value) or 0.0 for name, score in outcome.scores.items()}
    return Best(number, found.value, found.stderr, scores, best_text(results))


def seconds_left(record: StudyRecord, figures: Figures, now: float) -> float | None:
    """Seconds to the end of the search at the pace so far; None where nobody runs it, and before the first result."""
    held = holder(record, now)
    if record.status is not Status.RUNNING or held is None or not held.alive:
        return None
    if figures.cost <= 0 or record.seconds <= 0:
        return None
    return record.seconds / figures.cost * max(figures.budget - figures.cost, 0.0)


def finite(value: float) -> float | None:
    """The number, or None for what JSON does not know."""
    return value if math.isfinite(value) else None
