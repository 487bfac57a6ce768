"""Ctrl-C at any moment of a write: it arrives, the write is whole or not there, and the store goes on at once."""

import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mergesearch.errors import StoreError
from mergesearch.store.base import Lease, StudyStore
from mergesearch.store.interrupts import held
from mergesearch.store.open import open_store
from mergesearch.types import Status


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StudyStore]:
    """A store that waits for a lock for only a moment."""
    opened = open_store(f"sqlite:///{tmp_path}/a.db?timeout=0.05")
    opened.create("s", "", "")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _as_a_terminal() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _interrupted(store: StudyStore, lease: Lease, nth: int, number: int = signal.SIGINT) -> tuple[int, bool]:
    """Write while a signal comes at the nth line, call or return; how many there were, and whether it came through."""
    seen = 0

    def trace(_frame: FrameType, _event: str, _value: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == nth:
            signal.raise_signal(number)
        return trace

    sys.settrace(trace)
    try:
        store.set_status(lease, Status.RUNNING, str(nth))
    except KeyboardInterrupt:
        return seen, True
    finally:
        sys.settrace(None)
    return seen, False


def test_an_interrupt_at_any_moment_of_a_write(store: StudyStore) -> None:
    """Found on a loaded machine: a Ctrl-C in the midst left the transaction open, and the study could not be marked as
    stopped."""
    lease = store.acquire("s", "me", 1000.0)
    _interrupted(store, lease, -1)  # the first time it does more
    steps, _ = _interrupted(store, lease, -1)
    store.set_status(lease, Status.STOPPED, "after")
    assert steps > 500
    for nth in range(1, steps, 3):
        _, came = _interrupted(store, lease, nth)
        assert came, nth
        assert store.study("s").message in (str(nth), "after")
        store.set_status(lease, Status.STOPPED, "after")


def test_a_second_interrupt_does_not_wait() -> None:
    steps = []

    def work() -> None:
        with held():
            signal.raise_signal(signal.SIGINT)
            steps.append("held")
            signal.raise_signal(signal.SIGINT)
            steps.append("not held")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["held"]


def test_an_interrupt_is_not_lost_where_the_write_fails() -> None:
    def work() -> None:
        with held():
            signal.raise_signal(signal.SIGINT)
            raise StoreError("the disk is full")

    with pytest.raises(KeyboardInterrupt):
        work()


def test_handlers_are_back_in_place() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with held(), held():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_holds_nothing() -> None:
    seen = []

    def work() -> None:
        with held():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
