"""The controller on black boxes: counts, phases, failures, wishes, resume."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mergesearch.controller.loop import Controller, StudyRun
from mergesearch.errors import LeaseError, StoreError, StudyFailed
from mergesearch.pool.base import Job
from mergesearch.pool.profile import Profile, open_pool
from mergesearch.results import RECOMMENDED, Results
from mergesearch.space import SearchSpace
from mergesearch.store.base import StudyStore
from mergesearch.store.open import open_store
from mergesearch.stored import describe, read_stored
from mergesearch.strategies.base import Problem
from mergesearch.strategies.make import make_strategy
from mergesearch.types import Candidate, Direction, Failed, Guide, Objective, Outcome, Score, Scored, Split, Status

OBJECTIVES = (Objective("up", Direction.MAX), Objective("down", Direction.MIN))
BASELINES = ("baseline:base", "baseline:expert:a", "baseline:lambda:0.3")
SPACE = SearchSpace.box(4, 0.0, 1.0)


class Sphere:
    """A worker: distance to 0.7, noisy by split; fails where it is told to."""

    def __init__(self, failing: frozenset[int] = frozenset()) -> None:
        self.failing = failing
        self.seen: list[tuple[int, Split]] = []

    def evaluate(self, job: Job) -> Outcome:
        self.seen.append((job.number, job.split))
        if job.number in self.failing:
            return Failed("ValueError", f"candidate {job.number} is made to fail")
        values = np.asarray(job.work)
        distance = float(((values - 0.7) ** 2).mean())
        shift = {Split.SEARCH: 0.0, Split.CONFIRM: 0.01, Split.TEST: 0.02}[job.split]
        return Scored({"up": Score(1 - distance + shift, 0.01, 100), "down": Score(distance + shift, 0.01, 100)})


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StudyStore]:
    opened = open_store("memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 's.db'}")
    yield opened
    opened.close()


def study(kind: str = "cma_es", evaluations: int = 20, **more: object) -> StudyRun:
    problem = Problem(4, OBJECTIVES, SPACE.start, evaluations)
    strategy = make_strategy(kind, problem, 0, {})

    def work(candidate: Candidate) -> np.ndarray:
        return np.full(4, 0.5) if candidate.point is None else SPACE.values(candidate.point)

    return StudyRun("s", OBJECTIVES, evaluations, strategy, work, **more)  # type: ignore[arg-type]


def create(store: StudyStore, evaluations: int = 20) -> None:
    store.create("s", "", "", time.time(), describe(SPACE, OBJECTIVES, evaluations, "cma_es"))


def run(store: StudyStore, run: StudyRun, worker: Sphere | None = None) -> Results:
    made = worker or Sphere()
    return Controller(run, store, open_pool(Profile(), lambda: made)).run()


def test_a_whole_study_has_every_phase(store: StudyStore) -> None:
    """Baselines, the budget exactly, a recommended candidate, finalists confirmed, chosen and baselines tested."""
    create(store)
    results = run(store, study(baselines=BASELINES, finalists=3))
    assert results.search_told == 20
    assert set(results.baselines()) == set(BASELINES)
    assert results.by_origin(RECOMMENDED) is not None
    confirmed = [n for n, split in results.outcomes if split is Split.CONFIRM]
    tested = [n for n, split in results.outcomes if split is Split.TEST]
    assert len(confirmed) == 3 + len(BASELINES)
    assert set(tested) == {store.facts("s")["chosen"], *results.baselines().values()}
    assert store.study("s").status is Status.DONE
    assert store.study("s").owner == ""


def test_the_strategy_sees_the_search_split_alone(store: StudyStore) -> None:
    """Neither confirm nor test is ever told to a strategy; of search everything is, once, the baselines too."""
    create(store)
    made = study(baselines=BASELINES, finalists=3)
    told = []
    tell = made.strategy.tell
    made.strategy.tell = lambda c, o: (told.append((c.number, o)), tell(c, o))[1]  # type: ignore[method-assign]
    results = run(store, made)
    assert sorted(n for n, _ in told) == sorted(results.candidates)
    assert all(o.losses[1] == results.losses(n)[1] for n, o in told if o is not None)  # type: ignore[index]


def test_a_failed_candidate_does_not_stop_a_study(store: StudyStore) -> None:
    """It is recorded as failed with its message, counts as an evaluation, and the rest goes on."""
    create(store)
    results = run(store, study(), Sphere(frozenset({3, 7})))
    assert results.search_told == 20
    assert results.failed == 2
    outcome = results.outcomes[(3, Split.SEARCH)]
    assert isinstance(outcome, Failed)
    assert "made to fail" in outcome.message


def test_failures_in_a_row_stop_a_study(store: StudyStore) -> None:
    """After the stated number the study stops, keeps its log, and can be resumed when the fault is mended."""
    create(store)
    with pytest.raises(StudyFailed, match="5 evaluations in a row failed; the last one: ValueError"):
        run(store, study(failures=5), Sphere(frozenset(range(100))))
    assert store.study("s").status is Status.FAILED
    results = run(store, study())
    assert results.search_told == 20
    assert results.failed == 5


def test_resume_ends_where_an_undisturbed_study_ends(store: StudyStore) -> None:
    """Stopped after any evaluation and resumed, a study asks the same points as one that was never stopped."""
    create(store)

    class Stopping(Sphere):
        def evaluate(self, job: Job) -> Outcome:
            if len(self.seen) == 5:
                raise KeyboardInterrupt
            return super().evaluate(job)

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(store, study(), Stopping())
        assert store.study("s").status is Status.STOPPED
    resumed = run(store, study())
    other = open_store("memory://")
    create(other)
    undisturbed = run(other, study())
    assert resumed.search_told == undisturbed.search_told == 20
    for number, candidate in undisturbed.candidates.items():
        assert np.array_equal(resumed.candidates[number].point, candidate.point)


def test_a_second_controller_is_refused(store: StudyStore) -> None:
    """While one holds the lease, another gets a clear refusal."""
    create(store)
    store.acquire("s", "elsewhere:1:0:abc", 60.0, time.time())
    with pytest.raises(LeaseError, match="elsewhere"):
        run(store, study())


@pytest.mark.parametrize(("wish", "status"), [("pause", Status.PAUSED), ("cancel", Status.STOPPED)])
def test_a_persons_wish_is_obeyed(store: StudyStore, wish: str, status: Status) -> None:
    """A pause or a cancel in the store ends the controller; the wish is marked as done."""
    create(store)

    class Wishing(Sphere):
        def evaluate(self, job: Job) -> Outcome:
            if job.number == 3:
                store.command("s", wish)
            return super().evaluate(job)

    ticks = itertools.count()
    made = Wishing()
    Controller(study(), store, open_pool(Profile(), lambda: made), clock=lambda: float(next(ticks))).run()
    assert store.study("s").status is status
    assert store.open_commands("s") == []
    assert len(made.seen) < 8


@pytest.mark.parametrize("wish", ["pause", "cancel"])
def test_a_wish_for_an_earlier_controller_is_not_obeyed(store: StudyStore, wish: str) -> None:
    """What was asked of a controller that had ended is marked as done, and the resumed study goes on."""
    create(store)
    store.command("s", wish)
    time.sleep(0.01)  # a clock may give the same moment twice
    results = run(store, study())
    assert results.search_told == 20
    assert store.study("s").status is Status.DONE
    assert store.open_commands("s") == []


def test_a_study_out_of_time_still_confirms(store: StudyStore) -> None:
    """When the hours are used up nothing more is searched, and what was found is confirmed and tested."""
    create(store)

    class Slow(Sphere):
        def evaluate(self, job: Job) -> Outcome:
            clock[0] += 600.0
            return super().evaluate(job)

    clock = [time.time()]
    made = Slow()
    Controller(study(finalists=2, hours=1.0), store, open_pool(Profile(), lambda: made), clock=lambda: clock[0]).run()
    searched = [n for n, split in made.seen if split is Split.SEARCH]
    assert 5 <= len(searched) <= 8
    assert any(split is Split.TEST for _, split in made.seen)


def test_a_full_disk_stops_a_study_and_loses_nothing(tmp_path: Path) -> None:
    """One sentence that says so; once there is room again, the study goes on to its full budget."""
    url = f"sqlite:///{tmp_path / 'full.db'}"
    roomy = open_store(url)
    create(roomy)
    roomy.close()
    pages = (tmp_path / "full.db").stat().st_size // 4096
    full = open_store(f"{url}?max_pages={pages + 2}")
    with pytest.raises(StoreError, match="full"):
        run(full, study(evaluations=2000))
    full.close()
    roomy = open_store(url)
    told = Results(OBJECTIVES, roomy.events("s")).search_told
    results = run(roomy, study(evaluations=told + 20))
    roomy.close()
    assert told > 0
    assert results.search_told == told + 20
    assert results.pending == []


def test_a_strategy_is_told_the_guide(store: StudyStore) -> None:
    """With a guide, the strategy sees the guide's losses; results, front and best are of the objective itself."""

    class Both(Sphere):
        def evaluate(self, job: Job) -> Outcome:
            distance = float(((np.asarray(job.work) - 0.7) ** 2).mean())
            coarse, smooth = Score(round(1 - distance, 1)), Score(distance)
            return Scored({"up": coarse}, {"up": {"accuracy": coarse, "loss": smooth}})

    objective = Objective("up", guide=Guide("loss", Direction.MIN, low=0.0))
    store.create("s", "", "", time.time(), describe(SPACE, (objective,), 20, "cma_es"))
    strategy = make_strategy("cma_es", Problem(4, (objective.told,), SPACE.start, 20), 0, {})
    told: list[float] = []
    tell = strategy.tell
    strategy.tell = lambda c, o: (told.append(o.losses[0]), tell(c, o))[1]  # type: ignore[method-assign, union-attr]
    made = Both()
    study_run = StudyRun("s", (objective,), 20, strategy, lambda c: SPACE.values(c.point))  # type: ignore[arg-type]
    results = Controller(study_run, store, open_pool(Profile(), lambda: made)).run()
    assert len(set(told)) > 10
    assert len({float(results.losses(n)[0]) for n in results.scored}) < 6  # type: ignore[index]
    assert read_stored(store, "s").results.guided(results.scored[0]) == results.guided(results.scored[0])
