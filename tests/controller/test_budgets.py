"""Limits of a search: exact, checked before an ask, the same after any crash, and raised on a resume."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from controller.black_box import BASELINES, OBJECTIVES, SPACE, Killed, Killing, Sphere, points, run, study

import mergesearch
from mergesearch.controller.budget import Ledger
from mergesearch.controller.loop import Controller
from mergesearch.errors import SpecError
from mergesearch.pool.base import Job
from mergesearch.pool.profile import Profile, open_pool
from mergesearch.results import RECOMMENDED, Results
from mergesearch.store.base import StudyStore
from mergesearch.store.memory import MemoryStore
from mergesearch.store.open import open_store
from mergesearch.stored import describe
from mergesearch.study.limits import as_facts, changed, current, is_higher, settle
from mergesearch.study.spec import Budget, Plateau
from mergesearch.types import Asked, Candidate, Failed, Outcome, Request, Score, Scored, Split, Status, Timing, Told

COUNT = 30


def examples(request: Request) -> int:
    """Of two objectives with 20 and 10 examples."""
    return len(request.rows(20)) + len(request.rows(10))


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StudyStore]:
    opened = open_store("memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 's.db'}")
    yield opened
    opened.close()


LIMITS: list[tuple[dict[str, Any], int, str]] = [
    ({}, 20, "evaluations"),
    ({"examples": 11 * COUNT + 5, "count": examples}, 11, "examples"),
    ({"gpu_seconds": 25.0}, 12, "gpu_seconds"),
    ({"target": {"up": 0.97}}, 0, "target"),
    ({"plateau": Plateau(evaluations=4, gain=10.0)}, 0, "plateau"),
]


@pytest.mark.parametrize(("limits", "asked", "reason"), LIMITS)
def test_each_limit_ends_the_search_and_says_so(limits: dict[str, Any], asked: int, reason: str) -> None:
    """Exactly as many evaluations as fit, the last of them the recommended one; then confirm and test as ever."""
    store = MemoryStore()
    results = run(store, study(finalists=2, baselines=BASELINES[:0], **limits), Sphere(gpu=2.0))
    assert store.facts("s")["ended"] == reason
    assert asked in (0, results.search_asked)
    assert results.search_asked == results.search_told
    assert store.study("s").status is Status.DONE
    assert any(split is Split.TEST for _, split in results.outcomes)
    if asked:
        assert results.by_origin(RECOMMENDED) == asked - 1


def test_a_target_stops_the_search_at_the_first_that_reaches_it() -> None:
    """One complete candidate that is at least as good in every objective named; nothing is asked after it."""
    store = MemoryStore()
    target = {"up": 0.97, "down": 0.08}
    results = run(store, study("random", 200, target=target))
    reached = [
        all(results.objectives[i].loss(target[o.name]) >= results.losses(n)[i] for i, o in enumerate(OBJECTIVES))  # type: ignore[index]
        for n in results.scored
    ]
    assert reached[:-1] == [False] * (len(reached) - 1)
    assert reached[-1]
    assert 1 < len(reached) < 200


def test_a_plateau_of_the_hypervolume_is_what_it_says() -> None:
    """The search ends when the normalised hypervolume grew by less than the gain over the last evaluations, not
    before."""
    store = MemoryStore()
    results = run(store, study("random", 300, baselines=BASELINES, plateau=Plateau(evaluations=12, gain=0.02)))
    assert store.facts("s")["ended"] == "plateau"
    folded, volumes = Results(OBJECTIVES), []
    for event in store.events("s"):
        folded.add(event)
        if isinstance(event, Told) and event.candidate.point is not None:
            volumes.append(folded.hypervolume())
    grown = [b - a for a, b in zip(volumes, volumes[12:], strict=False)]
    assert all(gain >= 0.02 for gain in grown[:-1])
    assert grown[-1] < 0.02
    assert results.search_told == len(volumes) < 300


def test_a_plateau_of_one_objective_is_measured_by_its_loss() -> None:
    """Where there is no hypervolume, it is the best weighted loss that has to fall."""

    def function(values: np.ndarray) -> dict[str, float]:
        return {"flat": 0.5}

    space = mergesearch.SearchSpace.box(2, 0.0, 1.0)
    limits = {"plateau": {"evaluations": 7}}
    result = mergesearch.search(function, space, {"flat": "max"}, "random", 50, limits=limits)
    assert len(result.evaluations) == 8


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"examples": 3}, "limited by hours, target and plateau, not by 'examples'"),
        ({"target": {"flt": 1}}, "no objective is called 'flt'; did you mean 'flat'"),
        ({"hours": -1}, "hours: Input should be greater than 0"),
    ],
)
def test_bad_limits_of_a_search_are_one_sentence(limits: dict[str, object], sentence: str) -> None:
    """What is wrong and what was meant."""
    space = mergesearch.SearchSpace.box(2, 0.0, 1.0)
    with pytest.raises(SpecError, match=sentence):
        mergesearch.search(lambda v: {"flat": 0.0}, space, {"flat": "max"}, "random", 5, limits=limits)


def test_what_is_under_way_counts_at_the_rate_so_far() -> None:
    """Three GPU-seconds an evaluation, two under way: 3 told + 2 × 3; a half evaluation more would take 1.5. One from
    the cache took nothing and says nothing about the rate. What is told counts once."""
    results = Results(OBJECTIVES)
    ledger = Ledger(Budget(gpu_seconds=10.0, examples=1000), results, examples)

    def take(event: Asked | Told) -> None:
        results.add(event)
        ledger.take(event)

    def told(number: int, seconds: float, worker: str = "w") -> Told:
        scores = {o.name: Score(0.5) for o in OBJECTIVES}
        outcome = Scored(scores, timing=Timing(gpu=seconds), worker=worker)
        return Told(0, candidates[number], Split.SEARCH, outcome)

    candidates = [Candidate(n, SPACE.start, request=Request(share=0.5), cost=0.5) for n in range(5)]
    for candidate in candidates[:4]:
        take(Asked(0, candidate, Split.SEARCH))
    take(told(0, 1.5))
    take(told(3, 0.0, "cache"))
    seen = {amount.name: amount for amount in ledger.amounts(Request(share=0.5), 0.5)}
    assert (seen["gpu_seconds"].used, seen["gpu_seconds"].proposed, seen["gpu_seconds"].whole) == (4.5, 1.5, 3.0)
    assert (seen["examples"].used, seen["examples"].proposed, seen["examples"].whole) == (45, 15, 30)
    take(told(1, 1.5))
    take(told(2, 1.5))
    (amount,) = [a for a in ledger.amounts(None, 0.0) if a.name == "gpu_seconds"]
    assert (amount.used, amount.proposed) == (4.5, 0.0)


def outcome_of_a_kill(store: StudyStore, limits: dict[str, Any], seed: int, kind: str) -> Results:
    """The study, killed before or after one write in ten, until it is done."""
    generator = np.random.default_rng(seed)
    for _ in range(400):

        def when(_: int) -> str:
            return generator.choice(["before", "after"]) if generator.random() < 0.1 else ""

        try:
            return run(Killing(store, when), study(kind, finalists=2, baselines=BASELINES, **limits), Sphere(gpu=2.0))  # type: ignore[arg-type]
        except Killed:
            store.release(store.acquire("s", "tests", 1.0, replacing=store.study("s").owner))
    raise AssertionError("never finished")


@pytest.mark.parametrize(("limits", "asked", "reason"), LIMITS)
@pytest.mark.parametrize("kind", ["cma_es", "random"])
def test_a_study_that_is_killed_again_and_again_ends_as_an_undisturbed_one(
    limits: dict[str, Any], asked: int, reason: str, kind: str
) -> None:
    """The same candidates, points, choice, reason and counts, whatever write the controller died at."""
    calm = MemoryStore()
    undisturbed = run(calm, study(kind, finalists=2, baselines=BASELINES, **limits), Sphere(gpu=2.0))
    for seed in range(4):
        store = MemoryStore()
        results = outcome_of_a_kill(store, limits, seed, kind)
        assert points(results) == points(undisturbed)
        assert set(results.outcomes) == set(undisturbed.outcomes)
        assert results.pending == []
        assert {key: store.facts("s")[key] for key in ("chosen", "ended")} == {
            "chosen": calm.facts("s")["chosen"],
            "ended": reason,
        }


RAISES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"evaluations": 12}, {"evaluations": 20}),
    ({"examples": 10 * COUNT, "count": examples}, {"examples": 15 * COUNT, "count": examples}),
    ({"gpu_seconds": 24.0}, {"gpu_seconds": None}),
    ({"target": {"up": 0.97}}, {}),
    ({"plateau": Plateau(evaluations=3, gain=10.0)}, {"plateau": None}),
]


@pytest.mark.parametrize(("first", "second"), RAISES)
def test_a_raised_budget_goes_on(store: StudyStore, first: dict[str, Any], second: dict[str, Any]) -> None:
    """A study that is done asks exactly what the new limit leaves; what was asked stands, with a new recommendation,
    new finalists confirmed, a choice made anew, and nothing confirmed or tested twice."""
    worker = Sphere(gpu=2.0)
    more = {"finalists": 2, "baselines": BASELINES}
    before = run(store, study(**first, **more), worker)
    kept, asked = points(before), before.search_asked
    results = run(store, study(**second, **more), worker)
    assert {n: p for n, p in points(results).items() if n in kept} == kept
    assert results.search_asked > asked
    recommended = results.by_origin(RECOMMENDED)
    assert recommended is not None
    assert recommended >= len(before.candidates)
    assert (recommended, Split.CONFIRM) in results.outcomes
    assert len(worker.seen) == len(set(worker.seen))
    expected = 15 if "examples" in second else 20
    assert results.search_asked == expected
    assert store.facts("s")["ended"] == ("examples" if "examples" in second else "evaluations")
    assert (store.facts("s")["chosen"], Split.TEST) in results.outcomes


def test_a_raised_study_is_the_same_however_often_it_is_killed() -> None:
    """Raised from 9 to 15 and to 18 evaluations: the same points whether or not controllers died meanwhile."""
    calm, stormy = MemoryStore(), MemoryStore()
    for evaluations in (9, 15, 18):
        undisturbed = run(calm, study(evaluations=evaluations, finalists=2))
        generator = np.random.default_rng(evaluations)
        while True:
            try:
                torn = Killing(
                    stormy, lambda _, g=generator: g.choice(["before", "after"]) if g.random() < 0.15 else ""
                )  # type: ignore[misc]
                results = run(torn, study(evaluations=evaluations, finalists=2))  # type: ignore[arg-type]
                break
            except Killed:
                stormy.release(stormy.acquire("s", "tests", 1.0, replacing=stormy.study("s").owner))
        assert results.search_told == evaluations
        assert points(results) == points(undisturbed)
        assert stormy.facts("s")["chosen"] == calm.facts("s")["chosen"]
        assert stormy.facts("s")["budget"] == evaluations


def test_a_lower_budget_than_what_was_asked_ends_the_search(store: StudyStore) -> None:
    """It is accepted, kept, and nothing more is asked; neither is a recommendation."""

    class Stopping(Sphere):
        def evaluate(self, job: Job) -> Outcome:
            if len(self.seen) == 10:
                raise KeyboardInterrupt
            return super().evaluate(job)

    with pytest.raises(KeyboardInterrupt):
        run(store, study(), Stopping())
    results = run(store, study(evaluations=5))
    assert results.search_told == 11
    assert results.by_origin(RECOMMENDED) is None
    assert store.facts("s")["budget"] == 5
    assert store.study("s").status is Status.DONE


def test_hours_count_the_time_that_controllers_ran(store: StudyStore) -> None:
    """Over two controllers together, and more of them are given on a resume."""

    class Slow(Sphere):
        def evaluate(self, job: Job) -> Outcome:
            clock[0] += 600.0
            if len(self.seen) == 3:
                self.seen.append((-1, job.split))
                raise KeyboardInterrupt
            return super().evaluate(job)

    clock = [0.0]
    store.create("s", "", "", facts=describe(SPACE, OBJECTIVES, 50, "random"))
    made = Slow()

    def go(hours: float) -> Results:
        return Controller(
            study("random", 50, hours=hours), store, open_pool(Profile(), lambda: made), clock=lambda: clock[0]
        ).run()

    with pytest.raises(KeyboardInterrupt):
        go(1.0)
    first = go(1.0)
    assert first.search_told in (9, 10)  # the clock here is the test's own, what the store adds are real milliseconds
    assert store.facts("s")["ended"] == "hours"
    assert go(2.0).search_told > first.search_told


def test_failed_evaluations_count(store: StudyStore) -> None:
    """They took their examples and seconds; the study does not end with more than its budget."""

    class Failing(Sphere):
        def evaluate(self, job: Job) -> Outcome:
            if job.number % 3 == 1:
                return Failed("ValueError", "made to fail")
            return super().evaluate(job)

    results = run(store, study("random", gpu_seconds=20.0), Failing(gpu=2.0))
    assert results.search_told == 10


def test_limits_are_changed_by_name_and_kept_as_facts() -> None:
    """None leaves a limit, 'off' takes it away, and facts give back the same budget."""
    budget = Budget(hours=2.0, plateau=Plateau(evaluations=30))
    made = changed(budget, {"evaluations": 400, "hours": None, "plateau": "off", "target": {"up": 0.9}}, ("up",))
    assert (made.evaluations, made.hours, made.plateau, made.target) == (400, 2.0, None, {"up": 0.9})
    assert current(budget, as_facts(made)) == made
    assert current(budget, {"budget": 100}) == budget.model_copy(update={"evaluations": 100})
    assert is_higher(made, budget)
    assert not is_higher(budget.model_copy(update={"evaluations": 5, "hours": 1.0}), budget)
    assert is_higher(budget.model_copy(update={"hours": None}), budget)
    assert settle(made, as_facts(made)) == ({}, False)
    assert settle(made, {"budget": 10})[1]


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"evals": 3}, "unknown limit 'evals'; did you mean 'evaluations'"),
        ({"evaluations": "off"}, "evaluations cannot be 'off'"),
        ({"evaluations": 0}, "evaluations: Input should be greater than or equal to 1"),
        ({"target": {"upp": 1.0}}, "no objective is called 'upp'; did you mean 'up'"),
        ({"plateau": {"gain": 0.1}}, "key 'evaluations' is missing"),
    ],
)
def test_bad_limits_are_one_sentence(limits: dict[str, object], sentence: str) -> None:
    """Which one, what was given, what is allowed."""
    with pytest.raises(SpecError, match=sentence):
        changed(Budget(), limits, ("up",))


def test_a_run_has_its_budget_as_one_value() -> None:
    """With a budget that is no whole number, as a black box may have."""
    made = replace(study(), evaluations=3.5, hours=1.0)
    assert as_facts(made.budget) == {
        "budget": 3.5,
        "limits": {"examples": None, "gpu_seconds": None, "hours": 1.0, "target": {}, "plateau": None},
    }
