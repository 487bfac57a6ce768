"""What a study used of its budget, from its log alone: the same after any crash, each evaluation counted once."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import final

from mergesearch import pareto
from mergesearch.controller.plan import PLATEAU, Amount
from mergesearch.results import Results
from mergesearch.store.values import CACHE
from mergesearch.study.spec import Budget, Plateau
from mergesearch.types import Asked, Objective, Outcome, Request, Scored, Split, Told


@final
class Ledger:
    """The accounts of one study's search. `take` every log entry in order, after `results` took it.

    Evaluations are counted in `results`. Examples: of every candidate that the search asked, whether or not it was
    told, those from the cache aside. GPU-seconds: of all that was told, of any kind, with what the search has under way
    at the rate of what it was told so far.
    """

    def __init__(self, budget: Budget, results: Results, examples: Callable[[Request], int] | None = None) -> None:
        """`examples` counts those that a request has scored over all objectives; needed where they are limited."""
        self._budget, self._results = budget, results
        self._count = examples if budget.examples is not None else None
        self._examples = 0
        self._gpu = self._open_cost = 0.0
        self._rate_seconds = self._rate_cost = 0.0
        self._reached_target = False
        self._plateau = None if budget.plateau is None else _Growth(budget.plateau)

    def take(self, event: Asked | Told) -> None:
        """A log entry; the same live and in a replay."""
        candidate, of_search = event.candidate, event.split is Split.SEARCH
        searched = of_search and candidate.point is not None
        if isinstance(event, Asked):
            self._open_cost += candidate.cost if of_search else 0.0
            if searched and self._count is not None:
                self._examples += self._count(candidate.request)
            return
        worked = event.outcome.worker != CACHE
        self._gpu += event.outcome.timing.gpu
        if of_search:
            self._open_cost = max(0.0, self._open_cost - candidate.cost)
            if worked:
                self._rate_seconds += event.outcome.timing.gpu
                self._rate_cost += candidate.cost
        if searched and self._count is not None and not worked:
            self._examples -= self._count(candidate.request)
        if searched and candidate.request.complete:
            reached = reaches(self._budget.target, self._results.objectives, event.outcome)
            self._reached_target = self._reached_target or reached
        if self._plateau is not None and of_search:
            self._plateau.take(self._results)

    def amounts(self, request: Request | None, cost: float) -> tuple[Amount, ...]:
        """What is limited beside evaluations, for a proposal of that cost; None: there is no proposal."""
        found, budget = [], self._budget
        if budget.examples is not None and self._count is not None:
            asked = 0 if request is None else self._count(request)
            found.append(Amount("examples", self._examples, budget.examples, asked, self._count(Request())))
        if budget.gpu_seconds is not None:
            rate = self._rate_seconds / self._rate_cost if self._rate_cost else 0.0
            used = self._gpu + rate * self._open_cost
            found.append(Amount("gpu_seconds", used, budget.gpu_seconds, 0.0 if request is None else rate * cost, rate))
        return tuple(found)

    def reached(self, seconds: float) -> str:
        """Which of 'target', 'hours' and 'plateau' says that it is enough after so many seconds; '' if none does."""
        if self._reached_target:
            return "target"
        if self._budget.hours is not None and seconds > self._budget.hours * 3600:
            return "hours"
        return PLATEAU if self._plateau is not None and self._plateau.flat else ""


def reaches(target: Mapping[str, float], objectives: tuple[Objective, ...], outcome: Outcome) -> bool:
    """Whether an outcome is at least as good as every value of a target; never if there is none."""
    if not target or not isinstance(outcome, Scored):
        return False
    return all(o.loss(outcome.scores[o.name].value) <= o.loss(target[o.name]) for o in objectives if o.name in target)


@final
class _Growth:
    """How the search's gain grew: its value at each cost where it changed, back to where the window begins."""

    def __init__(self, plateau: Plateau) -> None:
        self._plateau = plateau
        self._values: deque[tuple[float, float]] = deque()
        self._cost = 0.0
        self._seen: object = None

    def take(self, results: Results) -> None:
        """After each outcome of the search split. Nothing counts until all baselines asked so far are told."""
        if not results.search_told or results.baselines_open:
            return
        self._cost = results.cost_told
        state = (results.best, results.front_version)
        if state != self._seen:
            self._seen = state
            value = _value(results)
            if value is not None:
                self._values.append((self._cost, value))
        begin = self._cost - self._plateau.evaluations + 1e-9
        while len(self._values) > 1 and self._values[1][0] <= begin:
            self._values.popleft()

    @property
    def flat(self) -> bool:
        """Whether the gain over the last evaluations was less than asked for."""
        if not self._values or self._values[0][0] > self._cost - self._plateau.evaluations + 1e-9:
            return False
        return self._values[-1][1] - self._values[0][1] < self._plateau.gain


def _value(results: Results) -> float | None:
    """What grows: the normalised hypervolume, else minus the best weighted loss; None before the first score."""
    if results.best is None:
        return None
    if 2 <= len(results.objectives) <= pareto.EXACT_UP_TO and (volume := results.hypervolume()) is not None:
        return volume
    best = results.weighted(results.best)
    return None if best is None else -best
