"""What chaos tests share: a study to disturb, and what must hold of it at its end."""

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from chaos.child import Script
from chaos.nursery import Nursery

from mergesearch.results import Results
from mergesearch.store.base import StudyStore
from mergesearch.store.open import open_store
from mergesearch.stored import describe, read_stored
from mergesearch.types import Asked, Event, Failed, Status


def create(script: Script) -> Script:
    """Record the study of a script in its store."""
    store = open_store(script.url)
    facts = describe(script.space, script.objectives, script.budget, script.strategy)
    store.create(script.name, "", "", facts=facts)
    store.close()
    return script


def picture(script: Script) -> list[tuple[Any, ...]]:
    """The study's log as plain values, without what a clock or a process decides: what must be the same."""
    return [entry(event) for event in read_log(script)]


def read_log(script: Script) -> list[Event]:
    """All that was asked and told."""
    store = open_store(script.url, create=False)
    try:
        return list(store.events(script.name))
    finally:
        store.close()


def entry(event: Event) -> tuple[Any, ...]:
    """One log entry as plain values."""
    candidate = event.candidate
    who = (event.seq, candidate.number, event.split.value)
    if isinstance(event, Asked):
        point = None if candidate.point is None else candidate.point.tobytes()
        return (*who, "asked", candidate.origin, point, candidate.request, candidate.cost)
    if isinstance(event.outcome, Failed):
        return (*who, "failed", event.outcome.kind)
    return (*who, "scored", tuple((name, score.value) for name, score in event.outcome.scores.items()))


def status(script: Script) -> tuple[Status, str]:
    """Where the study stands, and why."""
    store = open_store(script.url, create=False)
    try:
        record = store.study(script.name)
        return record.status, record.message
    finally:
        store.close()


def with_store(script: Script, do: Callable[[StudyStore], Any]) -> Any:
    """What `do` gives of the script's store."""
    store = open_store(script.url, create=False)
    try:
        return do(store)
    finally:
        store.close()


def results(script: Script) -> Results:
    """The study's log, folded."""
    return with_store(script, lambda store: read_stored(store, script.name).results)  # type: ignore[no-any-return]


def assert_whole(script: Script, *, repeats: int = 0) -> Results:
    """The study is done: its budget exactly, each candidate asked and told once, nothing open, nobody holds it."""
    assert status(script) == (Status.DONE, "")
    log = read_log(script)
    found = Results(script.objectives, log)
    assert [event.seq for event in log] == list(range(1, len(log) + 1))
    asked = Counter((e.candidate.number, e.split) for e in log if isinstance(e, Asked))
    told = Counter((e.candidate.number, e.split) for e in log if not isinstance(e, Asked))
    assert set(asked.values()) | set(told.values()) == {1}
    assert asked == told
    assert sorted(found.candidates) == list(range(len(found.candidates)))
    assert found.pending == []
    assert found.search_asked == found.search_told
    assert script.budget - 1.0 < found.cost_told <= script.budget + 1e-6
    assert with_store(script, lambda store: store.study(script.name).owner) == ""
    assert len(with_store(script, lambda store: store.repeats(script.name))) == repeats
    return found


def calm(nursery: Nursery, script: Script, **changes: Any) -> list[tuple[Any, ...]]:
    """The log of the same study when nothing disturbs it."""
    undisturbed = create(replace(script, at="", what=9, **changes))
    ended = nursery.run(undisturbed)
    assert ended.code == 0, ended.said
    assert_whole(undisturbed)
    return picture(undisturbed)


def assert_only_grew(before: list[tuple[Any, ...]], script: Script) -> list[tuple[Any, ...]]:
    """What the log held it holds still, in the same order; returns the log of now."""
    now = picture(script)
    assert now[: len(before)] == before, "something that was recorded is gone or has changed"
    return now


def scorings(script: Script) -> int:
    """How many scorings began, in all processes."""
    path = Path(script.marks)
    return path.stat().st_size // 8 if path.exists() else 0


def diary(script: Script, word: str) -> int:
    """How often the observer was told `word`."""
    path = Path(script.marks + ".diary")
    return sum(line.startswith(word) for line in path.read_text().splitlines()) if path.exists() else 0


def until(what: str, condition: Callable[[], Any], seconds: float) -> Any:
    """The first true value of `condition`. Fails with `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)
    return value


def goes_on(script: Script, more: int, seconds: float = 60.0) -> None:
    """Wait until so many more scorings began."""
    wanted = scorings(script) + more
    until(f"the study goes on to {wanted} scorings", lambda: scorings(script) >= wanted, seconds)


def hurry(script: Script) -> None:
    """From now on its scorings take no time."""
    Path(script.marks + ".hurry").touch()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def quietly_kill(pid: int, how: int = 9) -> None:
    """Signal a process that may be gone."""
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return
