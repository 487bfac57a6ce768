"""Candidates that raise, find no memory, give no number or kill their process, in the controller's own process."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from chaos.child import Script
from chaos.harness import assert_whole, create, results, status
from chaos.nursery import Nursery

from mergesearch.types import Failed, Status

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]


def script_of(tmp_path: Path, **more: object) -> Script:
    """A study in a SQLite file."""
    return create(Script(f"sqlite:///{tmp_path}/s.db", str(tmp_path / "marks"), **more))  # type: ignore[arg-type]


def kinds(script: Script) -> Counter[str]:
    """How many evaluations failed, by kind."""
    outcomes = results(script).outcomes.values()
    return Counter(outcome.kind for outcome in outcomes if isinstance(outcome, Failed))


def test_what_a_candidate_does_is_its_own_failure(tmp_path: Path, nursery: Nursery) -> None:
    """Raised, out of memory by word and by a real limit, not a number: each is Failed, and the budget is used to its
    end."""
    evil = {"3": "raise", "5": "memory", "8": "nan", "10": "eat", "13": "raise"}
    script = script_of(tmp_path, evil=evil, memory=256 * 2**20)
    ended = nursery.run(script)
    assert ended.code == 0, ended.said
    found = assert_whole(script)
    assert found.failed == 5
    by_kind = kinds(script)
    assert by_kind["ValueError"] == 2
    assert by_kind["not_finite"] == 1
    assert by_kind["MemoryError"] + by_kind["_ArrayMemoryError"] == 2


@pytest.mark.parametrize("what", ["raise", "nan", "memory"])
def test_too_many_in_a_row_stop_the_study(what: str, tmp_path: Path, nursery: Nursery) -> None:
    """Five failures in a row: exit 6 with one sentence that holds the last one's; whoever mends it resumes."""
    script = script_of(tmp_path, evil={"*": what})
    ended = nursery.run(script)
    assert ended.code == 6, ended.said
    assert ended.said.count("\n") == 1
    assert "5 evaluations in a row failed" in ended.said
    where, message = status(script)
    assert where is Status.FAILED
    assert message in ended.said
    assert sum(kinds(script).values()) == 5
    mended = replace(script, evil={})
    assert nursery.run(mended).code == 0
    assert assert_whole(mended).failed == 5


def test_a_candidate_that_kills_the_controller_is_scored_by_the_next(tmp_path: Path, nursery: Nursery) -> None:
    """In this process's own pool a deadly candidate takes the controller along: what was told stays, a resume asks
    it again and goes on."""
    script = script_of(tmp_path, evil={"2": "die", "9": "die", "10": "die"})
    codes = [nursery.run(script).code for _ in range(4)]
    assert codes == [-9, -9, -9, 0]
    assert assert_whole(script).failed == 0
