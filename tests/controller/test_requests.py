"""Requests, costs and gradients from the strategy to the store and back, on black boxes and fake strategies."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.controller.loop import Controller, StudyRun
from mergesearch.controller.outcome import pooled
from mergesearch.plugins import PluginOptions
from mergesearch.pool.base import Job
from mergesearch.pool.profile import Profile, open_pool
from mergesearch.results import RECOMMENDED, Results
from mergesearch.space import SearchSpace
from mergesearch.store.base import StudyStore
from mergesearch.store.memory import MemoryStore
from mergesearch.store.open import open_store
from mergesearch.stored import describe
from mergesearch.strategies.base import Need, Observation, Proposal, Strategy
from mergesearch.types import (
    Candidate,
    Direction,
    Failed,
    Guide,
    Objective,
    Outcome,
    Request,
    Score,
    Scored,
    Split,
    Vector,
    frozen_array,
)

OBJECTIVES = (Objective("up", Direction.MAX), Objective("down", Direction.MIN))
SPACE = SearchSpace.box(3, 0.0, 1.0)
COUNT = 40


@final
class Scripted(Strategy):
    """Proposes what a script says, by turn; recommends the middle, and keeps all that it is told."""

    Options: ClassVar[type[PluginOptions]] = PluginOptions
    MULTI_OBJECTIVE: ClassVar[bool] = True
    NEEDS: ClassVar[frozenset[Need]] = frozenset({Need.EXAMPLES})

    def __init__(self, script: Callable[[int], Request | None], recommends: bool = True) -> None:
        self.script, self.recommends = script, recommends
        self.taken = 0
        self.told: dict[int, Observation | None] = {}

    def ask(self, number: int) -> Proposal | None:
        wanted = self.script(self.taken)
        return None if wanted is None else Proposal(point_of(wanted, self.taken), "sample", wanted)

    def asked(self, candidate: Candidate) -> None:
        self.taken += 1

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        self.told[candidate.number] = observation

    def recommend(self) -> Vector | None:
        return frozen_array(np.full(3, 0.5)) if self.recommends else None

    def diagnostics(self) -> Mapping[str, float]:
        return {}

    def notes(self) -> tuple[str, ...]:
        return tuple(f"{n} told" for n in range(2, len(self.told) + 1, 2))


def point_of(request: Request, turn: int) -> Vector:
    """A point of its own for each turn; a window that continues stays where it began."""
    at = turn if request.continues is None else request.continues
    return np.random.default_rng(at).random(3)


def values_of(point: np.ndarray) -> np.ndarray:
    """Accuracy of each of the examples at a point, float32 (COUNT,)."""
    return (np.sin(np.arange(COUNT) * (1.0 + point.sum())) > 0).astype(np.float32)


class Windows:
    """A worker that scores the asked window of the examples, with gradients of (point - 0.6)² where asked."""

    def __init__(self, fault: str = "") -> None:
        self.jobs: list[Job] = []
        self.fault = fault

    def evaluate(self, job: Job) -> Outcome:
        self.jobs.append(job)
        values = np.asarray(job.work)
        all_of_it = values_of(values)
        kept = all_of_it[job.request.rows(COUNT)]
        up = Score(float(kept.mean()), float(kept.std() / np.sqrt(len(kept))), len(kept))
        down = Score(float(values.sum()))
        loss = float(((values - 0.6) ** 2).sum())
        metrics = {"up": {"accuracy": up, "loss": Score(loss)}, "down": {"size": down, "loss": Score(loss + 1)}}
        gradients = {}
        if job.request.gradient:
            gradients = {"up": 2 * (values - 0.6), "down": np.ones(3)}
            if self.fault == "nan":
                gradients["up"][1] = np.nan
            if self.fault == "missing":
                del gradients["down"]
            if self.fault == "shape":
                gradients["up"] = np.ones(2)
        examples = {"up": kept, "down": np.full(1, down.value, dtype=np.float32)}
        return Scored({"up": up, "down": down}, metrics, examples, gradients)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StudyStore]:
    opened = open_store("memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 's.db'}")
    yield opened
    opened.close()


def run(store: StudyStore, strategy: Strategy, budget: float, worker: Windows | None = None, **more: object) -> Results:
    """A study 's' in `store`, begun or gone on with."""
    objectives = more.pop("objectives", OBJECTIVES)
    made = worker or Windows()
    if not store.studies():
        store.create("s", "", "", time.time(), describe(SPACE, objectives, budget, "scripted"))  # type: ignore[arg-type]

    def work(candidate: Candidate) -> Vector:
        return np.full(3, 0.5) if candidate.point is None else SPACE.values(candidate.point)

    study = StudyRun("s", objectives, budget, strategy, work, **more)  # type: ignore[arg-type]
    return Controller(study, store, open_pool(Profile(), lambda: made)).run()


def search_cost(results: Results) -> float:
    return sum(c.cost for c in results.candidates.values() if c.point is not None)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([(1.0, ""), (0.25, ""), (1 / 3, "kl"), (1.0, "loss"), (0.1, "")]), min_size=1, max_size=8),
    st.sampled_from([1.0, 4.0, 7.5, 12.0]),
    st.sampled_from([1.0, 2.5, 3.0]),
    st.booleans(),
)
def test_a_search_keeps_its_budget(script: list[tuple[float, str]], budget: float, dear: float, last: bool) -> None:
    """The cost never exceeds the budget, what is recommended is measured whole and last, plain requests use all."""

    def wanted(turn: int) -> Request:
        share, gradient = script[turn % len(script)]
        return Request(share, gradient="loss" if gradient else "")

    results = run(MemoryStore(), Scripted(wanted, last), budget, gradient_cost=dear, baselines=("baseline:base",))
    assert results.cost_asked == pytest.approx(search_cost(results))
    assert results.cost_asked == results.cost_told <= budget + 1e-9
    for candidate in results.candidates.values():
        if candidate.point is not None:
            assert candidate.cost == candidate.request.cost(dear)
    if all(part == (1.0, "") for part in script):
        assert results.search_told == results.cost_told == int(budget)
    number = results.by_origin(RECOMMENDED)
    assert (number is not None) == last
    assert number in (None, len(results.candidates) - 1)


def test_only_whole_evaluations_are_compared(store: StudyStore) -> None:
    """Parts are told to the strategy, but neither front nor best nor finalists know them; curves know their cost."""
    shares = [0.25, 1.0, 0.5, 1.0]
    worker = Windows()
    results = run(store, Scripted(lambda turn: Request(shares[turn % 4]), False), 5.5, worker, finalists=4)
    assert [results.candidates[n].request.share for n in results.scored] == [1.0] * 4
    assert set(results.front) <= set(results.scored)
    assert results.costs == [1.25, 2.75, 4.0, 5.5]
    assert results.search_told == 8
    held_out = [job for job in worker.jobs if job.split is not Split.SEARCH]
    assert held_out
    assert all(job.request == Request() for job in held_out)
    assert all(results.candidates[job.number].request.complete for job in held_out)


def test_a_window_that_continues_is_recorded_whole(store: StudyStore) -> None:
    """Scores, errors, counts and examples of the joined windows are those of one evaluation; the strategy is told so,
    live and in a replay; a value without examples stays one value."""
    script = [Request(0.25), Request(0.5, 0.25, continues=0), Request(0.25, 0.75, continues=1)]
    strategy = Scripted(lambda turn: script[turn] if turn < 3 else None, recommends=False)
    # The third window is at the point of the first, which `point_of` gives turn 0 and its successor alike.
    strategy.ask = lambda number: (  # type: ignore[method-assign]
        Proposal(point_of(script[0], 0), "race", script[strategy.taken]) if strategy.taken < 3 else None
    )
    results = run(store, strategy, 10.0)
    whole = values_of(results.candidates[0].point)  # type: ignore[arg-type]
    assert results.scored == [2]
    assert results.cost_told == pytest.approx(1.0)
    for number, end in ((0, 10), (1, 30), (2, 40)):
        outcome = results.outcome(number)
        assert outcome is not None
        assert outcome.scores["up"].n == end
        assert outcome.scores["up"].value == pytest.approx(whole[:end].mean())
        assert outcome.scores["up"].stderr == pytest.approx(whole[:end].std() / np.sqrt(end))
        assert outcome.metrics["up"]["accuracy"] == outcome.scores["up"]
        assert outcome.scores["down"].n == 1
        assert np.array_equal(store.examples("s", number, Split.SEARCH)["up"], whole[:end])
        told = strategy.told[number]
        assert told is not None
        assert told.examples is not None
        assert np.array_equal(told.examples[0], -whole[:end])
        assert told.examples[1].tolist() == pytest.approx([outcome.scores["down"].value])
        assert told.n.tolist() == [end, 1]
    again = Scripted(lambda turn: None, recommends=False)
    run(store, again, 10.0)
    assert again.told.keys() == strategy.told.keys()
    for number, told in again.told.items():
        before = strategy.told[number]
        assert told is not None
        assert before is not None
        assert told.losses.tobytes() == before.losses.tobytes()
        assert told.stderr.tobytes() == before.stderr.tobytes()
        assert all(a.tobytes() == b.tobytes() for a, b in zip(told.examples, before.examples, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (Request(0.25), Request(0.5, 0.5, continues=0)),  # a hole
        (Request(0.25, 0.25), Request(0.5, 0.5, continues=0)),  # no beginning
        (Request(0.25), Request(0.5, 0.25, continues=7)),  # no such candidate
    ],
)
def test_what_has_no_beginning_fails_with_a_sentence(store: StudyStore, earlier: Request, later: Request) -> None:
    """A window that continues nothing is recorded as failed; the study goes on."""
    script = [earlier, later]
    strategy = Scripted(lambda turn: Request(), recommends=False)
    strategy.ask = lambda number: Proposal(  # type: ignore[method-assign]
        point_of(earlier, 0), "race", script[strategy.taken] if strategy.taken < 2 else Request()
    )
    results = run(store, strategy, 3.0)
    outcome = results.outcomes[(1, Split.SEARCH)]
    assert isinstance(outcome, Failed)
    assert outcome.kind == "no_beginning"
    assert f"continues candidate {later.continues}, which was not scored at the same point" in outcome.message
    assert len(results.scored) == 2


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30), st.integers(1, 29))
def test_pooled_scores_are_those_of_all_examples(values: list[float], cut: int) -> None:
    """Mean, standard error and n of two windows joined are those of the whole."""
    cut = min(cut, len(values) - 1)

    def score(part: list[float]) -> Score:
        return Score(float(np.mean(part)), float(np.std(part) / np.sqrt(len(part))), len(part))

    joined, whole = pooled(score(values[:cut]), score(values[cut:])), score(values)
    assert joined.value == pytest.approx(whole.value, abs=1e-9)
    if len(values) > 2 or values[0] != values[1]:
        assert joined.n == whole.n
        assert joined.stderr == pytest.approx(whole.stderr, abs=1e-6)


def test_gradients_reach_the_strategy_live_and_in_a_replay(store: StudyStore) -> None:
    """Guides are the named loss of each objective, gradients (M, D), bit for bit the same after a resume; they cost
    what was said; evaluations without them carry none."""
    script = [Request(gradient="loss"), Request(0.5, gradient="loss"), Request()]
    strategy = Scripted(lambda turn: script[turn % 3], recommends=False)
    results = run(store, strategy, 5.5, gradient_cost=3.0)
    assert [results.candidates[n].cost for n in range(3)] == [3.0, 1.5, 1.0]
    assert results.scored == [0, 2]
    plain = strategy.told[2]
    assert plain is not None
    assert plain.guides is None
    assert plain.gradients is None
    again = Scripted(lambda turn: None, recommends=False)
    run(store, again, 5.5, gradient_cost=3.0)
    for number in (0, 1):
        point = results.candidates[number].point
        for told in (strategy.told[number], again.told[number]):
            assert told is not None
            assert told.gradients is not None
            assert told.guides is not None
            assert told.gradients.dtype == np.float64
            assert np.array_equal(told.gradients, [2 * (SPACE.values(point) - 0.6), np.ones(3)])  # type: ignore[arg-type]
            assert told.guides[1] == told.guides[0] + 1
    assert strategy.told[0].gradients.tobytes() == again.told[0].gradients.tobytes()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fault", "kind"), [("nan", "not_finite"), ("missing", "no_gradient"), ("shape", "no_gradient")]
)
def test_a_gradient_that_is_none_fails_the_candidate(fault: str, kind: str) -> None:
    """A strategy that asked for gradients is told them, or that the evaluation failed: never half of it."""
    strategy = Scripted(lambda turn: Request(gradient="loss" if turn == 0 else ""), recommends=False)
    results = run(MemoryStore(), strategy, 5.0, Windows(fault))
    outcome = results.outcomes[(0, Split.SEARCH)]
    assert isinstance(outcome, Failed)
    assert outcome.kind == kind
    assert strategy.told[0] is None
    assert results.search_told == 3


def test_a_guide_is_told_beside_gradients() -> None:
    """An objective's guide is what the losses are; of examples of another metric nothing is told."""
    objectives = (Objective("up", guide=Guide("loss", Direction.MIN)), OBJECTIVES[1])
    strategy = Scripted(lambda turn: Request(gradient="loss"), recommends=False)
    run(MemoryStore(), strategy, 3.0, objectives=objectives)
    told = strategy.told[0]
    assert told is not None
    assert told.guides is not None
    assert told.losses[0] == told.guides[0]
    assert told.examples is None


def test_notes_are_kept_and_logged_once(store: StudyStore, caplog: pytest.LogCaptureFixture) -> None:
    """Every sentence of the strategy stands in the store; each is logged when it is new, also across a resume."""
    with caplog.at_level(logging.INFO, "mergesearch"):
        run(store, Scripted(lambda turn: Request() if turn < 5 else None, recommends=False), 8.0)
        assert store.facts("s")["notes"] == ["2 told", "4 told"]
        run(store, Scripted(lambda turn: Request(), recommends=False), 8.0)
    assert store.facts("s")["notes"] == ["2 told", "4 told", "6 told", "8 told"]
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"study 's': {n} told" for n in (2, 4, 6, 8)]


def test_ask_is_not_called_where_nothing_can_fit() -> None:
    """When one evaluation is left and something is recommended, no dear proposal is thought out in vain."""
    asks = []

    def wanted(turn: int) -> Request:
        asks.append(turn)
        return Request()

    run(MemoryStore(), Scripted(wanted), 4.0)
    assert asks == [0, 1, 2]
