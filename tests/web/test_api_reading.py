"""The API for reading: studies, candidates, the front, the log, streams that end with the server."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient
from web.serving import serving
from web.stores import fill

from mergesearch import pareto
from mergesearch.growing import GrowingFront
from mergesearch.store.open import open_store
from mergesearch.stored import read_stored
from mergesearch.types import Candidate, Score, Scored, Split, Status
from mergesearch.web.app import create_app
from mergesearch.web.settings import Settings

API = "/api/v1/studies"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server in this process: 'one' of three objectives, 'two' of two."""
    url = f"sqlite:///{tmp_path_factory.mktemp('reading')}/a.db"
    store = open_store(url)
    fill(store, "one", evaluations=30, objectives=3)
    fill(store, "two", evaluations=5, status=Status.PAUSED)
    with TestClient(create_app(Settings(url)), base_url="http://127.0.0.1") as made:
        made.results = {name: read_stored(store, name).results for name in ("one", "two")}  # type: ignore[attr-defined]
        yield made
    store.close()


def test_studies_are_filtered_and_sorted(client: TestClient) -> None:
    """By name, status and figures; what each is stands in its row."""

    def names(query: str) -> list[str]:
        return [row["name"] for row in client.get(f"{API}?{query}").json()["studies"]]

    assert names("sort=name&order=asc") == ["one", "two"]
    assert names("sort=evaluations") == ["one", "two"]
    assert names("status=paused") == ["two"]
    assert names("search=ON") == ["one"]
    assert names("search=nothing") == []
    row = client.get(API).json()["studies"][-1]
    results = client.results["one"]  # type: ignore[attr-defined]
    assert (row["evaluations"], row["failures"]) == (30, results.failed)
    assert row["best"]["number"] == results.best
    assert row["hypervolume"] == pytest.approx(results.hypervolume())
    assert row["sparkline"] == sorted(row["sparkline"])
    assert row["sparkline"][-1] == pytest.approx(row["hypervolume"])


def test_candidates_are_pages_of_one_order(client: TestClient) -> None:
    """Pages put together are the whole, sorted as asked for, filtered as asked for."""
    pages = [
        client.get(f"{API}/one/candidates?sort=b&order=desc&limit=7&offset={offset}").json()["candidates"]
        for offset in range(0, 42, 7)
    ]
    rows = [row for page in pages for row in page]
    assert len(rows) == len({row["number"] for row in rows}) == client.get(f"{API}/one").json()["candidates"]
    values = [row["scores"]["b"]["value"] for row in rows if row["status"] == "scored"]
    assert values == sorted(values, reverse=True)
    assert [row["status"] for row in rows[len(values) :]] == ["failed"] * (len(rows) - len(values))
    front = client.get(f"{API}/one/candidates?front=true").json()["candidates"]
    assert [row["number"] for row in front] == client.results["one"].front  # type: ignore[attr-defined]
    assert client.get(f"{API}/one/candidates?origin=baseline").json()["total"] == 6
    wrong = client.get(f"{API}/one/candidates?sort=bb")
    assert (wrong.status_code, "cannot be sorted by 'bb'" in wrong.json()["detail"]) == (422, True)


def test_the_front_is_that_of_the_chosen_objectives(client: TestClient) -> None:
    """For all of them and for two of them; a preference picks from it."""
    results = client.results["one"]  # type: ignore[attr-defined]
    whole = client.get(f"{API}/one/front").json()
    assert sorted(point["number"] for point in whole["points"]) == results.front
    two = client.get(f"{API}/one/front?objectives=a&objectives=c&prefer=a=1").json()
    losses = np.array([results.losses(number) for number in results.scored])
    expected = [results.scored[row] for row in pareto.front(losses[:, [0, 2]])]
    assert sorted(point["number"] for point in two["points"]) == expected
    assert two["preferred"] == max(results.front, key=lambda n: results.outcome(n).scores["a"].value)
    assert client.get(f"{API}/one/front?objectives=a&objectives=a").status_code == 422
    assert client.get(f"{API}/one/front?prefer=zz=1").json()["detail"].startswith("the study has no objective 'zz'")


def test_log_and_failures_tell_what_happened(client: TestClient) -> None:
    """The log in both directions; failures, the latest first."""
    down = client.get(f"{API}/one/log?limit=500").json()
    up = client.get(f"{API}/one/log?limit=500&order=asc").json()
    assert down["lines"] == up["lines"][::-1]
    assert [line["seq"] for line in up["lines"]] == list(range(1, up["total"] + 1))
    failures = client.get(f"{API}/one/failures").json()
    assert failures["kinds"] == [{"kind": "ValueError", "count": failures["total"]}]
    assert failures["total"] == sum(line["kind"] == "failed" for line in up["lines"])


def test_what_is_not_there_is_a_problem(client: TestClient) -> None:
    """404 with a sentence, also for names that can be none."""
    for path in ("nope", "a%20b", "%00", "..%2Fx", "one/charts/nope", "nope/events", "-"):
        answer = client.get(f"{API}/{path}")
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"


def test_metrics_count_what_was_asked(client: TestClient) -> None:
    """By route, not by name."""
    client.get(f"{API}/one")
    text = client.get("/api/v1/metrics").text
    assert 'route="/api/v1/studies/{name}"' in text or 'route="/studies/{name}"' in text
    assert 'mergesearch_studies{status="paused"} 1' in text


def test_a_stream_tells_what_is_new_and_ends_with_the_server(tmp_path: Path) -> None:
    """How the study stands at once, then each new evaluation; who comes back hears what he missed."""
    url = f"sqlite:///{tmp_path}/a.db"
    store = open_store(url)
    fill(store, "one", evaluations=3, status=Status.RUNNING)
    with httpx.Client(timeout=30.0) as client:
        with serving(url) as server:
            address = f"{server.url}{API}/one/events"
            with client.stream("GET", address) as stream:
                lines = stream.iter_lines()
                first = next(line for line in lines if line.startswith("id: "))
                lease = store.acquire("one", "here:1:1:more", 60.0)
                store.ask(lease, Candidate(1000, np.full(4, 0.5)), Split.SEARCH)
                store.tell(lease, 1000, Split.SEARCH, Scored({"a": Score(0.5), "b": Score(0.25)}))
                said = next(line for line in lines if '"lines"' in line)
                assert '"number":1000' in said
                assert "a 50.0 %, b 25.0 %" in said
            with client.stream("GET", address, headers={"Last-Event-ID": first[4:]}) as stream:
                assert '"number":1000' in next(line for line in stream.iter_lines() if '"lines"' in line)
            held = client.send(client.build_request("GET", address), stream=True)
            left = held.iter_lines()
            next(left)
        list(left)  # the server has ended, in time, and the stream with it, as a stream ends
        held.close()
    store.close()


def test_a_growing_front_is_the_front() -> None:
    """Row by row and all at once, with equal rows among them: of those the first counts."""
    random = np.random.default_rng(0)
    for objectives in (1, 2, 3, 4):
        rows = np.round(random.random((700, objectives)), 1 if objectives > 2 else 2)
        at_once, one_by_one = GrowingFront(objectives), GrowingFront(objectives)
        entered = at_once.add(np.arange(len(rows)), rows)
        single = [i for i in range(len(rows)) if len(one_by_one.add(np.array([i]), rows[i : i + 1]))]
        assert entered.tolist() == single
        assert at_once.numbers.tolist() == one_by_one.numbers.tolist()
        assert at_once.version == one_by_one.version == len(single)
        assert {tuple(row) for row in at_once.rows} == {tuple(row) for row in rows[pareto.front(rows)]}
