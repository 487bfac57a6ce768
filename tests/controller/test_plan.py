"""The plan: facts in, one action out."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergesearch.controller.plan import Action, Amount, Facts, ended, plan, search_is_over

IDLE = Facts(
    free=2, running=0, unsubmitted=0, baselines_left=0, searching=0, spent=0.0, budget=10.0, confirms_left=0,
    tests_left=0, failed_in_a_row=0, failures=5,
)  # fmt: skip
READY = replace(IDLE, proposed=1.0)


@pytest.mark.parametrize(
    ("facts", "action"),
    [
        (IDLE, Action.PROPOSE),
        (READY, Action.SEARCH),
        (replace(READY, baselines_left=1), Action.BASELINE),
        (replace(READY, unsubmitted=1, baselines_left=1), Action.SUBMIT),
        (replace(READY, free=0, running=2, searching=2, spent=2.0), Action.WAIT),
        (replace(IDLE, spent=9.0, recommends=True), Action.RECOMMENDED),
        (replace(READY, spent=9.0, recommends=True), Action.RECOMMENDED),
        (replace(IDLE, spent=9.0, searching=1, running=1, recommends=True), Action.WAIT),
        (replace(READY, spent=8.0, recommends=True), Action.SEARCH),
        (replace(READY, spent=8.0, proposed=3.0, recommends=True), Action.RECOMMENDED),
        (replace(READY, spent=8.0, proposed=3.0, searching=1, running=1, recommends=True), Action.WAIT),
        (replace(READY, spent=8.5, proposed=0.25, recommends=True), Action.SEARCH),
        (replace(READY, spent=9.5, proposed=0.25, recommends=True), Action.SEARCH),
        (replace(READY, spent=9.5, proposed=0.75, recommends=True), Action.FINISH),
        (replace(READY, spent=9.5, proposed=0.75, searching=1, running=1), Action.WAIT),
        (replace(READY, spent=9.0, closed=True), Action.FINISH),
        (replace(READY, spent=9.0), Action.SEARCH),
        (replace(IDLE, spent=10.0, searching=1, running=1), Action.WAIT),
        (replace(IDLE, spent=10.0, confirms_left=3), Action.CONFIRM),
        (replace(IDLE, spent=10.0, running=1, tests_left=2), Action.WAIT),
        (replace(IDLE, spent=10.0, tests_left=2), Action.TEST),
        (replace(IDLE, spent=10.0), Action.FINISH),
        (replace(IDLE, spent=3.0, reached="hours"), Action.FINISH),
        (replace(IDLE, spent=3.0, searching=1, running=1, reached="hours"), Action.WAIT),
        (replace(IDLE, spent=3.0, searching=1, running=1, dry=True), Action.WAIT),
        (replace(IDLE, spent=3.0, dry=True), Action.FINISH),
        (replace(IDLE, spent=3.0, dry=True, recommends=True), Action.RECOMMENDED),
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
    st.lists(st.one_of(st.just(1.0), st.sampled_from([0.1, 1 / 3, 0.5, 3.0, 1.5]), st.none()), max_size=40),
    st.sampled_from([1.0, 2.0, 5.0, 7.5, 10.0]),
    st.integers(1, 3),
    st.integers(0, 20),
    st.randoms(use_true_random=False),
)
def test_the_budget_is_kept(costs, budget, workers, recommends_from, chance) -> None:  # type: ignore[no-untyped-def]
    """Whatever is proposed and in whatever order it ends: the cost never exceeds the budget, one whole evaluation is
    left for the recommended point wherever there is one, and that is measured when all else is told."""
    asked: list[float] = []
    proposed: float | None = None
    plain = all(cost == 1.0 for cost in costs)  # and never dry
    dry = recommended = False
    running = 0
    while True:
        spent = sum(asked)
        has = len(asked) >= recommends_from and not recommended
        facts = replace(
            IDLE, free=workers - running, running=running, searching=running, spent=spent, budget=budget,
            proposed=proposed, dry=dry, recommends=has, closed=recommended,
        )  # fmt: skip
        action = plan(facts)
        if action is Action.FINISH:
            break
        if action is Action.PROPOSE:
            proposed = costs[len(asked)] if len(asked) < len(costs) else 1.0
            dry = proposed is None
            continue
        if action is Action.WAIT:
            assert running
            running -= 1
            costs = costs if chance.random() < 0.5 else [c or 1.0 for c in costs]
        elif action is Action.RECOMMENDED:
            assert running == 0
            assert has
            recommended, running = True, 1
            asked.append(1.0)
        else:
            assert action is Action.SEARCH
            assert proposed is not None
            asked.append(proposed)
            running += 1
            assert not has or sum(asked) + 1.0 <= budget + 1e-9 or spent + 1.0 > budget + 1e-9
        proposed, dry = None, False
    assert search_is_over(facts)
    assert sum(asked) <= budget + 1e-9
    if plain:
        assert sum(asked) == int(budget)
    if recommends_from == 0 and budget >= 1.0:
        assert recommended


@given(
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 3),
    st.floats(0, 12),
    st.floats(1, 10),
    st.one_of(st.none(), st.floats(0.01, 3)),
    st.booleans(),
    st.booleans(),
)
def test_no_single_decision_exceeds_the_budget(  # type: ignore[no-untyped-def]
    free, running, baselines, spent, budget, proposed, recommends, dry
) -> None:
    """Nothing is asked of the search that does not fit, and nothing is submitted without a free worker."""
    facts = replace(
        IDLE, free=free, running=running, baselines_left=baselines, spent=spent, searching=running,
        budget=budget, recommends=recommends, proposed=proposed, dry=dry and proposed is None,
    )  # fmt: skip
    action = plan(facts)
    cost = {Action.SEARCH: proposed or 0.0, Action.RECOMMENDED: 1.0}.get(action, 0.0)
    assert cost == 0.0 or spent + cost <= budget + 1e-9
    if free == 0:
        assert action in (Action.WAIT, Action.FINISH)


amount = st.builds(
    Amount,
    st.sampled_from(["examples", "gpu_seconds"]),
    st.floats(0, 30),
    st.floats(1, 30),
    st.floats(0, 9),
    st.floats(0, 9),
)


@given(
    st.lists(amount, max_size=2),
    st.floats(0, 10),
    st.sampled_from([None, 1.0, 0.25]),
    st.sampled_from(["", "hours", "target", "plateau"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2),
)
def test_no_decision_exceeds_any_limit(  # type: ignore[no-untyped-def]
    amounts, spent, proposed, reached, recommends, closed, searching
) -> None:
    """What is asked fits every limit, with room for the recommendation; nothing is asked after the end; an end has a
    reason, and without what is under way it is final: the same facts end again."""
    facts = replace(
        IDLE, amounts=tuple(amounts), spent=spent, proposed=proposed, dry=proposed is None, reached=reached,
        recommends=recommends, closed=closed, searching=searching, running=searching,
    )  # fmt: skip
    action = plan(facts)
    if action is Action.SEARCH:
        assert not reached
        assert not closed
        assert spent + (proposed or 0.0) + facts.kept <= 10.0 + 1e-9
        assert all(a.used + a.proposed + facts.kept * a.whole <= a.most * (1 + 1e-9) for a in amounts)
    if action is Action.RECOMMENDED:
        assert recommends
        assert not closed
        assert reached in ("", "plateau")
        assert not searching
        assert all(a.used + a.whole <= a.most * (1 + 1e-9) for a in amounts)
    if action is Action.FINISH:
        assert search_is_over(facts)
        assert ended(facts) in ("evaluations", "examples", "gpu_seconds", "hours", "target", "plateau", "strategy")
    assert action in (Action.SEARCH, Action.RECOMMENDED, Action.FINISH, Action.WAIT)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (replace(IDLE, spent=10.0), "evaluations"),
        (replace(READY, spent=9.5), "evaluations"),
        (replace(READY, spent=9.0, recommends=True), "evaluations"),
        (replace(READY, amounts=(Amount("examples", 90, 100, 20, 20),)), "examples"),
        (replace(READY, amounts=(Amount("examples", 70, 100, 20, 20),), recommends=True), "examples"),
        (replace(IDLE, amounts=(Amount("gpu_seconds", 100.5, 100),)), "gpu_seconds"),
        (replace(IDLE, dry=True), "strategy"),
        (replace(READY, reached="plateau"), "plateau"),
    ],
)
def test_an_end_has_its_reason(facts: Facts, reason: str) -> None:
    """The limit that lacks room for what is proposed, or what was reached."""
    assert ended(facts) == reason
