"""Decides what a controller does next. Pure: facts in, one action out."""

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What the controller does next."""

    SUBMIT = "submit"  # something that was asked before and never told: after a crash, say
    BASELINE = "baseline"
    SEARCH = "search"
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
    search is over). searched, searching: candidates of the search asked, and of those not told. budget: how many may be
    asked. out_of_time: the hours are used up. recommends: the strategy has a recommendation that was not asked.
    dry: the strategy has just proposed nothing. failed_in_a_row, failures: failures since the last success, and how
    many stop the study. wish: what a person asked for, '' if nothing.
    """

    free: int
    running: int
    unsubmitted: int
    baselines_left: int
    searched: int
    searching: int
    budget: int
    confirms_left: int
    tests_left: int
    failed_in_a_row: int
    failures: int
    out_of_time: bool = False
    recommends: bool = False
    dry: bool = False
    wish: str = ""


def search_is_over(facts: Facts) -> bool:
    """No further candidate of the search will be asked, and all that were are told."""
    exhausted = facts.dry and facts.running == 0
    return (facts.searched >= facts.budget or facts.out_of_time or exhausted) and facts.searching == 0


def plan(facts: Facts) -> Action:
    """The next action. Budgets are checked before an ask, so they are exact to the evaluation."""
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
    if not search_is_over(facts):
        return _search(facts)
    if facts.confirms_left:
        return Action.CONFIRM
    if facts.running:  # what is tested depends on every confirmation
        return Action.WAIT
    return Action.TEST if facts.tests_left else Action.FINISH


def _search(facts: Facts) -> Action:
    left = facts.budget - facts.searched
    if left <= 0 or facts.out_of_time:
        return Action.WAIT
    if facts.recommends and left == 1:  # the last evaluation measures what the strategy believes best
        return Action.WAIT if facts.searching else Action.RECOMMENDED
    return Action.WAIT if facts.dry else Action.SEARCH
