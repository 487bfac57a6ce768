"""Evaluations as the figures that a sink writes.

search/<objective>, search/loss            scores and weighted loss of a candidate of the search
confirm/..., test/...                      the same on held-out splits
baseline/<name>/<objective>                scores of base, experts, uniform average and single λ, search split
best/<objective>, best/loss                of the best candidate so far
front/size, front/hypervolume              of the search split; the hypervolume is normalised, base 0 to expert 1
evaluations/search, /cost, /failed         counts so far; the cost is in evaluations of all examples
coefficient/<knob>/<expert>                mean over layer groups of what the candidate was built with
seconds/queue, /build, /score              where the evaluation's time went
"""

import math
import time
from collections.abc import Mapping
from typing import Final, final

from mergesearch import pareto
from mergesearch.observe.passwords import hide_passwords
from mergesearch.observe.sinks.base import Point
from mergesearch.results import BASELINE, Results
from mergesearch.space import SearchSpace
from mergesearch.types import Candidate, Failed, Outcome, Scored, Split, Told, losses, weighted_loss

SHARE: Final = 0.02  # of the controller's time at most goes to the hypervolume
QUICK: Final = 0.01  # seconds; what takes less is done at each evaluation
PARTS: Final = ("queue", "build", "score")
MOST_AXES: Final = 32  # of a black box, whose values are written one by one


@final
class Points:
    """Makes the points of one study. `results` is live: the controller's, read in its thread."""

    def __init__(self, results: Results, space: SearchSpace | None) -> None:
        self.results, self.space = results, space
        self._due = -math.inf
        self._front = -1

    def earlier(self) -> list[Point]:
        """Those of what was told before, without coefficients; the front's figures stand at the last one."""
        found, now, best, counts = [], time.time(), None, {"search": 0.0, "cost": 0.0, "failed": 0.0}
        for step, ((number, split), outcome) in enumerate(self.results.outcomes.items(), start=1):
            candidate = self.results.candidates[number]
            values, failure = self._evaluation(candidate, split, outcome)
            searched = split is Split.SEARCH and not candidate.origin.startswith(BASELINE)
            counts["failed"] += bool(failure)
            if searched:
                counts["search"] += 1
                counts["cost"] += candidate.cost
            loss = values.get("search/loss", math.inf)
            if searched and candidate.request.complete and (best is None or loss < best["search/loss"]):
                best = values if math.isfinite(loss) else best
            values = {**values, **_best(best), **{f"evaluations/{k}": v for k, v in counts.items()}}
            found.append(Point(step, now, values, failure))
        if found:
            last = found[-1]
            found[-1] = Point(last.step, now, {**last.values, **self._volume()}, last.failure)
        return found

    def of(self, told: Told) -> Point:
        """That of an evaluation which was told just now: the last of the results."""
        results = self.results
        values, failure = self._evaluation(told.candidate, told.split, told.outcome)
        values |= self._coefficients(told.candidate)
        for part in PARTS:
            values[f"seconds/{part}"] = getattr(told.outcome.timing, part)
        if results.best is not None and (outcome := results.outcome(results.best)) is not None:
            values |= {f"best/{name}": score.value for name, score in outcome.scores.items()}
            values["best/loss"] = results.weighted(results.best) or 0.0
        values |= {
            "evaluations/search": results.search_told,
            "evaluations/cost": results.cost_told,
            "evaluations/failed": results.failed,
            "front/size": len(results.front),
        }
        values |= self._volume()
        return Point(len(results.outcomes), time.time(), _finite(values), failure)

    def summary(self) -> dict[str, str | float]:
        """What the study came to: the best candidate with its scores and coefficients, the front, the failures."""
        results = self.results
        found: dict[str, str | float] = {"failures": results.failed, "front_size": len(results.front)}
        if (volume := self._hypervolume()) is not None:
            found["hypervolume"] = volume
        if (failure := results.last_failure) is not None:
            found["last_failure"] = hide_passwords(f"{failure.kind}: {failure.message}")
        if results.best is not None and (outcome := results.outcome(results.best)) is not None:
            found["best"] = results.best
            found |= {f"best/{name}": score.value for name, score in outcome.scores.items()}
            found |= {f"best/{k}": v for k, v in self._coefficients(results.candidates[results.best]).items()}
        return found

    def _evaluation(self, candidate: Candidate, split: Split, outcome: Outcome) -> tuple[dict[str, float], str]:
        """Scores of one evaluation, or why it failed."""
        if isinstance(outcome, Failed):
            sentence = f"#{candidate.number} on {split.value}: {outcome.kind}: {outcome.message}"
            return {}, hide_passwords(sentence)
        assert isinstance(outcome, Scored)
        if candidate.origin.startswith(BASELINE) and split is Split.SEARCH:
            name = candidate.origin.removeprefix(BASELINE).replace(":", "-")
            return _finite({f"baseline/{name}/{k}": s.value for k, s in outcome.scores.items()}), ""
        values = {f"{split.value}/{name}": score.value for name, score in outcome.scores.items()}
        found = losses(self.results.objectives, outcome)
        assert found is not None
        values[f"{split.value}/loss"] = weighted_loss(self.results.objectives, found)
        return _finite(values), ""

    def _coefficients(self, candidate: Candidate) -> dict[str, float]:
        if candidate.point is None or self.space is None:
            return {}
        if self.space.slots:
            return {
                f"coefficient/{knob}/{expert}": float(value)
                for knob, table in self.space.decode(candidate.point).items()
                for expert, value in zip(self.space.experts, table.mean(axis=0), strict=True)
            }
        axes = self.space.axes if len(self.space.axes) <= MOST_AXES else ()
        return {
            f"coefficient/{a.name}": float(v) for a, v in zip(axes, self.space.values(candidate.point), strict=False)
        }

    def _volume(self) -> dict[str, float]:
        """The hypervolume where the front changed, as often as its price allows."""
        version = self.results.front_version
        if version == self._front or time.monotonic() < self._due:
            return {}
        began = time.thread_time()
        volume = self._hypervolume()
        taken = time.thread_time() - began
        self._due = time.monotonic() + (taken / SHARE if taken > QUICK else 0.0)
        if volume is None:
            return {}
        self._front = version
        return {"front/hypervolume": volume}

    def _hypervolume(self) -> float | None:
        return self.results.hypervolume() if len(self.results.objectives) <= pareto.EXACT_UP_TO else None


def _best(values: Mapping[str, float] | None) -> dict[str, float]:
    return {f"best/{k.removeprefix('search/')}": v for k, v in (values or {}).items()}


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}
