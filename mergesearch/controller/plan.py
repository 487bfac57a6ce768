"""Decides what a controller does next. Pure: facts in, one action out."""

from dataclasses import dataclass
from enum import StrEnum

SLACK = 1e-9
"""Costs are sums of shares such as 1/3: what exceeds the budget by less than this fits."""


class Action(StrEnum):
    """What the controller does next."""

    SUBMIT = "submit"  # something that was asked before and never told: after a crash, say
    BASELINE = "baseline"
    PROPOSE = "propose"  # let the strategy say what it wants next, and what that costs
    SEARCH = "search"  # record the proposal and evaluate it
    RECOMMENDED = "recommended"
    CONFIRM = "confirm"
    TEST = "test"
    WAIT = "wait"
    PAUSE = "pause"
    CANCEL = "cancel"
    FAIL = "fail"
    FINISH = "finish"


@dataclass(frozen=True)
class Facts:
    """All that a decision depends on.

    free: jobs the pool can take now. running: jobs it works on. unsubmitted: asked, not told, not running.
    baselines_left, confirms_left, tests_left: evaluations of that kind not asked yet (the last two are 0 until the
    search is over). searching: candidates of the search asked and not told. spent, budget: cost of those asked, and of
    all that may be asked, in evaluations of all examples. proposed: cost of what the strategy proposes next, None while
    it was not asked since the last event. dry: it was, and proposed nothing. recommends: it has a recommendation, and
    none was asked. recommended: one was asked. out_of_time: the hours are used up. failed_in_a_row, failures: failures
    since the last success, and how many stop the study. wish: what a person asked for, '' if nothing.
    """

    free: int
    running: int
    unsubmitted: int
    baselines_left: int
    searching: int
    spent: float
    budget: float
    confirms_left: int
    tests_left: int
    failed_in_a_row: int
    failures: int
    proposed: float | None = None
    dry: bool = False
    recommends: bool = False
    recommended: bool = False
    out_of_time: bool = False
    wish: str = ""

    def fits(self, cost: float) -> bool:
        """Whether that much is left of the budget."""
        return self.spent + cost <= self.budget + SLACK


def search_is_over(facts: Facts) -> bool:
    """No further candidate of the search will be asked, and all that were are told."""
    return facts.searching == 0 and _search(facts) is Action.FINISH


def plan(facts: Facts) -> Action:
    """The next action. Costs are checked before an ask, so the budget is never exceeded."""
    if facts.wish == "cancel":
        return Action.CANCEL
    if facts.failed_in_a_row >= facts.failures:
        return Action.FAIL
    if facts.wish == "pause":
        return Action.WAIT if facts.running else Action.PAUSE
    if facts.free <= 0:
        return Action.WAIT
    if facts.unsubmitted:
        return Action.SUBMIT
    if facts.baselines_left:
        return Action.BASELINE
    search = _search(facts)
    if search is not Action.FINISH:
        return search
    if facts.searching:
        return Action.WAIT
    if facts.confirms_left:
        return Action.CONFIRM
    if facts.running:  # what is tested depends on every confirmation
        return Action.WAIT
    return Action.TEST if facts.tests_left else Action.FINISH


def _search(facts: Facts) -> Action:
    """The search's next action; FINISH: it asks nothing any more.

    The last evaluation measures what the strategy believes best. It is kept back from the first proposal on that would
    take it, and made when all else is told.
    """
    used_up = facts.spent >= facts.budget - SLACK
    if facts.out_of_time or facts.recommended or used_up:
        return Action.FINISH
    recommends = facts.recommends and facts.fits(1.0)
    kept = 1.0 if recommends else 0.0
    last = recommends and not facts.fits(1.0 + 2 * SLACK)  # nothing fits beside the recommended one
    if not last and facts.proposed is None and not facts.dry:
        return Action.PROPOSE
    if not last and facts.proposed is not None and facts.fits(facts.proposed + kept):
        return Action.SEARCH
    if facts.searching:  # what is told may change the strategy's mind
        return Action.WAIT
    return Action.RECOMMENDED if recommends else Action.FINISH
