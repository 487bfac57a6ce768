"""What a study's log says so far: counts, the best candidate, the front, the normalisation and the hypervolume."""

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergesearch import pareto
from mergesearch.folded import Candidates, Columns, Keys, Listed, Outcomes
from mergesearch.growing import GrowingFront
from mergesearch.types import (
    Asked,
    Candidate,
    Event,
    Failed,
    Objective,
    Scored,
    Split,
    Vector,
    losses,
    told_losses,
    weighted_loss,
)

BASELINE = "baseline:"
BASE = "baseline:base"
EXPERT = "baseline:expert:"
UNIFORM = "baseline:uniform"
LAMBDA = "baseline:lambda:"
RECOMMENDED = "recommended"

SMALLEST_HEADROOM = 1e-6
MARGIN = 0.1


@dataclass(frozen=True, eq=False)
class Normalisation:
    """Units in which the base is 0 and the best expert 1 of each objective, fixed once for a study.

    `zero` and `one` are losses (M,). The hypervolume's reference point is -0.1 in these units, so what is clearly
    worse than the base counts for nothing.
    """

    zero: Vector
    one: Vector

    def scaled(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Losses (n, M) in normalised units, still minimised: base 0, best expert -1."""
        return -(self.zero - values) / (self.zero - self.one)

    def hypervolume(self, values: NDArray[np.float64]) -> float:
        """Hypervolume of losses (n, M) in normalised units."""
        if len(values) == 0:
            return 0.0
        return pareto.hypervolume(self.scaled(values), np.full(values.shape[1], MARGIN))


class Results:
    """A study's log, folded. `add` takes events in order; every other method only reads.

    Only candidates whose scores stand for all examples (`Request.complete`) are compared: they make `scored`, `front`
    and `best`. `cost_asked` and `cost_told` are what the search's candidates took from the budget, baselines aside.
    `asked` holds what was asked, in order. `baselines_open` counts those asked and not told.
    """

    def __init__(
        self,
        objectives: tuple[Objective, ...],
        events: Iterable[Event] = (),
        again: Callable[[], Iterable[Event]] | None = None,
    ) -> None:
        """`events` are added. With `again`, which gives the log from its beginning, points are not kept in memory: they
        are read from it when one that was told is looked up."""
        self.objectives = objectives
        self._candidates = Candidates(again)
        self._outcomes = Outcomes()
        self.asked = Keys()
        self.last_seq = 0
        self.search_asked = 0
        self.search_told = 0
        self.cost_asked = 0.0
        self.cost_told = 0.0
        self.failed = 0
        self.failed_in_a_row = 0
        self.last_failure: Failed | None = None
        self.baselines_open = 0
        self._open: dict[tuple[int, Split], None] = {}
        self._origins: dict[str, int] = {}
        self._baselines: dict[str, int] = {}
        self._numbers: array[int] = array("q")
        self._costs: array[float] = array("d")
        self._front = GrowingFront(len(objectives))
        self._entered: list[NDArray[np.int64]] = []
        self._entered_losses: list[NDArray[np.float64]] = []
        self._new: list[Vector] = []  # losses of the last of `_numbers`, which the front and the best do not know yet
        self._best: tuple[float, int] | None = None
        self._columns: dict[Split, Columns] = {}
        self._columns_seq = 0
        for event in events:
            self.add(event)

    def add(self, event: Event) -> None:
        """Take the next log entry."""
        self.last_seq = event.seq
        key = (event.candidate.number, event.split)
        searched = event.split is Split.SEARCH and event.candidate.point is not None
        baseline = event.split is Split.SEARCH and event.candidate.point is None
        if isinstance(event, Asked):
            self._ask(event)
            self.baselines_open += baseline
            if searched:
                self.search_asked += 1
                self.cost_asked += event.candidate.cost
            return
        self._outcomes.add(*key, event.outcome)
        self._open.pop(key, None)
        self.baselines_open -= baseline
        if searched:
            self._candidates.told(event.candidate.number)
            self.search_told += 1
            self.cost_told += event.candidate.cost
        if isinstance(event.outcome, Failed):
            self.failed += 1
            self.failed_in_a_row += 1
            self.last_failure = event.outcome
            return
        self.failed_in_a_row = 0
        if searched and event.candidate.request.complete:
            self._take(event.candidate.number, event.outcome)

    def _ask(self, event: Asked) -> None:
        candidate, key = event.candidate, (event.candidate.number, event.split)
        self._candidates.add(candidate)
        self._open[key] = None
        if key not in self.asked:
            self.asked.add(*key)
        if candidate.origin == RECOMMENDED and event.split is Split.SEARCH:
            self._origins[RECOMMENDED] = candidate.number
        self._origins.setdefault(candidate.origin, candidate.number)
        if candidate.origin.startswith(BASELINE):
            self._baselines.setdefault(candidate.origin, candidate.number)

    def _take(self, number: int, outcome: Scored) -> None:
        values = losses(self.objectives, outcome)
        assert values is not None
        self._numbers.append(number)
        self._costs.append(self.cost_told)
        self._new.append(values)

    def _settle(self) -> None:
        """Let the front and the best know what is new: many at a time cost little more than one."""
        if not self._new:
            return
        table, first = np.array(self._new), len(self._numbers) - len(self._new)
        self._new.clear()
        entered = self._front.add(np.array(self._numbers[first:]), table)
        if len(entered):
            self._entered.append(first + entered)
            self._entered_losses.append(table[entered])
        weights = np.array([o.weight for o in self.objectives])
        about = table @ weights / weights.sum()
        # The few that may be best are weighed as everywhere else, to the last bit.
        least = about.min() if self._best is None else min(about.min(), self._best[0])
        for row in np.flatnonzero(about <= least + 1e-9 * max(1.0, abs(least))).tolist():
            loss = weighted_loss(self.objectives, table[row])
            if self._best is None or loss < self._best[0]:
                self._best = (loss, self._numbers[first + row])

    @property
    def candidates(self) -> Candidates:
        """Every candidate asked so far, by its number."""
        return self._candidates

    @property
    def outcomes(self) -> Outcomes:
        """Every outcome so far, by candidate and split, in the order they were told; without gradients."""
        return self._outcomes

    @property
    def pending(self) -> list[tuple[Candidate, Split]]:
        """Asked but not told, in the order they were asked."""
        return [(self.candidates[number], split) for number, split in self._open]

    @property
    def pending_count(self) -> int:
        """How many are asked but not told."""
        return len(self._open)

    @property
    def scored(self) -> list[int]:
        """Numbers of the search's candidates that were scored on all examples, in the order of their scores."""
        return list(self._numbers)

    @property
    def scored_count(self) -> int:
        """How many `scored` are."""
        return len(self._numbers)

    @property
    def costs(self) -> list[float]:
        """What the search had cost when each of `scored` was told: the axis of a curve, in full evaluations."""
        return list(self._costs)

    @property
    def front(self) -> list[int]:
        """Numbers of the non-dominated candidates on the search split; of equal scores the first counts."""
        self._settle()
        return sorted(self._front.numbers.tolist())

    @property
    def front_losses(self) -> NDArray[np.float64]:
        """Losses (n, M) of the front, in no particular order."""
        self._settle()
        return self._front.rows

    @property
    def front_size(self) -> int:
        """How many candidates are on the front."""
        return len(self.front_losses)

    @property
    def front_version(self) -> int:
        """How many candidates were on the front when they were scored: it changed as often."""
        self._settle()
        return self._front.version

    @property
    def entered(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Those that were on the front when they were scored: places among `scored` (k,), and losses (k, M)."""
        self._settle()
        if not self._entered:
            return np.zeros(0, dtype=np.int64), np.zeros((0, len(self.objectives)))
        self._entered = [np.concatenate(self._entered)]
        self._entered_losses = [np.concatenate(self._entered_losses)]
        return self._entered[0], self._entered_losses[0]

    def front_table(self) -> tuple[list[int], NDArray[np.float64]]:
        """`front`, and its losses (n, M) in that order."""
        self._settle()
        order = np.argsort(self._front.numbers)
        return self._front.numbers[order].tolist(), self._front.rows[order]

    @property
    def best(self) -> int | None:
        """The candidate with the least weighted loss on the search split."""
        self._settle()
        return None if self._best is None else self._best[1]

    def outcome(self, number: int, split: Split = Split.SEARCH) -> Scored | None:
        """The scores of a candidate on a split, None where it was not scored or failed."""
        found = self.outcomes.get((number, split))
        return found if isinstance(found, Scored) else None

    def columns(self, split: Split = Split.SEARCH) -> Columns:
        """Every scored evaluation of a split, baselines and partial ones too, as arrays; objectives in their order.
        Made once while nothing is added; not to be changed."""
        if self._columns_seq != self.last_seq:
            self._columns.clear()
            self._columns_seq = self.last_seq
        if split not in self._columns:
            self._columns[split] = self._outcomes.columns(split, [o.name for o in self.objectives])
        return self._columns[split]

    def listed(self) -> Listed:
        """Every candidate asked so far as columns."""
        return self._candidates.columns()

    def failed_on(self, split: Split) -> NDArray[np.int64]:
        """Numbers of the candidates that failed on a split, in the order they were told."""
        return self._outcomes.failed(split)

    def losses(self, number: int, split: Split = Split.SEARCH) -> Vector | None:
        """Losses (M,) of a candidate on a split, None where it was not scored."""
        outcome = self.outcome(number, split)
        return None if outcome is None else losses(self.objectives, outcome)

    def weighted(self, number: int, split: Split = Split.SEARCH) -> float | None:
        """Weighted loss of a candidate on a split."""
        values = self.losses(number, split)
        return None if values is None else weighted_loss(self.objectives, values)

    def guided(self, number: int, split: Split = Split.SEARCH) -> float | None:
        """Weighted loss of a candidate as the strategy was told it: what the search itself ranks by."""
        outcome = self.outcome(number, split)
        return None if outcome is None else weighted_loss(self.objectives, told_losses(self.objectives, outcome))

    def by_origin(self, origin: str) -> int | None:
        """The first candidate of that origin; of the recommended ones the last, which followed a raised budget."""
        return self._origins.get(origin)

    def baselines(self) -> dict[str, int]:
        """Origin -> number of every baseline asked so far."""
        return dict(self._baselines)

    def best_lambda(self) -> int | None:
        """The single-λ baseline that does best by what guides the search, on the search split."""
        scored = [(self.guided(n), n) for o, n in self.baselines().items() if o.startswith(LAMBDA)]
        tuned = [(loss, n) for loss, n in scored if loss is not None]
        return min(tuned)[1] if tuned else None

    def normalisation(self) -> Normalisation | None:
        """Base and best expert of each objective on the search split; None until they are scored.

        Where no expert beats the base, the worst expert is the zero instead, so that the unit never vanishes.
        """
        baselines = self.baselines()
        base = self.losses(baselines[BASE]) if BASE in baselines else None
        found = [self.losses(n) for origin, n in baselines.items() if origin.startswith(EXPERT)]
        experts = [values for values in found if values is not None]
        if base is None or not experts or len(experts) < len(found):
            return None
        one, worst = np.min(experts, axis=0), np.max(experts, axis=0)
        zero = np.where(base - one > SMALLEST_HEADROOM, base, worst)
        return Normalisation(np.where(zero - one > SMALLEST_HEADROOM, zero, one + 1.0), one)

    def hypervolume(self) -> float | None:
        """Normalised hypervolume of the front on the search split; None until it can be normalised."""
        normalisation = self.normalisation()
        return None if normalisation is None else normalisation.hypervolume(self.front_losses)
