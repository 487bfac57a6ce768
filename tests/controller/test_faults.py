"""The controller when something else breaks: the store, the lease, the workers' cluster, a worker that comes late."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import pytest
from controller.black_box import OBJECTIVES, SPACE, OnGpu, Sphere, points, run, study

from mergesearch.controller import loop
from mergesearch.controller.heartbeat import Heartbeat
from mergesearch.controller.loop import Controller
from mergesearch.controller.observer import Observer, Progress
from mergesearch.errors import LeaseError, PoolError, StoreError
from mergesearch.pool.base import Job, JobResult, Usage, WorkerPool
from mergesearch.results import Results
from mergesearch.store.memory import MemoryStore
from mergesearch.store.open import open_store
from mergesearch.stored import describe
from mergesearch.types import Candidate, Outcome, Score, Scored, Split, Status, Timing, Told


@final
class Breaking:
    """A store of which some methods do something else first."""

    def __init__(self, store: MemoryStore, **breaks: Callable[..., None]) -> None:
        self._store, self._breaks = store, breaks

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if name not in self._breaks:
            return real

        def broken(*args: Any, **more: Any) -> Any:
            self._breaks[name](*args, **more)
            return real(*args, **more)

        return broken


def fails(sentence: str, after: int = 0) -> Callable[..., None]:
    """Raises a StoreError from the call `after` on."""
    calls = [0]

    def broken(*_: Any, **__: Any) -> None:
        calls[0] += 1
        if calls[0] > after:
            raise StoreError(f"{sentence} {calls[0]}")

    return broken


def test_the_first_refusal_of_the_store_is_the_one_that_is_heard() -> None:
    """Leaving a store that refuses everything raises what it said first, with no second error behind it."""
    store = Breaking(
        MemoryStore(),
        tell=fails("the disk is full,", 3),
        set_status=fails("nothing more can be written,", 1),
        set_facts=fails("no facts,", 1),
    )
    with pytest.raises(StoreError, match="the disk is full, 4") as raised:
        run(store, study())  # type: ignore[arg-type]
    assert raised.value.__context__ is None
    assert raised.value.__cause__ is None


def test_a_lost_cluster_stops_a_study_that_can_be_resumed() -> None:
    """The sentence of the pool stands in the store, the study is stopped, not failed, and goes on to its end."""

    store = MemoryStore()
    store.create("s", "", "", facts=describe(SPACE, OBJECTIVES, 20, "cma_es"))
    pool = OnGpu(Sphere())
    polls = [0]
    poll = pool.poll

    def gone(timeout: float) -> Sequence[JobResult]:
        polls[0] += 1
        if polls[0] == 5:
            raise PoolError("the Ray cluster is gone; resume when it is back")
        return poll(timeout)

    pool.poll = gone  # type: ignore[method-assign, assignment]
    with pytest.raises(PoolError, match="the Ray cluster is gone"):
        Controller(study(), store, pool).run()
    record = store.study("s")
    assert (record.status, record.message, record.owner) == (
        Status.STOPPED,
        "the Ray cluster is gone; resume when it is back",
        "",
    )
    assert len(Results(OBJECTIVES, store.events("s")).pending) == 1
    resumed, undisturbed = run(store, study()), run(MemoryStore(), study())
    assert points(resumed) == points(undisturbed)


def test_a_heartbeat_outlives_a_store_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """While renewals fail for longer than the lease it goes on trying; the holder stays as long as nobody took it."""
    store = MemoryStore()
    store.create("s", "", "")
    lease = store.acquire("s", "me", 0.06)
    away = Breaking(store, renew=lambda *_: None)
    calls, back = [0], threading.Event()

    def renew(*_: Any) -> None:
        calls[0] += 1
        if calls[0] <= 6:
            raise StoreError("the database is away")
        back.set()

    away._breaks["renew"] = renew
    with caplog.at_level(logging.WARNING):
        beat = Heartbeat(away, lease, 0.06)  # type: ignore[arg-type]
        assert back.wait(10.0)
        beat.check()
        beat.close()
    assert "could not be renewed, trying again: the database is away" in caplog.text
    store.set_status(beat.lease, Status.RUNNING, "")


def test_a_controller_whose_study_was_taken_over_ends_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """LeaseError names the new holder; the study's status and lease are left to it."""
    monkeypatch.setattr(loop, "LEASE_SECONDS", 0.05)
    store = MemoryStore()

    class Slow(Sphere):
        def evaluate(self, job: Job) -> Outcome:
            if job.number == 2:
                taken.append(store.acquire("s", "another", 60.0, replacing=store.study("s").owner))
                store.set_status(taken[0], Status.RUNNING, "")
                time.sleep(0.2)
            return super().evaluate(job)

    taken: list[Any] = []
    with pytest.raises(LeaseError, match="another") as raised:
        run(store, study(), Slow())
    assert raised.value.__context__ is None
    record = store.study("s")
    assert (record.owner, record.status) == ("another", Status.RUNNING)


class Watching(Observer):
    """Collects what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Told, int]] = []
        self.repeats: list[tuple[Told, int]] = []
        self.progress: list[Progress] = []

    def evaluated(self, study: str, told: Told, attempt: int) -> None:
        self.told.append((told, attempt))

    def repeated(self, study: str, told: Told, attempt: int) -> None:
        self.repeats.append((told, attempt))

    def progressed(self, progress: Progress) -> None:
        self.progress.append(progress)


@final
class Late(WorkerPool):
    """Answers each job at once, and some a second time later: with the same scores, or with others."""

    size, gpus = 2, 0.0

    def __init__(self, again: dict[int, float]) -> None:
        self._again, self._jobs, self._late, self._polls = again, [], [], 0  # type: ignore[var-annotated]

    def usage(self) -> Usage:
        return Usage(2, 3.0, 4.0)

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def poll(self, timeout: float) -> Sequence[JobResult]:
        done = [JobResult(job, self._outcome(job, 0.0), 1) for job in self._jobs]
        late = [JobResult(job, self._outcome(job, self._again[job.number]), 2) for job in self._late]
        self._late = [job for job in self._jobs if job.number in self._again]
        self._jobs = []
        return [*done, *late]

    def close(self) -> None:
        """Nothing."""

    def _outcome(self, job: Job, shift: float) -> Outcome:
        outcome = Sphere().evaluate(job)
        assert isinstance(outcome, Scored)
        scores = {name: Score(s.value + shift, s.stderr, s.n) for name, s in outcome.scores.items()}
        return Scored(scores, timing=Timing(0.001, 0.002, 0.003, gpu=0.5), worker="w")


def test_a_worker_that_comes_late_changes_nothing_and_is_reported_if_it_differs() -> None:
    """The same scores are no event; others are kept beside the log and shown; the log stays as it was."""
    store, seen = MemoryStore(), Watching()
    store.create("s", "", "", facts=describe(SPACE, OBJECTIVES, 12, "random"))
    results = Controller(study("random", 12), store, Late({2: 0.0, 5: 0.25}), [seen]).run()
    assert [(told.candidate.number, attempt) for told, attempt in seen.repeats] == [(5, 2)]
    assert [repeat.number for repeat in store.repeats("s")] == [5]
    assert results.search_told == 12
    first = results.outcome(5)
    assert first is not None
    assert seen.repeats[0][0].outcome.scores["up"].value == first.scores["up"].value + 0.25  # type: ignore[union-attr]


def test_where_the_seconds_went_is_recorded(tmp_path: Path) -> None:
    """The controller's own part is measured and kept; the pool's parts stay what they were; usage is a fact."""
    store, seen = open_store(f"sqlite:///{tmp_path / 's.db'}"), Watching()
    store.create("s", "", "", facts=describe(SPACE, OBJECTIVES, 8, "random"))
    began = time.monotonic()
    Controller(study("random", 8), store, Late({}), [seen]).run()
    taken = time.monotonic() - began
    for told, attempt in seen.told:
        timing = told.outcome.timing
        assert (timing.queue, timing.build, timing.score, timing.gpu, attempt) == (0.001, 0.002, 0.003, 0.5, 1)
        assert 0.0 <= timing.record < taken
    assert sum(told.outcome.timing.record for told, _ in seen.told) > 0
    again = Results(OBJECTIVES, store.events("s"))
    assert [again.outcomes[told.candidate.number, told.split].timing for told, _ in seen.told] == [
        told.outcome.timing for told, _ in seen.told
    ]
    assert store.facts("s")["usage"] == {"workers": 2, "busy": 3.0, "available": 4.0, "share": 0.75}
    Controller(study("random", 10), store, Late({})).run()
    assert store.facts("s")["usage"] == {"workers": 2, "busy": 6.0, "available": 8.0, "share": 0.75}
    assert seen.progress[-1].study == "s"
    store.close()


def test_a_running_controller_keeps_no_points_and_finds_them_again() -> None:
    """While it runs, points of what was told are not in memory; once one is looked up, all are those of the store."""
    store = MemoryStore()
    read = [0]

    counting = Breaking(store, events=lambda *_: read.__setitem__(0, read[0] + 1))
    results = run(counting, study("random", 30))  # type: ignore[arg-type]
    assert read == [1]
    told = {e.candidate.number: e.candidate for e in store.events("s")}
    for number, candidate in told.items():
        found: Candidate = results.candidates[number]
        assert found.point is not None
        assert found.point.tolist() == candidate.point.tolist()  # type: ignore[union-attr]
        assert (found.origin, found.request, found.cost) == (candidate.origin, candidate.request, candidate.cost)
    assert read == [2]
    assert list(results.asked) == [(n, Split.SEARCH) for n in range(30)]
    assert len(results.candidates) == len(results.outcomes) == 30
    assert (31, Split.SEARCH) not in results.outcomes
    assert 31 not in results.candidates
