"""Processes that people start: they outlive the server, are known to the next one, and are limited in number."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mergesearch.errors import LeaseError
from mergesearch.web.jobs import FOLDER, Busy, Job, Jobs, State
from mergesearch.web.settings import Settings

LONG = ["serve", "--port=0"]  # a command that runs until it is told to end


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MERGESEARCH_TOKEN", "only-the-server-itself-may-know-this-token")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "conf"))
    return Settings("sqlite:///a.db?timeout=5", roots=(tmp_path,), jobs=2)


@pytest.fixture
def jobs(settings: Settings) -> Iterator[Jobs]:
    made = Jobs(settings)
    yield made
    for job in made.all():
        if made.stop(job):
            until(lambda job=job: found(made, job).state is not State.RUNNING)


def found(jobs: Jobs, job: Job) -> Job:
    got = jobs.find(job.id)
    assert got is not None
    return got


def until(right: Callable[[], bool], seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not right():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def test_a_job_outlives_its_server_and_ends_when_it_is_told(jobs: Jobs, settings: Settings) -> None:
    """The next server sees it run, sees what it says, and can stop it; its exit code is kept."""
    job = jobs.start("launch", "mine", [LONG], profile="laptop", alone=True)
    until(lambda: "serves at" in jobs.log(job))
    with pytest.raises(LeaseError, match="already"):
        jobs.start("resume", "mine", [LONG], alone=True)
    after = Jobs(settings)
    assert [(j.id, j.state, j.profile) for j in after.of_study("mine")] == [(job.id, State.RUNNING, "laptop")]
    assert after.stop(found(after, job))
    until(lambda: found(after, job).state is State.STOPPED)
    assert found(jobs, job).code is not None
    assert not after.stop(found(after, job))


def test_only_so_many_run_at_once_and_what_fails_says_its_code(jobs: Jobs) -> None:
    """The third has to wait; a command that fails ends the job, and what comes after it does not run."""
    first = jobs.start("launch", "a", [["resume", "none", *jobs.store_option], LONG])
    second = jobs.start("launch", "b", [LONG])
    with pytest.raises(Busy, match="2 processes"):
        jobs.start("launch", "c", [LONG])
    until(lambda: found(jobs, first).state is State.FAILED)
    assert found(jobs, first).code == 4
    assert "is not in this store" in jobs.log(first)
    assert found(jobs, second).state is State.RUNNING


def test_a_process_that_was_killed_is_lost(jobs: Jobs, tmp_path: Path) -> None:
    """No exit code and no process: that is said, and nothing waits for it for ever."""
    job = jobs.start("launch", "a", [LONG])
    until(lambda: "serves at" in jobs.log(job))
    keeper = int((tmp_path / FOLDER / job.id / "pid").read_text().split()[0])
    os.killpg(keeper, signal.SIGKILL)
    until(lambda: found(jobs, job).state is State.LOST)


def test_a_job_knows_the_store_but_not_the_token(jobs: Jobs, settings: Settings, tmp_path: Path) -> None:
    """A relative SQLite file is where the server has it; a password is never among the words of a command."""
    assert jobs.store == f"sqlite:///{Path.cwd()}/a.db?timeout=5"
    assert jobs.store_option == [f"--store={jobs.store}"]
    hidden = Jobs(Settings("postgresql://me:hidden@host/db", secret=True, roots=(tmp_path,)))
    assert hidden.store_option == []
    job = hidden.start("launch", "a", [["studies"]])
    until(lambda: found(hidden, job).state is State.FAILED)
    assert "hidden" not in json.dumps((tmp_path / FOLDER / job.id / "job.json").read_text())
    assert "hidden" not in hidden.log(job)
    environment = jobs._environment()
    assert not [name for name in environment if name.startswith("MERGESEARCH_TOKEN")]


@pytest.mark.parametrize(
    "name", ["..", "../../etc", "20260101-000000-0000000", "x", "", "a/b", "20260101-000000-00000000\n"]
)
def test_an_id_leads_to_no_other_file(jobs: Jobs, name: str) -> None:
    """What cannot be an id is no job."""
    assert jobs.find(name) is None


def test_a_process_that_cannot_start_says_so(jobs: Jobs, tmp_path: Path) -> None:
    """As where its folder was removed: it has failed, which is not the same as being lost."""
    job = jobs.start("launch", "mine", [LONG], cwd=tmp_path / "gone")
    until(lambda: found(jobs, job).state is not State.RUNNING)
    assert (found(jobs, job).state, found(jobs, job).code) == (State.FAILED, 1)
    assert "could not be started" in jobs.log(job)
