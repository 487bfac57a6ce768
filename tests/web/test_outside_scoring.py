"""End to end: a server, a controller with the external pool, and scorers over HTTP that come and go."""

import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from web.scoring import controller, documented, files, launched, offered, process, until
from web.serving import Serving, serving

from mergesearch.client import Client
from mergesearch.store.base import StudyStore
from mergesearch.store.offering import State
from mergesearch.store.open import open_store
from mergesearch.types import Asked, Split, Status, Told

BUDGET = 20


def once(store: StudyStore, budget: int) -> list[Told]:
    """What the log says, which asked exactly the budget, and each candidate once."""
    events = store.events("outside")
    asked = [event.candidate.number for event in events if isinstance(event, Asked)]
    told = [event for event in events if isinstance(event, Told)]
    assert sorted(asked) == list(range(budget))
    assert sorted(event.candidate.number for event in told) == list(range(budget))
    assert store.study("outside").status is Status.DONE
    return told


def scorer(server: Serving, name: str, *, shell: bool = False) -> tuple[str, ...]:
    """The command of a documented scorer."""
    language = ("sh", "-c", documented("sh"), "sh") if shell else (sys.executable, "-c", documented("python"))
    return (*language, server.url, server.token, "outside", name)


def test_scorers_in_two_languages_share_a_study_and_one_is_killed(tmp_path: Path) -> None:
    """Python without libraries and a shell with curl work beside each other; what a killed one held is scored by
    others once its lease ran out; in the end exactly the budget was told, every candidate once."""
    url = f"sqlite:///{tmp_path}/s.db"
    files(tmp_path, BUDGET, lease=1.5)
    store = open_store(url)
    with ExitStack() as stack:
        server = stack.enter_context(serving(url, folder=tmp_path))
        running = stack.enter_context(launched(tmp_path, url))
        until(lambda: offered(store))
        with Client(server.url, server.token) as client:
            held = client.ask("outside", "killed", 2).offers  # a scorer that takes two, and dies in their midst
            assert len(held) == 2
        scorers = [stack.enter_context(process(*scorer(server, n, shell=n == "sh"))) for n in ("py", "sh")]
        victim = stack.enter_context(process(*scorer(server, "victim")))
        until(lambda: any(t.outcome.worker == "victim" for t in told_of(store)))
        victim.send_signal(signal.SIGKILL)
        assert running.wait(40) == 0
        assert [one.wait(25) for one in scorers] == [0, 0]
        assert server.pid
    told = once(store, BUDGET)
    workers = {event.outcome.worker for event in told}
    assert {"py", "sh", "victim"} <= workers
    assert "killed" not in workers
    assert store.repeats("outside") == []
    assert store.offers.counts("outside") == {State.OPEN: 0, State.LEASED: 0, State.TOLD: BUDGET}
    store.close()


def told_of(store: StudyStore) -> list[Told]:
    """The outcomes so far."""
    return [event for event in store.events("outside") if isinstance(event, Told)]


def test_killed_controllers_and_servers_lose_nothing(tmp_path: Path) -> None:
    """What was leased stays leased over a SIGKILL of both, what is told meanwhile counts once, a pause is obeyed at
    once with offers out, and an unequal late answer is kept as a repeat."""
    url = f"sqlite:///{tmp_path}/s.db"
    files(tmp_path, 8)
    store = open_store(url)
    with serving(url, folder=tmp_path, environment={"MERGESEARCH_TOKEN": "t" * 32}) as server:
        with controller(tmp_path, url) as first, Client(server.url, "t" * 32) as client:
            until(lambda: offered(store))
            one, two, three = client.ask("outside", "ann", 3).offers
            client.tell("outside", one, {"accuracy": 0.5, "seconds": 1})
            until(lambda: len(told_of(store)) == 1)
            first.send_signal(signal.SIGKILL)
            first.wait(10)
            assert client.work_of("outside")["status"] == "running"
            assert not client.tell("outside", two, {"accuracy": 0.25, "seconds": 2}).again
        assert len(told_of(store)) == 1
    with (
        serving(url, folder=tmp_path, environment={"MERGESEARCH_TOKEN": "t" * 32}) as server,
        Client(server.url, "t" * 32) as client,
    ):
        assert client.tell("outside", two, {"accuracy": 0.25, "seconds": 2}).again
        with controller(tmp_path, url, "resume") as second:
            until(lambda: len(told_of(store)) == 2)
            held = {(h["number"], h["worker"]) for h in client.work_of("outside")["held"]}
            assert held == {(three.number, "ann")}
            store.command("outside", "pause")
            assert second.wait(30) == 0  # with one leased and others open
        assert store.study("outside").status is Status.PAUSED
        assert client.ask("outside", "bob", 4).offers == ()
        client.tell("outside", three, {"accuracy": 0.75, "seconds": 3})
        with controller(tmp_path, url, "resume") as third:
            until(lambda: len(told_of(store)) == 3)
            answer = client._http._http.post("/studies/outside/tell", json={
                "offer": one.offer, "token": one.token, "scores": {"accuracy": 0.625, "seconds": 1}})  # fmt: skip
            assert answer.status_code == 409
            until(lambda: store.repeats("outside"))
            assert client.work("outside", lambda o: {"accuracy": 0.1, "seconds": o.values["depth"]}, "rest") == 5
            assert third.wait(30) == 0
    told = once(store, 8)
    assert [t.outcome.worker for t in told if t.candidate.number < 3] == ["ann"] * 3
    (repeat,) = store.repeats("outside")
    assert (repeat.number, repeat.split, repeat.outcome.worker) == (one.number, Split.SEARCH, "ann")
    store.close()
