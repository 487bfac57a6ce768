"""The plan: facts in, one action out."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergesearch.controller.plan import Action, Facts, plan

IDLE = Facts(
    free=2, running=0, unsubmitted=0, baselines_left=0, searched=0, searching=0, budget=10, confirms_left=0,
    tests_left=0, failed_in_a_row=0, failures=5,
)  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "action"),
    [
        (IDLE, Action.SEARCH),
        (replace(IDLE, baselines_left=1), Action.BASELINE),
        (replace(IDLE, unsubmitted=1, baselines_left=1), Action.SUBMIT),
        (replace(IDLE, free=0, running=2, searching=2, searched=2), Action.WAIT),
        (replace(IDLE, searched=9, recommends=True), Action.RECOMMENDED),
        (replace(IDLE, searched=9, searching=1, running=1, recommends=True), Action.WAIT),
        (replace(IDLE, searched=9), Action.SEARCH),
        (replace(IDLE, searched=10, searching=1, running=1), Action.WAIT),
        (replace(IDLE, searched=10, confirms_left=3), Action.CONFIRM),
        (replace(IDLE, searched=10, running=1, tests_left=2), Action.WAIT),
        (replace(IDLE, searched=10, tests_left=2), Action.TEST),
        (replace(IDLE, searched=10), Action.FINISH),
        (replace(IDLE, searched=3, out_of_time=True), Action.FINISH),
        (replace(IDLE, searched=3, searching=1, running=1, out_of_time=True), Action.WAIT),
        (replace(IDLE, searched=3, searching=1, running=1, dry=True), Action.WAIT),
        (replace(IDLE, searched=3, dry=True), Action.FINISH),
        (replace(IDLE, failed_in_a_row=5), Action.FAIL),
        (replace(IDLE, wish="pause", running=1), Action.WAIT),
        (replace(IDLE, wish="pause"), Action.PAUSE),
        (replace(IDLE, wish="cancel", running=1), Action.CANCEL),
    ],
)
def test_each_situation_has_its_action(facts: Facts, action: Action) -> None:
    """The table above is the controller's behaviour."""
    assert plan(facts) is action


@given(
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 12),
    st.integers(1, 10),
    st.booleans(),
    st.booleans(),
)
def test_the_budget_is_never_exceeded(
    free: int, running: int, baselines: int, searched: int, budget: int, recommends: bool, dry: bool
) -> None:
    """Nothing is asked of the search once the budget is used up, and nothing is submitted without a free worker."""
    facts = replace(
        IDLE, free=free, running=running, baselines_left=baselines, searched=searched, searching=min(running, searched),
        budget=budget, recommends=recommends, dry=dry,
    )  # fmt: skip
    action = plan(facts)
    if searched >= budget:
        assert action not in (Action.SEARCH, Action.RECOMMENDED)
    if free == 0:
        assert action in (Action.WAIT, Action.FINISH)
