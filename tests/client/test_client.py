"""The Python client against a real server."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from web.serving import Serving, serving
from web.stores import fill

from mergesearch.client import Client, Found, Offer
from mergesearch.errors import LeaseError, NotOffered, SpecError, StoreError, StudyNotFound
from mergesearch.pool.base import Job
from mergesearch.pool.external import body_of
from mergesearch.store.base import StudyStore
from mergesearch.store.open import open_store
from mergesearch.types import Failed, Scored, Split, Status


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, StudyStore]]:
    """A real server over a store with a finished study 'done' and one 'open' that offers five evaluations."""
    folder = tmp_path_factory.mktemp("client")
    url = f"sqlite:///{folder}/s.db"
    store = open_store(url)
    fill(store, "done", evaluations=20)
    fill(store, "open", evaluations=1)
    lease = store.acquire("open", "here:1:1:test", 600.0)
    store.set_status(lease, Status.RUNNING, "")
    for number in range(10, 15):
        point = np.full(4, number / 20)
        body = body_of(Job(number, Split.SEARCH, point, point=point))
        store.offers.put("open", number, Split.SEARCH, body, f"k{number}", seconds=0.6)
    with serving(url, folder=folder) as started:
        yield started, store
    store.close()


@pytest.fixture
def client(server: tuple[Serving, StudyStore]) -> Iterator[Client]:
    """A client with the token."""
    with Client(server[0].url, server[0].token) as made:
        yield made


def test_it_imports_nothing_heavy() -> None:
    """A scorer's machine need have no models' libraries loaded."""
    code = (
        "import sys, mergesearch.client\n"
        "heavy = {'torch', 'numpy', 'sqlalchemy', 'pydantic', 'ray', 'fastapi', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_what_can_be_read(client: Client) -> None:
    """Studies, candidates, front, log, store and the stream, as the API gives them."""
    assert "done" in str(client.studies())
    assert "done" in str(client.study("done"))
    assert client.candidates("done", limit=3)
    assert client.candidate("done", 0)
    assert client.front("done")
    assert client.failures("done")
    assert client.log("done")
    assert client.chart("done", "front")
    assert client.compare(["done", "open"])
    assert client.store()
    assert client.health()
    assert "mergesearch" in client.metrics()
    assert client.jobs() is not None
    event = next(client.events("done"))
    assert event.name in ("changed", "log")
    assert event.data


def test_problems_are_our_errors(client: Client, server: tuple[Serving, StudyStore]) -> None:
    """With the server's sentence; a server that is not there is a store that is away."""
    with pytest.raises(StudyNotFound, match="did you mean 'done'"):
        client.study("dnoe")
    with pytest.raises(StudyNotFound):
        client.ask("dnoe", "w")
    with pytest.raises(SpecError, match="wait_seconds"):
        client.ask("open", "w", wait_seconds=99)
    with Client(server[0].url) as nobody, pytest.raises(SpecError, match="token"):
        nobody.ask("open", "w")
    with Client("http://127.0.0.1:9", patience=0.1) as away, pytest.raises(StoreError, match="does not answer"):
        away.studies()
    with pytest.raises(SpecError, match="is not a URL"):
        Client("127.0.0.1:8790")


def test_a_study_is_checked_paused_and_cancelled(client: Client, server: tuple[Serving, StudyStore]) -> None:
    """What people ask for is a row that the controller reads; a wrong file is refused with the line."""
    with pytest.raises(SpecError):
        client.launch("name: [")
    assert not client.check("name: x\n")["ok"]
    for action in ("pause", "cancel"):
        getattr(client, action)("open")
    store = server[1]
    assert [command.action for command in store.open_commands("open")][-2:] == ["pause", "cancel"]
    lease = store.acquire("open", "here:1:1:test", 600.0)
    for command in store.open_commands("open"):
        store.finish_command(lease, command)


def test_work_is_asked_scored_renewed_and_told(client: Client, server: tuple[Serving, StudyStore]) -> None:
    """The loop keeps its leases while it scores, tells failures and what the server refuses, leaves to others what
    they told first, and ends with the study."""
    store = server[1]
    released = threading.Event()

    def score(offer: Offer) -> Found | dict[str, float]:
        assert set(offer.objectives) == {"a", "b"}
        if offer.number == 11:
            raise ValueError("eleven is\nnot to my taste")
        if offer.number == 12:
            return {"a": float("nan"), "b": 0.0}
        if offer.number == 13:
            client.tell("open", offer, {"a": 1.0, "b": 1.0})
        if offer.number == 14:
            assert not released.wait(1.5)  # more than two leases long
            assert client.ask("open", "thief").offers == ()
            lease = store.acquire("open", "here:1:1:test", 600.0)
            store.set_status(lease, Status.DONE, "")
            store.release(lease)
        values = np.array(list((offer.values or {}).values()))
        return Found({"a": values.mean(), "b": {"value": 0.25, "n": 4}}, examples={"a": values})

    assert client.work("open", score, "py") == 4
    answers = {(a.number, type(a.outcome)): a for a in store.offers.answers("open")}
    assert {number for number, _ in answers} == {10, 11, 12, 13, 14}
    ten = answers[10, Scored].outcome
    assert isinstance(ten, Scored)
    assert ten.scores["a"].value == pytest.approx(0.5)
    assert ten.examples["a"].shape == (4,)
    eleven, twelve = answers[11, Failed].outcome, answers[12, Failed].outcome
    assert isinstance(eleven, Failed)
    assert (eleven.kind, eleven.message) == ("ValueError", "eleven is not to my taste")
    assert isinstance(twelve, Failed)
    assert twelve.kind == "refused"
    assert answers[14, Scored].attempt == 1
    work = client.work_of("open")
    assert (work["open"], work["leased"], work["told"], work["over"]) == (0, 0, 5, True)


def test_a_lost_offer_is_named(client: Client) -> None:
    """A token that is none, and an answer that differs."""
    offer = Offer("10-search", "k10.1", 10, "search", 1, {}, [], None, {}, 1.0, 0.0, "", 0.0, 1.0)
    with pytest.raises(NotOffered, match="never given out"):
        client.tell("open", Offer(**{**vars(offer), "token": "x"}), {"a": 1.0, "b": 1.0})
    with pytest.raises(LeaseError, match="kept beside them"):
        client.tell("open", offer, {"a": -1.0, "b": 1.0})
    with pytest.raises(LeaseError, match="told already"):
        client.renew("open", offer)
