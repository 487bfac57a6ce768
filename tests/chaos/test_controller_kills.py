"""A controller that dies at any moment loses nothing, counts nothing twice, and its study comes to the same end."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from chaos.child import Script
from chaos.faults import CHAIN
from chaos.harness import assert_only_grew, assert_whole, calm, create, quietly_kill, scorings
from chaos.nursery import Nursery

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

KILLS = 50


@pytest.mark.slow
def test_fifty_kills_at_random_moments(
    url: Callable[[str], str], tmp_path: Path, nursery: Nursery, calm_nursery: Nursery
) -> None:
    """Fifty SIGKILLs at random moments over as many resumes: the log only grows, and ends as if nothing had been."""
    script = create(Script(url("killed"), str(tmp_path / "marks"), budget=80.0, seconds=0.004, finalists=3))
    moments, log, kills, studies = random.Random(7), [], 0, 1
    for _ in range(20 * KILLS):
        pid = nursery.start(script)
        ended = nursery.wait(pid, moments.uniform(0.0, 0.16))
        if ended is None:
            quietly_kill(pid)
            kills += 1
            ended = nursery.wait(pid, 10.0)
        assert ended is not None
        assert ended.code in (0, -9), ended.said
        log = assert_only_grew(log, script)
        if kills == KILLS:
            break
        if ended.code == 0:  # it was quick; a further study takes the remaining kills
            assert_whole(script)
            studies += 1
            script, log = create(replace(script, name=f"s{studies}")), []
    assert kills == KILLS
    assert nursery.run(script).code == 0
    found = assert_whole(script)
    assert scorings(script) <= len(found.outcomes) * studies + KILLS
    assert assert_only_grew(log, script) == calm(calm_nursery, script, url=url("calm"), marks="")


@pytest.mark.slow
def test_fifty_kills_between_any_two_statements(
    url: Callable[[str], str], tmp_path: Path, nursery: Nursery, calm_nursery: Nursery
) -> None:
    """A kill before or after any statement or commit of the database, each resume some statements further on."""
    script = create(Script(url("killed"), str(tmp_path / "marks"), budget=40.0))
    places, log, kills = random.Random(8), [], 0
    for _ in range(4 * KILLS):
        ended = nursery.run(replace(script, at="sql", nth=places.randint(1, 90)))
        log = assert_only_grew(log, script)
        kills += ended.code == -9
        if kills == KILLS:
            break
        if ended.code == 0:
            script, log = create(replace(script, name=f"{script.name}+")), []
        else:
            assert ended.code == -9, ended.said
    assert kills == KILLS
    assert nursery.run(script).code == 0
    assert_whole(script)
    assert assert_only_grew(log, script) == calm(calm_nursery, script, url=url("calm"), marks="")


@pytest.mark.slow
def test_a_kill_at_every_step_of_the_chain(
    url: Callable[[str], str], tmp_path: Path, nursery: Nursery, calm_nursery: Nursery
) -> None:
    """The first and a later time that each step comes: a resume ends the study as if nothing had been."""
    expected, stored = None, url("chain")
    for step in CHAIN:
        # So that every step comes a fifth time: facts and status are written rarely.
        word = step.split()[-1]
        often = word not in ("acquire", "release", "set_facts", "set_status", "renew")
        script = create(Script(stored, str(tmp_path / "marks"), name=step, budget=12.0))
        # A renewal comes after a third of the lease, and a study waits for it where it takes its time.
        slow = {"seconds": 0.1, "lease": 0.3} if word == "renew" else {}
        log = []
        for nth in (1, 5) if often else (1, 1):
            ended = nursery.run(replace(script, at=step, nth=nth, **slow))
            assert ended.code == -9, f"{step} came less than {nth} times: {ended}"
            log = assert_only_grew(log, script)
        assert nursery.run(script).code == 0
        assert_whole(script)
        expected = expected or calm(calm_nursery, script, url=url("calm"), marks="")
        assert assert_only_grew(log, script) == expected, step
