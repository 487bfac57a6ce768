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


PLATEAU = "plateau"


@dataclass(frozen=True)
class Amount:
    """Something besides evaluations of which the search may use `most`: `used` by all it asked so far.

    The proposal, if there is one, takes `proposed` of it, an evaluation of all examples without a gradient `whole`.
    """

    name: str
    used: float
    most: float
    proposed: float = 0.0
    whole: float = 0.0

    def fits(self, taken: float) -> bool:
        """Whether that much is left of it."""
        return self.used + taken <= self.most * (1 + SLACK)


@dataclass(frozen=True)
class Facts:
    """All that a decision depends on.

    free: jobs the pool can take now. running: jobs it works on. unsubmitted: asked, not told, not running.
    baselines_left, confirms_left, tests_left: evaluations of that kind not asked yet (the last two are 0 until the
    search is over). searching: candidates of the search asked and not told. spent, budget: cost of those asked, and of
    all that may be asked, in evaluations of all examples; amounts: what else is limited. proposed: cost of what the
    strategy proposes next, None while it was not asked since the last event. dry: it was, and proposed nothing.
    recommends: it has a recommendation that was not asked. closed: one was asked since the budget was last raised.
    reached: the first of 'target', 'hours' and 'plateau' that says that it is enough, '' if none does.
    failed_in_a_row, failures: failures since the last success, and how many stop the study. wish: what a person asked
    for, '' if nothing.
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
    closed: bool = False
    amounts: tuple[Amount, ...] = ()
    reached: str = ""
    wish: str = ""
    lasting: bool = False

    def fits(self, cost: float) -> bool:
        """Whether that much is left of the budget."""
        return self.spent + cost <= self.budget + SLACK

    @property
    def kept(self) -> bool:
        """Whether one whole evaluation is kept back for the recommendation."""
        return self.recommends and self.fits(1.0) and all(a.fits(a.whole) for a in self.amounts)

    @property
    def lacks(self) -> str:
        """What there is too little of for the proposal, and for the recommendation beside it; '' if nothing.

        Without a proposal: what is used up, or would not do for anything beside the recommendation.
        """
        kept = self.kept
        least = 2 * SLACK if self.proposed is None else self.proposed
        if self.spent >= self.budget - SLACK or not self.fits(least + kept):
            return "evaluations"
        lacking = (a.name for a in self.amounts if not a.fits(a.proposed + kept * a.whole) or a.used >= a.most)
        return next(lacking, "")


def search_is_over(facts: Facts) -> bool:
    """No further candidate of the search will be asked, and all that were are told."""
    return facts.searching == 0 and _search(facts) is Action.FINISH


def ended(facts: Facts) -> str:
    """Why the search asks nothing more of its own: a limit's name, or 'strategy' where that proposes nothing more."""
    return facts.reached or facts.lacks or "strategy"


def plan(facts: Facts) -> Action:
    """The next action. Costs are checked before an ask, so the budget is never exceeded."""
    if facts.wish == "cancel":
        return Action.CANCEL
    if facts.failed_in_a_row >= facts.failures:
        return Action.FAIL
    if facts.wish == "pause":
        return Action.WAIT if facts.running and not facts.lasting else Action.PAUSE
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
    take it, and made when all else is told. A target or the hours end the search without it.
    """
    if facts.closed or (facts.reached and facts.reached != PLATEAU):
        return Action.FINISH
    if not facts.reached:
        if facts.proposed is None and not facts.dry and not facts.lacks:
            return Action.PROPOSE
        if facts.proposed is not None and not facts.lacks:
            return Action.SEARCH
    if facts.searching:  # what is told may change the strategy's mind
        return Action.WAIT
    return Action.RECOMMENDED if facts.kept else Action.FINISH
