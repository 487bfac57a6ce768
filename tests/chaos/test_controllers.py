"""Two controllers for one study, one of them asleep or with a wrong clock: one writes, and nothing is told twice."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from chaos.child import Script
from chaos.harness import (
    alive,
    assert_only_grew,
    assert_whole,
    calm,
    create,
    diary,
    picture,
    quietly_kill,
    scorings,
    status,
    until,
    with_store,
)
from chaos.nursery import Nursery
from postgres import Server

from mergesearch.types import Status

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

HOURS = 3 * 3600.0


def stopped(pid: int) -> bool:
    """Whether a process sleeps by SIGSTOP."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_second_controller_is_refused(
    url: Callable[[str], str], tmp_path: Path, nursery: Nursery, calm_nursery: Nursery
) -> None:
    """One sentence that names the holder, exit 4; the first one does not notice, and a third finds nothing to do."""
    script = create(Script(url("two"), str(tmp_path / "marks"), seconds=0.02, budget=40.0))
    first = nursery.start(script)
    until("the first scoring", lambda: scorings(script) > 2, 30)
    for _ in range(3):
        second = nursery.run(replace(script, marks=""))
        assert second.code == 4
        assert second.said.count("\n") == 1
        assert f"study 's' is being run by {os.uname().nodename}:{first}:" in second.said
    ended = nursery.wait(first, 30)
    assert ended is not None
    assert ended.code == 0, ended.said
    assert_whole(script)
    assert picture(script) == calm(calm_nursery, script, url=url("calm"), marks="", seconds=0.0)


@pytest.mark.parametrize("step", ["before ask", "before submit", "arrived", "before tell", "before set_facts"])
def test_a_sleeper_that_was_replaced_writes_nothing(
    step: str, url: Callable[[str], str], tmp_path: Path, nursery: Nursery, calm_nursery: Nursery
) -> None:
    """SIGSTOP until the lease has run out and another goes on; when it wakes its every write is refused, it ends with
    one sentence, and the other's study is as if it had never been."""
    script = create(Script(url("asleep"), lease=0.9, budget=16.0))
    sleeper = nursery.start(replace(script, at=step, nth=3 if step != "before set_facts" else 1, what=signal.SIGSTOP))
    heir = 0
    try:
        until("the first controller sleeps", lambda: stopped(sleeper), 30)
        log = picture(script)
        held = with_store(script, lambda store: store.study("s"))
        assert f":{sleeper}:" in held.owner
        assert nursery.run(script).code == 4, "a lease that still runs was taken from a living process"
        # The heir sleeps too, in the midst of its work, so that the sleeper wakes while the study is another's.
        heir = until("the lease runs out", lambda: takes_over(nursery, script), 30)
        log = assert_only_grew(log, script)
        os.kill(sleeper, signal.SIGCONT)
        ended = nursery.wait(sleeper, 30)
        assert ended is not None
        assert ended.code == 4, ended
        assert ended.said.count("\n") == 1
        assert "the lease of" in ended.said
        assert picture(script) == log, "a controller without the lease wrote into the log"
        assert status(script)[0] is Status.RUNNING, "a controller without the lease wrote the status"
        os.kill(heir, signal.SIGCONT)
        ended = nursery.wait(heir, 30)
        assert ended is not None
        assert ended.code == 0, ended.said
        assert_whole(script)
        assert assert_only_grew(log, script) == calm(calm_nursery, script, url=url("calm"), lease=0.0)
    finally:
        for pid in (sleeper, heir):
            if pid and alive(pid):
                quietly_kill(pid)


def takes_over(nursery: Nursery, script: Script) -> int:
    """The pid of another controller that got the lease, asleep after its second ask; 0 if it was refused."""
    pid = nursery.start(replace(script, at="after ask", nth=2, what=signal.SIGSTOP))
    while not stopped(pid):
        ended = nursery.wait(pid, 0.02)
        if ended is not None:
            assert ended.code == 4, ended.said
            return 0
    return pid


@pytest.mark.postgres
def test_a_sleeper_within_a_transaction_gives_up_its_lock(
    postgres: Server, nursery: Nursery, calm_nursery: Nursery
) -> None:
    """PostgreSQL ends the session of a controller that stopped in the midst of a write, so that another can go on; the
    first one finds that when it wakes, and writes nothing. (In SQLite such a lock is held until the process ends.)"""
    brief = "options=-c%20idle_in_transaction_session_timeout%3D2s"
    script = create(Script(postgres.url(postgres.new_database(), options=brief), lease=0.9, budget=16.0))
    sleeper = nursery.start(replace(script, at="sql", nth=60, what=signal.SIGSTOP))
    try:
        until("the first controller sleeps", lambda: stopped(sleeper), 30)
        until("another takes over", lambda: nursery.run(script).code == 0, 60)
        log = picture(script)
        os.kill(sleeper, signal.SIGCONT)
        ended = nursery.wait(sleeper, 30)
        assert ended is not None
        assert ended.code == 4, ended
    finally:
        quietly_kill(sleeper)
    assert_whole(script)
    assert picture(script) == log
    assert log == calm(calm_nursery, script, url=postgres.url(postgres.new_database()), lease=0.0)


def test_a_controller_whose_parent_does_not_look_is_dead(
    url: Callable[[str], str], nursery: Nursery, calm_nursery: Nursery
) -> None:
    """A killed process that nobody has waited for, as in a container, does not keep its lease: a resume goes on at
    once."""
    script = create(Script(url("zombie")))
    pid = nursery.start(replace(script, at="before tell", nth=3))
    until("it has died", lambda: not alive(pid), 30)
    assert Path(f"/proc/{pid}").exists()
    ended = nursery.run(script)
    assert ended.code == 0, ended.said
    nursery.wait(pid, 10)
    assert_whole(script)
    assert picture(script) == calm(calm_nursery, script, url=url("calm"))


@pytest.mark.parametrize("skew", [-HOURS, HOURS])
def test_a_wrong_clock_wins_and_loses_no_lease(skew: float, url: Callable[[str], str], nursery: Nursery) -> None:
    """The database's clock says how long a lease runs: hours of difference between two machines change nothing."""
    script = create(Script(url("clocks"), budget=16.0, lease=60.0))
    holder = nursery.start(replace(script, skew=skew, at="before tell", nth=4, what=signal.SIGSTOP))
    try:
        until("the first controller sleeps", lambda: stopped(holder), 30)
        for other in (0.0, -skew, skew):
            ended = nursery.run(replace(script, skew=other))
            assert ended.code == 4, f"a clock that is {other:+g} s off took a running lease: {ended.said}"
        left = with_store(script, lambda store: store.study("s"))
        assert f":{holder}:" in left.owner
        os.kill(holder, signal.SIGCONT)
        ended = nursery.wait(holder, 30)
        assert ended is not None
        assert ended.code == 0, ended.said
    finally:
        if alive(holder):
            quietly_kill(holder)
    assert_whole(script)
    assert 0.0 <= with_store(script, lambda store: store.study("s").seconds) < 60.0


@pytest.mark.parametrize("skew", [-HOURS, HOURS])
def test_a_clock_that_jumps_does_not_fool_a_budget_of_hours(
    skew: float, url: Callable[[str], str], nursery: Nursery
) -> None:
    """An hour is an hour: the study neither ends when the clock is set forward nor goes on for ever when it is set
    back; what it has run so far is right in the store."""
    long = create(Script(url("long"), hours=1.0, budget=16.0, skew=skew, at="before ask", nth=4, what=0))
    ended = nursery.run(long)
    assert ended.code == 0, ended.said
    assert_whole(long)
    assert 0.0 <= with_store(long, lambda store: store.study("s").seconds) < 60.0
    short = create(replace(long, url=url("short"), hours=1.5 / 3600, budget=2000.0, seconds=0.02))
    ended = nursery.run(short, 60.0)
    assert ended.code == 0, ended.said
    assert status(short)[0] is Status.DONE
    assert 5 < len(picture(short)) < 400
    assert 1.5 <= with_store(short, lambda store: store.study("s").seconds) < 30.0


@pytest.mark.parametrize("moved", [0.0, 0.25])
def test_a_late_result_changes_nothing(
    moved: float, url: Callable[[str], str], tmp_path: Path, nursery: Nursery, calm_nursery: Nursery
) -> None:
    """A worker that was believed lost answers after all: the same scores are no news, others are kept beside the log
    and reported; the log and the search are those of an undisturbed study."""
    script = create(Script(url("late"), str(tmp_path / "marks"), echo=(3, 2, moved), budget=20.0))
    ended = nursery.run(script)
    assert ended.code == 0, ended.said
    late = diary(script, "repeated")
    assert late >= 6 if moved else late == 0
    found = assert_whole(script, repeats=late)
    assert picture(script) == calm(calm_nursery, script, url=url("calm"), marks="", echo=None)
    for repeat in with_store(script, lambda store: store.repeats("s")):
        first = found.outcomes[(repeat.number, repeat.split)].scores  # type: ignore[union-attr]
        assert {n: s.value for n, s in repeat.outcome.scores.items()} == {n: s.value + moved for n, s in first.items()}
