"""The strategy as the controller deals with it: proposals with their costs, what it is told, what it says."""

from collections.abc import Callable
from typing import final

from mergesearch.controller.outcome import Examples, observation, recorded
from mergesearch.pool.base import JobResult
from mergesearch.results import RECOMMENDED, Results
from mergesearch.strategies.base import Need, Proposal, Strategy
from mergesearch.types import Asked, Candidate, Outcome, Request, Split, Told


@final
class Searcher:
    """Keeps what the strategy proposes until something is asked or told, after which it may propose otherwise.

    `results` is the study's folded log, kept up to date by the controller. `examples` gives a candidate's per-example
    scores on the search split. `needs` adds to what the strategy itself says that it needs.
    """

    def __init__(
        self,
        strategy: Strategy,
        results: Results,
        gradient_cost: float,
        needs: frozenset[Need],
        examples: Callable[[int], Examples],
    ) -> None:
        self._strategy, self._results, self._gradient_cost = strategy, results, gradient_cost
        self._wants_examples = Need.EXAMPLES in needs | strategy.NEEDS
        self._examples = examples
        self._proposal: Proposal | None = None
        self._recommends: bool | None = None
        self._last = -1
        self.dry = False

    def take(self, event: Asked | Told) -> None:
        """A log entry of the search split, of a baseline its result alone; the same live and in a replay."""
        self._proposal, self._recommends, self.dry = None, None, False
        if isinstance(event, Asked):
            self._last = event.candidate.number
            self._strategy.asked(event.candidate)
            return
        examples = self._examples if self._wants_examples else None
        self._strategy.tell(event.candidate, observation(self._results.objectives, event, examples))

    def propose(self) -> None:
        """Ask the strategy what it wants next."""
        self._proposal = self._strategy.ask(self._results.search_asked)
        self.dry = self._proposal is None

    @property
    def request(self) -> Request | None:
        """How the proposal is to be evaluated; None where there is none."""
        return None if self._proposal is None else self._proposal.request

    @property
    def proposed(self) -> float | None:
        """What the proposal costs; None where there is none."""
        return None if self._proposal is None else self._proposal.request.cost(self._gradient_cost)

    def candidate(self) -> Candidate:
        """The proposal, with the next free number."""
        made = self._proposal
        assert made is not None
        cost = made.request.cost(self._gradient_cost)
        return Candidate(len(self._results.candidates), made.point, made.origin, made.request, cost)

    def recommends(self) -> bool:
        """Whether there is something to recommend beside what was recommended last; asking may be dear."""
        if self._last >= 0 and self._last == self._results.by_origin(RECOMMENDED):
            return False
        if self._recommends is None:
            self._recommends = self._strategy.recommend() is not None
        return self._recommends

    def recommended(self) -> Candidate:
        """What the strategy believes best, with the next free number: a whole evaluation, no gradient."""
        return Candidate(len(self._results.candidates), self._strategy.recommend(), RECOMMENDED)

    def recorded(self, done: JobResult) -> Outcome:
        """What is kept of a job's outcome."""
        if done.job.split is not Split.SEARCH:
            return done.outcome
        candidate = self._results.candidates[done.job.number]
        return recorded(self._results.objectives, candidate, done.outcome, self._results, self._examples)
