"""The pool whose workers are elsewhere: what every pool promises, and what outlives it."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from contracts.pool import (  # noqa: F401 - tests of the contract; the others are about workers of ours that cannot start
    Opened,
    finish,
    jobs,
    test_a_fault_is_that_job_s_alone,
    test_a_pool_says_how_busy_it_was,
    test_a_request_and_a_gradient_pass_whole,
    test_a_worker_s_own_timing_is_kept,
    test_closing_is_final_and_may_be_repeated,
    test_every_job_comes_back_once,
    test_nothing_to_wait_for,
)
from controller.black_box import Sphere
from controller.black_box import run as run_study
from controller.black_box import study as study_run

from mergesearch.controller.loop import Controller
from mergesearch.errors import PoolError
from mergesearch.pool.base import Job, WorkerFactory, WorkerPool
from mergesearch.pool.external import ExternalPool, Options, body_of
from mergesearch.pool.profile import open_pool, parse_profile
from mergesearch.recipe import Recipe
from mergesearch.store.memory import MemoryStore
from mergesearch.store.offering import State
from mergesearch.types import Failed, Request, Score, Scored, Split, Status

SEARCH = Split.SEARCH
MANY = parse_profile({"pool": "external", "offers": 4}, "test")


def scorer(store: MemoryStore, study: str, factory: WorkerFactory, stop: threading.Event) -> None:
    """A program elsewhere: it leases what is offered and tells what a worker makes of it."""
    worker = factory()
    while not stop.wait(0.01):
        for offer in store.offers.lease(study, "elsewhere", 1):
            body = json.loads(offer.body)
            point = None if body["point"] is None else np.array(body["point"])
            job = Job(offer.number, offer.split, np.array(body["values"]), Request(**body["request"]), point)
            outcome = worker.evaluate(job)
            store.offers.tell(study, offer.number, offer.split, offer.token, outcome)


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens pools with a scorer beside each, and closes them."""
    stop, threads, pools = threading.Event(), list[threading.Thread](), list[WorkerPool]()

    def open_one(factory: WorkerFactory) -> WorkerPool:
        store = MemoryStore()
        store.create("", "", "")
        threads.append(threading.Thread(target=scorer, args=(store, "", factory, stop)))
        threads[-1].start()
        pools.append(open_pool(MANY, factory, store))
        return pools[-1]

    yield open_one
    stop.set()
    for thread in threads:
        thread.join()
    for pool in pools:
        pool.close()


def scores(value: float) -> Scored:
    """An outcome."""
    return Scored({"sum": Score(value)})


def fresh(**options: object) -> tuple[MemoryStore, ExternalPool]:
    """A store with a study '' and its pool."""
    store = MemoryStore()
    store.create("", "", "")
    return store, ExternalPool(Options.model_validate(options), store)


def test_it_needs_the_store_of_a_study() -> None:
    """Without one there is nowhere to offer anything."""
    with pytest.raises(PoolError, match="launch a study with it"):
        open_pool(MANY, dict)  # type: ignore[arg-type]


def test_an_offer_says_what_to_build() -> None:
    """A recipe travels as recipe.yaml has it, values as numbers, a baseline without a point."""
    recipe = Recipe("ties", ("a", "b"), ("g",), {"coefficient": np.array([[0.25, 1 / 3]])}, {"density": 0.5})
    body = json.loads(body_of(Job(3, SEARCH, recipe, Request(0.5, 0.25, "kl"), np.array([0.25, 1 / 3]))))
    assert Recipe.from_dict(body["recipe"]).digest({}) == recipe.digest({})
    assert body["point"] == [0.25, 1 / 3]
    assert body["request"] == {"share": 0.5, "offset": 0.25, "gradient": "kl"}
    assert json.loads(body_of(Job(0, SEARCH, np.array([1 / 3])))) == {
        "values": [1 / 3], "point": None, "request": {"share": 1.0, "offset": 0.0, "gradient": ""},
    }  # fmt: skip


def test_seconds_are_those_told_or_of_the_lease() -> None:
    """The time in the queue ends with the lease; without the scorer's word, scoring took from there to the answer."""
    store, pool = fresh(lease_seconds=50)
    pool.submit(jobs(1)[0])
    (offer,) = store.offers.lease("", "w", 1)
    assert offer.until - offer.leased == pytest.approx(50)
    time.sleep(0.05)
    store.offers.tell("", 0, SEARCH, offer.token, scores(1))
    (result,) = finish(pool, 1)
    assert 0.05 <= result.outcome.timing.score < 5
    assert (result.outcome.worker, result.attempt) == ("w", 1)


def test_other_answers_come_after_the_first() -> None:
    """An unequal one is a second result of the same job, once; an equal one is none."""
    store, pool = fresh()
    pool.submit(jobs(1)[0])
    (offer,) = store.offers.lease("", "w", 1)
    for value in (1.0, 1.0, 2.0):
        store.offers.tell("", 0, SEARCH, offer.token, scores(value))
    assert [r.outcome.scores["sum"].value for r in pool.poll(0.0)] == [1.0, 2.0]  # type: ignore[union-attr]
    store.offers.tell("", 0, SEARCH, offer.token, scores(2.0))
    assert list(pool.poll(0.0)) == []
    store.offers.tell("", 0, SEARCH, offer.token, scores(3.0))
    assert [r.job.number for r in pool.poll(0.0)] == [0]
    assert list(pool.poll(0.0)) == []
    assert store.offers.answers("") == []


def test_who_loses_it_too_often_has_failed_it() -> None:
    """After so many leases that ran out the candidate counts as failed; a later answer is a second result."""
    store, pool = fresh(lease_seconds=0.01, attempts=2)
    pool.submit(jobs(1)[0])
    for _ in range(2):
        (offer,) = store.offers.lease("", "sleepy", 1)
        time.sleep(0.02)
    (result,) = finish(pool, 1)
    assert isinstance(result.outcome, Failed)
    assert result.outcome.kind == "worker_lost"
    assert "its lease ran out 2 times, the last one sleepy's" in result.outcome.message
    store.offers.tell("", 0, SEARCH, offer.token, scores(1))
    assert isinstance(finish(pool, 1)[0].outcome, Scored)


def told(store: MemoryStore, number: int, value: float) -> None:
    """Somebody leases all there is and tells one."""
    held = {offer.number: offer for offer in store.offers.waiting("s")}
    token = held[number].token if held[number].holders else ""
    if not token:
        store.offers.lease("s", "ann", 10)
        token = {offer.number: offer for offer in store.offers.waiting("s")}[number].token
    outcome = Scored({"up": Score(value), "down": Score(0.5)})
    store.offers.tell("s", number, SEARCH, token, outcome)


def test_a_resumed_controller_finds_what_was_leased_and_told() -> None:
    """What was told while no controller lived is recorded once, in its own evaluation; what an earlier one had recorded
    is not recorded again, nor its repeats; what was leased stays leased."""
    store = MemoryStore()
    run = study_run("random", evaluations=6, lasting=True)
    pool = ExternalPool(Options(offers=3), store)
    stop = StopAfter(1)
    store.create("s", "", "")
    thread = threading.Thread(target=lambda: [_wait(store, 3), told(store, 0, 0.1)])
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        Controller(run, store, pool, [stop]).run()
    thread.join()
    told(store, 2, 0.3)
    before = {offer.number: offer for offer in store.offers.waiting("s")}
    token = before[1].token
    outcome = Scored({"up": Score(9.0), "down": Score(0.5)})
    lease = store.acquire("s", "x", 60.0)
    store.tell(lease, 0, SEARCH, replace(outcome, worker="ann"))  # a repeat, kept by a controller that died at once
    store.release(lease)
    assert len(store.repeats("s")) == 1

    second = ExternalPool(Options(offers=3), store)
    done = threading.Event()
    scorer_thread = threading.Thread(target=_score_rest, args=(store, token, done))
    scorer_thread.start()
    results = Controller(study_run("random", evaluations=6, lasting=True), store, second).run()
    done.set()
    scorer_thread.join()
    assert store.study("s").status is Status.DONE
    assert results.search_told == 6
    assert [results.outcome(n).scores["up"].value for n in (0, 1, 2)] == [0.1, 0.2, 0.3]  # type: ignore[union-attr]
    assert len(store.repeats("s")) == 1
    assert store.offers.counts("s") == {State.OPEN: 0, State.LEASED: 0, State.TOLD: 6}


def _wait(store: MemoryStore, count: int) -> None:
    end = time.monotonic() + 20
    while len(store.offers.waiting("s")) < count:
        assert time.monotonic() < end
        time.sleep(0.01)


def _score_rest(store: MemoryStore, token: str, done: threading.Event) -> None:
    """The holder of candidate 1 tells with the token of before; others score the rest."""
    store.offers.tell("s", 1, SEARCH, token, Scored({"up": Score(0.2), "down": Score(0.5)}))
    while not done.wait(0.01):
        for offer in store.offers.lease("s", "bob", 1):
            outcome = Scored({"up": Score(0.5), "down": Score(0.5)})
            store.offers.tell("s", offer.number, offer.split, offer.token, outcome)


class StopAfter:
    """An observer that ends the controller, as Ctrl-C does, after so many outcomes."""

    def __init__(self, count: int) -> None:
        self.left = count

    def evaluated(self, *_: object) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt

    def repeated(self, *_: object) -> None: ...
    def progressed(self, *_: object) -> None: ...


def test_what_another_pool_did_meanwhile_is_offered_to_nobody() -> None:
    """A study that goes on in this process after scorers held some of it ends as any other."""
    store = MemoryStore()
    run = study_run("random", evaluations=3)
    store.create("s", "", "")
    store.offers.put("s", 0, SEARCH, body_of(Job(0, SEARCH, np.zeros(4))), "k")
    store.offers.withdraw("s")
    results = run_study(store, run, Sphere())
    assert results.search_told == 3
    assert not store.offers.free("s")
