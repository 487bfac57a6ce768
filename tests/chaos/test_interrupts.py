"""Ctrl-C and SIGTERM: exit 130, the study is marked as stopped, and a resume goes on to the same end."""

import os
import random
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from chaos.child import Script
from chaos.faults import CHAIN
from chaos.harness import assert_only_grew, assert_whole, calm, create, goes_on, status
from chaos.nursery import Nursery

from mergesearch.types import Status

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_with_jobs_in_flight(
    how: int, url: Callable[[str], str], tmp_path: Path, nursery: Nursery, calm_nursery: Nursery
) -> None:
    """Three jobs are out when it comes, four times over: they are asked again, none is lost and none told twice."""
    pool = {"pool": "threads", "workers": 3}
    script = create(
        Script(url("stopped"), str(tmp_path / "marks"), strategy="random", pool=pool, seconds=0.03, budget=90.0)
    )
    log = []
    for times in range(1, 5):
        pid = nursery.start(script)
        goes_on(script, 7)
        os.kill(pid, how)
        ended = nursery.wait(pid, 30)
        assert ended is not None
        assert (ended.code, ended.said) == (130, "interrupted\n"), times
        assert status(script) == (Status.STOPPED, "interrupted")
        log = assert_only_grew(log, script)
    assert nursery.run(script).code == 0
    found = assert_whole(script)
    expected = calm(calm_nursery, script, url=url("calm"), marks="", seconds=0.0, pool={"pool": "inline"})
    points = {entry[1]: entry[5] for entry in expected if entry[3] == "asked" and entry[4] == "sample"}
    for number, point in points.items():
        assert found.candidates[number].point.tobytes() == point  # type: ignore[union-attr]


def test_an_interrupt_at_every_step(
    url: Callable[[str], str], tmp_path: Path, nursery: Nursery, calm_nursery: Nursery
) -> None:
    """Wherever the signal finds the controller, even in the midst of a transaction, it leaves a study to resume."""
    script = create(Script(url("stopped"), budget=30.0))
    places = random.Random(9)
    # Renewals are another thread's work; an interrupt comes to the first one.
    steps = [(step, 1) for step in CHAIN if "renew" not in step] + [("sql", places.randint(4, 40)) for _ in range(12)]
    log = []
    for step, nth in steps:
        ended = nursery.run(replace(script, at=step, nth=nth, what=signal.SIGINT))
        assert (ended.code, ended.said) == (130, "interrupted\n"), (step, nth)
        log = assert_only_grew(log, script)
    assert status(script)[0] is Status.STOPPED
    assert nursery.run(script).code == 0
    assert_whole(script)
    assert assert_only_grew(log, script) == calm(calm_nursery, script, url=url("calm"))
    assert sum(entry[3] == "asked" for entry in log) > 6, "the steps left nothing of the study to its resumes"
