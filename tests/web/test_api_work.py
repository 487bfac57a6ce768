"""Ask, renew and tell over the API, without a controller: what is answered, and what is refused."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from mergesearch.pool.base import Job
from mergesearch.pool.external import body_of
from mergesearch.recipe import Recipe
from mergesearch.space import Axis, Scale, SearchSpace
from mergesearch.store.base import StudyStore
from mergesearch.stored import describe
from mergesearch.types import Direction, Guide, Objective, Scored, Split, Status
from mergesearch.web.app import create_app
from mergesearch.web.security.tokens import hashed
from mergesearch.web.settings import Settings

TOKEN = "t" * 43
SPACE = SearchSpace((Axis("rate", 0.01, 100.0, 1.0, Scale.LOG), Axis("depth", 1, 4, 2, whole=True)))
AIMS = (
    Objective("up", Direction.MAX, low=0.0, high=1.0),
    Objective("down", Direction.MIN, guide=Guide("loss", Direction.MIN)),
)
GOOD = {"scores": {"up": 0.5, "down": 2}, "metrics": {"down": {"loss": 1.5}}}


@dataclass
class Served:
    """A server within this process, and its store."""

    http: TestClient
    store: StudyStore

    def post(self, what: str, body: Mapping[str, Any] | str, name: str = "s") -> Any:
        text = body if isinstance(body, str) else json.dumps(body)
        return self.http.post(
            f"/api/v1/studies/{name}/{what}", content=text, headers={"Content-Type": "application/json"}
        )

    def lease(self, **more: Any) -> dict[str, Any]:
        """One offer, asked for."""
        (offer,) = self.post("ask", {"worker": "ann", **more}).json()["offers"]
        return dict(offer)

    def tell(self, offer: Mapping[str, Any], **what: Any) -> Any:
        return self.post("tell", {"offer": offer["offer"], "token": offer["token"], **what})


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A study 's' that a controller runs, with two offers: a point and, of a study of models, a baseline."""
    app = create_app(Settings(f"sqlite:///{tmp_path}/s.db", roots=(tmp_path,), token_hash=hashed(TOKEN)))
    store = app.state.service.store
    store.create("s", "name: s", "", facts=describe(SPACE, AIMS, 9.0, "random"))
    lease = store.acquire("s", "here:1:1:test", 600.0)
    store.set_status(lease, Status.RUNNING, "")
    point = np.array([0.75, 0.9])
    store.offers.put("s", 0, Split.SEARCH, body_of(Job(0, Split.SEARCH, SPACE.values(point), point=point)), "k0")
    recipe = Recipe("ties", ("a", "b"), ("g",), {"coefficient": np.array([[0.25, 0.5]])}, {"density": 0.5})
    store.offers.put("s", 1, Split.TEST, body_of(Job(1, Split.TEST, recipe)), "k1", seconds=7.0)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(app, base_url="http://127.0.0.1:8790", headers=headers) as http:
        yield Served(http, store)
    store.close()


def test_an_offer_says_all_that_a_scorer_needs(served: Served) -> None:
    """Values by name on the axes' own scales, or the recipe; what to tell; until when it is one's own."""
    answer = served.post("ask", {"worker": "ann", "count": 5})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["runs"], body["over"]) == ("running", True, False)
    one, two = body["offers"]
    assert one["values"] == {"rate": pytest.approx(10.0), "depth": 4.0}
    assert (one["offer"], one["point"], one["recipe"], one["attempt"]) == ("0-search", [0.75, 0.9], None, 1)
    assert one["objectives"] == [{"name": "up", "direction": "max"}, {"name": "down", "direction": "min"}]
    assert one["request"] == {"share": 1.0, "offset": 0.0, "gradient": ""}
    assert (two["offer"], two["split"], two["values"], two["point"]) == ("1-test", "test", None, None)
    assert two["recipe"]["settings"] == {"coefficient": {"g": {"a": 0.25, "b": 0.5}}}
    assert two["seconds"] == 7.0
    assert 0.0 < two["until"] - served.store.clock() <= 7.0
    assert served.post("ask", {"worker": "bob"}).json()["offers"] == []
    work = served.http.get("/api/v1/studies/s/work").json()
    assert (work["open"], work["leased"], work["told"]) == (0, 2, 0)
    assert [(h["offer"], h["worker"], h["lapsed"]) for h in work["held"]] == [
        ("0-search", "ann", False), ("1-test", "ann", False),
    ]  # fmt: skip


def test_what_is_told_is_kept_whole(served: Served) -> None:
    """Scores with their errors, metrics, examples and seconds; what examples say fills in what a number leaves out."""
    offer = served.lease()
    scores = {"up": 0.5, "down": {"value": 2, "stderr": 0.25, "n": 9}}
    told = served.tell(
        offer, scores=scores, metrics={"down": {"loss": {"value": 1.5, "n": 9}}}, examples={"up": [0.0, 1.0]}, seconds=3
    )
    assert (told.status_code, told.json()) == (200, {"offer": "0-search", "again": False})
    (answer,) = served.store.offers.answers("s")
    outcome = answer.outcome
    assert isinstance(outcome, Scored)
    assert (outcome.scores["up"].value, outcome.scores["up"].n) == (0.5, 2)
    assert outcome.scores["up"].stderr == pytest.approx(0.5 / 2**0.5)
    assert (outcome.scores["down"].stderr, outcome.scores["down"].n) == (0.25, 9)
    assert outcome.metrics["down"]["loss"].value == 1.5
    assert outcome.examples["up"].tolist() == [0.0, 1.0]
    assert (outcome.timing.score, answer.holder) == (3.0, "ann")


def test_the_same_again_is_nothing_and_other_scores_are_kept(served: Served) -> None:
    """200 and 409; the problem says that nothing is to be sent again."""
    offer = served.lease()
    assert [served.tell(offer, **GOOD).json()["again"] for _ in range(3)] == [False, True, True]
    other = {**GOOD, "scores": {"up": 0.75, "down": 2}}
    for _ in range(2):
        answer = served.tell(offer, **other)
        assert answer.status_code == 409
        assert answer.headers["content-type"] == "application/problem+json"
        assert "yours are kept beside them" in answer.json()["detail"]
    assert len(served.store.offers.answers("s")) == 2
    assert served.post("renew", {"offer": offer["offer"], "token": offer["token"]}).status_code == 409


def test_a_lapsed_lease_is_given_on_and_still_told(served: Served) -> None:
    """The next who asks gets it; the first who tells is heard, and the other may tell the same."""
    mine = served.lease()
    renewed = served.post("renew", {"offer": mine["offer"], "token": mine["token"], "seconds": 0.001})
    assert renewed.status_code == 200
    time.sleep(0.02)
    theirs = served.lease()
    assert (theirs["offer"], theirs["attempt"]) == (mine["offer"], 2)
    assert served.post("renew", {"offer": mine["offer"], "token": mine["token"]}).status_code == 409
    assert not served.tell(mine, **GOOD).json()["again"]
    assert served.tell(theirs, **GOOD).json()["again"]


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ({"scores": {"up": 1}}, "objective 'down' is missing"),
        ({"scores": {"up": 1, "down": 1, "dwn": 1}}, "no objective is called 'dwn'; did you mean 'down'?"),
        ({"scores": {"up": 1, "down": 1}}, "tell it under metrics.down.loss"),
        ({**GOOD, "scores": {"up": "1", "down": 1}}, "a score is a number, or an object"),
        ({**GOOD, "scores": {"up": True, "down": 1}}, "a score is a number, or an object"),
        ({**GOOD, "scores": {"up": None, "down": 1}}, "a score is a number, or an object"),
        ({**GOOD, "scores": {"up": float("nan"), "down": 1}}, "finite number"),
        ({**GOOD, "scores": {"up": float("inf"), "down": 1}}, "finite number"),
        ({**GOOD, "scores": {"up": 1e101, "down": 1}}, "a score of 1e+101 is beyond 1e+100"),
        ({**GOOD, "scores": {"up": {"value": 1, "n": 0}, "down": 1}}, "greater than or equal to 1"),
        ({**GOOD, "scores": {"up": {"value": 1, "stderr": -1}, "down": 1}}, "greater than or equal to 0"),
        ({**GOOD, "examples": {"up": [1, float("nan")]}}, "finite number"),
        ({**GOOD, "examples": {"up": [1e200]}}, "beyond what 32 bits keep"),
        ({**GOOD, "gradients": {"up": [1.0]}}, "the study has 2 axes"),
        ({**GOOD, "failed": {"kind": "x"}}, "tell either 'scores' or 'failed'"),
        ({}, "tell either 'scores' or 'failed'"),
        ({"score": {}}, "Extra inputs are not permitted"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(served: Served, what: dict[str, Any], sentence: str) -> None:
    """422, nothing is kept, and the offer stays the scorer's."""
    offer = served.lease()
    answer = served.tell(offer, **what)
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]
    assert served.store.offers.answers("s") == []
    assert served.tell(offer, **GOOD).status_code == 200


def test_unknown_offers_and_tokens_are_404(served: Served) -> None:
    """So are unknown studies; an offer's form is checked."""
    offer = served.lease()
    assert served.tell({**offer, "token": "k0.2"}, **GOOD).status_code == 404
    assert served.tell({**offer, "offer": "7-search"}, **GOOD).status_code == 404
    assert served.tell({**offer, "offer": "seven"}, **GOOD).status_code == 422
    assert served.post("renew", {"offer": "7-search", "token": "k0.1"}).status_code == 404
    assert served.post("ask", {"worker": "w"}, name="t").status_code == 404
    assert served.post("tell", {"offer": "0-search", "token": "x", **GOOD}, name="t").status_code == 404
    assert served.http.get("/api/v1/studies/t/work").status_code == 404
    for wrong in ({"worker": ""}, {"worker": "w", "count": 0}, {"worker": "w", "wait_seconds": 21}, {"worker": 3}, {}):
        assert served.post("ask", wrong).status_code == 422


def test_asking_takes_the_token(served: Served) -> None:
    """Work is leased and told by those who have it."""
    for what, body in (("ask", {"worker": "w"}), ("tell", {"offer": "0-search", "token": "k0.1", **GOOD})):
        answer = served.http.post(f"/api/v1/studies/s/{what}", json=body, headers={"Authorization": "Bearer wrong"})
        assert answer.status_code == 401


def test_an_ask_waits_for_work_and_for_the_end(served: Served) -> None:
    """It returns as soon as there is something, and when the study is over; others are served meanwhile."""
    served.post("ask", {"worker": "ann", "count": 5})
    got: list[dict[str, Any]] = []
    thread = threading.Thread(
        target=lambda: got.append(served.post("ask", {"worker": "bob", "wait_seconds": 20}).json())
    )
    thread.start()
    began = time.monotonic()
    assert served.http.get("/api/v1/studies/s/work").status_code == 200
    served.store.offers.put("s", 2, Split.SEARCH, body_of(Job(2, Split.SEARCH, np.ones(2), point=np.zeros(2))), "k2")
    thread.join(10)
    assert time.monotonic() - began < 8
    assert [offer["offer"] for offer in got[0]["offers"]] == ["2-search"]
    assert served.post("ask", {"worker": "bob", "wait_seconds": 0.05}).json()["offers"] == []
    lease = served.store.acquire("s", "here:1:1:test", 600.0)
    served.store.set_status(lease, Status.DONE, "")
    served.store.release(lease)
    began = time.monotonic()
    body = served.post("ask", {"worker": "bob", "wait_seconds": 20}).json()
    assert (body["over"], body["runs"], body["offers"]) == (True, False, [])
    assert time.monotonic() - began < 8


def test_a_study_that_shall_pause_offers_nothing(served: Served) -> None:
    """What was leased before may still be told."""
    offer = served.lease()
    served.store.command("s", "pause")
    assert served.post("ask", {"worker": "bob"}).json()["offers"] == []
    assert served.tell(offer, failed={"kind": "OutOfMemory", "message": "12 GiB"}).status_code == 200
