"""What a cleaning takes, and what it never touches."""

from pathlib import Path

import pytest
from export.stored_study import fill

from mergesearch.errors import SpecError, StudyNotFound
from mergesearch.export.cleaning import age, carry_out, choice, plan
from mergesearch.export.inside import amount
from mergesearch.store.base import StudyStore
from mergesearch.store.open import open_store
from mergesearch.stored import read_stored
from mergesearch.types import Status

DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> StudyStore:
    """A SQLite store: a done study with two controls, a failed and a stopped one, a control without its study."""
    made = open_store(f"sqlite:///{tmp_path / 's.db'}")
    for name, status in [
        ("done", Status.DONE),
        ("done--random", Status.DONE),
        ("done--lambda", Status.DONE),
        ("failed", Status.FAILED),
        ("stopped", Status.STOPPED),
        ("gone--random", Status.DONE),
    ]:
        fill(made, name, status=status)
    return made


def later(store: StudyStore, seconds: float) -> float:
    """A moment so long after the last change."""
    return max(record.updated for record in store.studies()) + seconds


def doomed(store: StudyStore, *chosen: object, seconds: float = 0.0) -> dict[str, str]:
    """What would go: name -> why."""
    names, statuses, older = (*chosen, None, None, None)[:3]
    planned = plan(store, choice(names or [], statuses, older), later(store, seconds))
    return {d.record.name: d.why for d in planned.studies}


def test_without_a_choice_only_controls_of_lost_studies_go(store: StudyStore) -> None:
    """The mildest cleaning."""
    assert doomed(store) == {"gone--random": "control of 'gone', which is gone"}


def test_a_named_study_takes_its_controls_along(store: StudyStore) -> None:
    """They are of no use without it."""
    found = doomed(store, ["done"])
    assert found.pop("done") == "named"
    assert set(found) == {"done--random", "done--lambda", "gone--random"}


def test_statuses_and_age_choose(store: StudyStore) -> None:
    """Only those that have not changed for so long."""
    assert set(doomed(store, None, "failed, stopped")) == {"failed", "stopped", "gone--random"}
    assert set(doomed(store, None, "failed", "30d", seconds=29 * DAY)) == {"gone--random"}
    assert doomed(store, None, "failed", "30d", seconds=31 * DAY)["failed"] == "failed, unchanged for 31 d"


def test_a_study_that_is_held_stays_with_its_controls(store: StudyStore) -> None:
    """A controller works on it: neither planned, nor deleted when it begins after the plan was made."""
    chosen = choice(["done", "failed"], None, None)
    early = plan(store, chosen, later(store, 0))
    store.acquire("done", "controller of host-7", 600.0)
    now = plan(store, chosen, later(store, 0))
    assert [(kept.record.name, kept.why) for kept in now.kept] == [("done", "held by controller of host-7")]
    assert {d.record.name for d in now.studies} == {"failed", "gone--random"}
    gone, _ = carry_out(store, early)
    assert "done" not in gone
    assert {record.name for record in store.studies()} == {"done", "stopped"}


def test_what_goes_is_gone_and_its_space_is_given_back(store: StudyStore) -> None:
    """The rest is as it was; the file shrinks."""
    fill(store, "big", count=400, status=Status.FAILED)
    before = read_stored(store, "done").results
    gone, (had, has) = carry_out(store, plan(store, choice(["big"], None, None), later(store, 0)))
    assert set(gone) == {"big", "gone--random"}
    assert has < had
    assert read_stored(store, "done").results.outcomes.keys() == before.outcomes.keys()
    with pytest.raises(StudyNotFound):
        store.study("big")


def test_amounts_are_about_what_the_database_holds(tmp_path: Path) -> None:
    """The estimate that a dry run shows is within a factor of two of the file."""
    store = open_store(f"sqlite:///{tmp_path / 's.db'}")
    _, empty = store.compact()
    fill(store, count=1000)
    _, full = store.compact()
    held = amount(read_stored(store, "made"))
    assert (held.candidates, held.scored, held.failed, held.open) == (1001, 1001, 1, 1)
    assert 0.5 < held.bytes / (full - empty) < 2.0


@pytest.mark.parametrize("text", ["30", "d", "3y", "-1d", ""])
def test_an_age_needs_a_unit(text: str) -> None:
    """Anything else is refused with an example."""
    with pytest.raises(SpecError, match="such as 30d"):
        age(text)


def test_choices_that_cannot_be_meant_are_refused(store: StudyStore) -> None:
    """An unknown status, an age alone, an unknown study."""
    with pytest.raises(SpecError, match="did you mean 'failed'"):
        choice([], "faild", None)
    with pytest.raises(SpecError, match="running"):
        choice([], "running", None)
    with pytest.raises(SpecError, match="needs --status"):
        choice([], None, "3d")
    with pytest.raises(StudyNotFound, match="did you mean 'done'"):
        plan(store, choice(["dome"], None, None), 0.0)
    assert age("90m") == age("1.5h") == 5400.0
