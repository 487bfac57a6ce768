"""A PostgreSQL that is restarted, or away for a while, under load: nothing is lost, and nothing is scored twice."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chaos.child import Script
from chaos.harness import alive, assert_whole, create, goes_on, quietly_kill, scorings, status, until
from chaos.nursery import Nursery
from postgres import Server

from mergesearch.types import Status

pytestmark = [pytest.mark.chaos, pytest.mark.postgres, pytest.mark.timeout(240)]

AWAY = 30.0
WORKERS = 4


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of this module's own, since it does not serve others well."""
    own = Server()
    with pytest.MonkeyPatch.context() as patch:
        for key, value in own.environment.items():
            patch.setenv(key, value)
        try:
            yield own
        finally:
            own.close()


def loaded(server: Server, tmp_path: Path) -> Script:
    """A study with several workers that are always busy, and a lease that runs out while the database is away."""
    pool = {"pool": "threads", "workers": WORKERS}
    marks = str(tmp_path / "marks")
    return create(
        Script(
            server.url(server.new_database()),
            marks,
            strategy="random",
            pool=pool,
            seconds=0.02,
            budget=5000.0,
            lease=10.0,
        )
    )


@pytest.mark.slow
def test_restarts_and_half_a_minute_away(server: Server, tmp_path: Path, nursery: Nursery) -> None:
    """Five restarts and 30 s without a server, in one study with four workers: its controller goes on by itself, no
    evaluation is lost, none is scored or told twice."""
    script = replace(loaded(server, tmp_path), budget=1000.0)
    pid = nursery.start(script)
    try:
        for _ in range(5):
            goes_on(script, 40)
            server.restart()
        goes_on(script, 40)
        server.stop()
        gone = time.monotonic()
        until("the time is over", lambda: time.monotonic() - gone >= AWAY, AWAY + 10)
        assert alive(pid)
        server.start()
        ended = nursery.wait(pid, 60)
        assert ended is not None
        assert ended.code == 0, ended.said
    finally:
        quietly_kill(pid)
    found = assert_whole(script)
    assert scorings(script) == len(found.outcomes)


@pytest.mark.slow
def test_a_server_that_stays_away_ends_the_controller_and_not_the_study(
    server: Server, tmp_path: Path, nursery: Nursery
) -> None:
    """After the `timeout` of the URL: one sentence and exit 4; when the server is back, a resume goes on."""
    script = replace(loaded(server, tmp_path), budget=200.0)
    impatient = replace(script, url=f"{script.url}?timeout=2")
    pid = nursery.start(impatient)
    try:
        until("the study goes on", lambda: scorings(script) >= 40, 40)
        server.stop()
        ended = nursery.wait(pid, 40)
        assert ended is not None
        assert ended.code == 4, ended
        errors = [line for line in ended.said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert "was away for 2 s" in errors[0]
    finally:
        quietly_kill(pid)
        server.start()
    assert status(script)[0] is Status.RUNNING  # nobody could write otherwise
    assert nursery.run(script).code == 0
    found = assert_whole(script)
    assert scorings(script) <= len(found.outcomes) + WORKERS
