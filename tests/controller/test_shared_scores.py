"""What a store has scored is not scored again: on black boxes with digests, and on a study of real tiny models."""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from controller.black_box import BASELINES, OBJECTIVES, SPACE, Killed, Killing, OnGpu, Sphere, points, run, study, work
from export.small_study import STUDY, make_models, resolved_study

from mergesearch.controller.launch import launch, resume
from mergesearch.controller.lazy import LazyPool
from mergesearch.controller.loop import Controller, StudyRun
from mergesearch.controller.observer import Observer, Progress
from mergesearch.errors import PoolError
from mergesearch.pool.base import Job, WorkerPool
from mergesearch.results import Results
from mergesearch.store.base import StudyStore
from mergesearch.store.memory import MemoryStore
from mergesearch.store.open import open_store
from mergesearch.stored import describe, read_stored
from mergesearch.types import Candidate, Failed, Outcome, Request, Scored, Split, Told


def digests(candidate: Candidate, split: Split) -> dict[str, str]:
    """What a candidate of the black box is known by."""
    what = [work(candidate).tolist(), split.value, candidate.request.share]
    return {o.name: sha256(f"{o.name} {what}".encode()).hexdigest() for o in OBJECTIVES}


def again(store: StudyStore, name: str, made: StudyRun, pool: WorkerPool, *observers: Observer) -> Results:
    """The same study under another name in the same store."""
    if name not in [record.name for record in store.studies()]:
        store.create(name, "", "", facts=describe(SPACE, OBJECTIVES, made.evaluations, "cma_es"))
    return Controller(replace(made, name=name), store, pool, observers).run()


def no_pool() -> WorkerPool:
    """A pool that is not to be opened."""
    raise AssertionError("a worker was asked for")


class Watching(Observer):
    """Collects what it is told."""

    def __init__(self) -> None:
        self.attempts: list[int] = []
        self.repeats: list[Told] = []
        self.progress: list[Progress] = []

    def evaluated(self, study: str, told: Told, attempt: int) -> None:
        self.attempts.append(attempt)

    def repeated(self, study: str, told: Told, attempt: int) -> None:
        self.repeats.append(told)

    def progressed(self, progress: Progress) -> None:
        self.progress.append(progress)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StudyStore]:
    opened = open_store("memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 's.db'}")
    yield opened
    opened.close()


def test_a_study_over_a_finished_studys_candidates_takes_no_worker(store: StudyStore) -> None:
    """No pool is opened, evaluations count as ever, results are the same on every split; nothing counts as work."""
    more = {"finalists": 2, "baselines": BASELINES, "digests": digests}
    first = run(store, study(**more), Sphere(gpu=2.0))
    seen = Watching()
    limited = study(**more, examples=3, gpu_seconds=1.0, count=lambda _: 1)
    second = again(store, "t", limited, LazyPool(no_pool), seen)
    assert points(second) == points(first)
    assert set(second.outcomes) == set(first.outcomes)
    for (number, split), outcome in first.outcomes.items():
        assert isinstance(outcome, Scored)
        found = second.outcome(number, split)
        assert found is not None
        assert (found.scores, found.metrics, found.worker) == (outcome.scores, outcome.metrics, "cache")
        assert (found.timing.gpu, found.timing.build, found.timing.score) == (0.0, 0.0, 0.0)
    assert store.facts("t")["chosen"] == store.facts("s")["chosen"]
    assert second.search_told == first.search_told == 20
    assert seen.attempts == [0] * len(second.outcomes)
    assert seen.progress[-1].usage.workers == 0


def test_without_digests_nothing_is_taken_from_the_store(store: StudyStore) -> None:
    """A study that says so, or a black box: every evaluation is made."""
    run(store, study(digests=digests))
    worker = Sphere()
    again(store, "t", study(), OnGpu(worker))
    assert len(worker.seen) == 20


def test_two_candidates_of_one_study_with_one_recipe_are_scored_once() -> None:
    """The second is told what the first scored; both count."""
    store, worker = MemoryStore(), Sphere()

    def rounded(candidate: Candidate) -> np.ndarray:
        return np.round(np.repeat(work(candidate)[:1], 4))

    def known(candidate: Candidate, split: Split) -> dict[str, str]:
        return digests(Candidate(0, rounded(candidate)), split)

    results = run(store, replace(study("random", 12), work=rounded, digests=known), worker)
    assert results.search_told == 12
    assert len(worker.seen) == 2


def test_a_failure_is_not_shared(store: StudyStore) -> None:
    """What failed is tried again by the next study; what worked is not."""

    class Failing(Sphere):
        def evaluate(self, job: Job) -> Outcome:
            failed = job.number in (3, 5)
            return Failed("ValueError", "made to fail") if failed else super().evaluate(job)

    run(store, study("random", digests=digests), Failing())
    worker = Sphere()
    results = again(store, "t", study("random", digests=digests), OnGpu(worker))
    assert sorted(n for n, _ in worker.seen) == [3, 5]
    assert results.failed == 0


def test_a_kill_between_ask_and_the_told_from_the_cache_loses_nothing() -> None:
    """A study from the cache alone, killed at every write in turn, ends as an undisturbed one, with no worker."""
    more = {"finalists": 1, "digests": digests}
    calm = MemoryStore()
    first = run(calm, study(evaluations=4, **more))
    for fatal in range(30):
        torn = Killing(calm, lambda write, at=fatal: "after" if write == at else "")  # type: ignore[misc]
        name = f"t{fatal}"
        try:
            again(torn, name, study(evaluations=4, **more), LazyPool(no_pool))  # type: ignore[arg-type]
            break
        except Killed:
            calm.release(calm.acquire(name, "tests", 1.0, replacing=calm.study(name).owner))
        results = again(calm, name, study(evaluations=4, **more), LazyPool(no_pool))
        assert points(results) == points(first)
        assert set(results.outcomes) == set(first.outcomes)
    assert fatal > 15


def test_a_lazy_pool_says_why_it_cannot_be_opened() -> None:
    """From its first job on; the study is stopped with the sentence, and its ask stands."""

    def broken() -> WorkerPool:
        raise PoolError("the cluster is gone")

    store = MemoryStore()
    store.create("s", "", "", facts=describe(SPACE, OBJECTIVES, 20, "cma_es"))
    with pytest.raises(PoolError, match="the cluster is gone"):
        Controller(study(), store, LazyPool(broken)).run()
    record = store.study("s")
    assert (record.status.value, record.message, record.owner) == ("stopped", "the cluster is gone", "")
    assert run(store, study()).search_told == 20


SHORT = "strategy: {kind: random}\nbudget: {evaluations: 3}\nholdout: {finalists: 2}\nbaselines: {lambdas: [0.3]}"


def text_of(name: str, more: str = "") -> str:
    """The small study, short, under a name."""
    return STUDY.replace("name: small", f"name: {name}").replace("store: memory://", f"{SHORT}\n{more}store: memory://")


@pytest.mark.timeout(120)
def test_a_real_study_is_scored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second study of the same models and data takes every score from the store, examples included; with
    `cache: false` it scores again and comes to the same; other data are not mistaken for it."""
    make_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    store = MemoryStore()
    for name, more in (("one", ""), ("two", ""), ("three", "cache: false\n")):
        (tmp_path / "s.yaml").write_text(text_of(name, more))
        launch("s.yaml", store=store)
    one, two, three = (read_stored(store, name).results for name in ("one", "two", "three"))
    assert {o.worker for o in two.outcomes.values()} == {"cache"}
    assert {o.worker for o in three.outcomes.values()} == {"inline"}
    within = {n for (n, _), o in one.outcomes.items() if o.worker == "cache"}
    assert within <= {one.by_origin("start"), one.by_origin("baseline:lambda:0.3")}  # one and the same recipe
    for key, outcome in one.outcomes.items():
        assert isinstance(outcome, Scored)
        for other in (two, three):
            assert other.outcomes[key].scores == outcome.scores  # type: ignore[union-attr]
        for objective, values in store.examples("one", *key).items():
            assert np.array_equal(values, store.examples("two", *key)[objective])
    resumed = resume("two", store, limits={"evaluations": 5})
    assert resumed.results.search_told == 5
    made = [n for (n, split), o in resumed.results.outcomes.items() if split is Split.SEARCH and o.worker == "inline"]
    assert len(made) == 2
    data = dict(np.load("d.npz"))
    np.savez("d.npz", **{name: values[::-1] for name, values in data.items()})
    (tmp_path / "s.yaml").write_text(text_of("four"))
    four = launch("s.yaml", store=store).results
    assert next(iter(four.outcomes.values())).worker == "inline"


def test_digests_know_what_decides_a_score(tmp_path: Path) -> None:
    """The same for the same recipe of the same study file; another for each thing that changes a score."""
    from mergesearch.study.digests import StudyDigests, example_counter

    make_models(tmp_path)
    point = np.full(4, 0.25)

    def of(text: str = STUDY, request: Request = Request(), split: Split = Split.SEARCH) -> dict[str, str]:
        resolved = resolved_study(tmp_path, text)
        at = np.resize(point, resolved.space.dim)
        return dict(StudyDigests(resolved)(Candidate(0, at, request=request), split))

    first = of()
    assert set(first) == {"d", "l"}
    assert first == of(STUDY.replace("name: small", "name: other"))
    changes = [
        of(STUDY.replace("{groups: block}", "{groups: model}")),
        of(STUDY.replace("{groups: block}", "{groups: block, coefficient: {low: 0, high: 2}}")),
        of(STUDY.replace("task_arithmetic", "ties")),
        of(STUDY + "strategy: {seed: 1}\n"),
        of(request=Request(0.5)),
        of(request=Request(0.5, 0.5)),
        of(request=Request(gradient="loss")),
        of(split=Split.TEST),
    ]
    for name in first:
        known = [first[name], *(change[name] for change in changes)]
        assert len(set(known)) == len(known)
    fewer = of(
        STUDY.replace(
            "search: 40, confirm: 20, test: 30}}\n    head: digits",
            "search: 30, confirm: 20, test: 30}}\n    head: digits",
        )
    )
    assert fewer["l"] == first["l"]
    assert fewer["d"] != first["d"]
    assert of(request=Request(0.5, 0.5, continues=0)) == {}
    (tmp_path / "models" / "digits" / "preprocessor_config.json").write_text("{}")
    processed = of()
    assert processed["l"] == first["l"]
    assert processed["d"] != first["d"]
    kind = "operator: task_arithmetic"
    assert kind in STUDY
    fisher = STUDY.replace(kind, f"operator: fisher\n  statistics: {{digits: {tmp_path}/f}}")
    (tmp_path / "f").write_bytes(b"one")
    measured = of(fisher)
    (tmp_path / "f").write_bytes(b"other")
    assert not set(of(fisher).values()) & set(measured.values())
    count = example_counter(resolved_study(tmp_path))
    assert (count(Request()), count(Request(0.25)), count(Request(0.25, gradient="loss"))) == (80, 20, 20)
