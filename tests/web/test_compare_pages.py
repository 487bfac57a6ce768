"""The comparison's routes and page."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from web.stores import fill

from mergesearch.store.open import open_store
from mergesearch.web.app import create_app
from mergesearch.web.settings import Settings

API = "/api/v1/compare"
BOTH = "study=one-0&study=one-1"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server on a store with three studies of 2 objectives, one of 3 and one of 1."""
    url = f"sqlite:///{tmp_path_factory.mktemp('store')}/a.db"
    store = open_store(url, create=True)
    for seed in range(3):
        fill(store, f"one-{seed}", evaluations=40, seed=seed)
    fill(store, "three", evaluations=10, objectives=3)
    fill(store, "single", evaluations=10, objectives=1)
    store.close()
    with TestClient(create_app(Settings(url)), base_url="http://127.0.0.1") as client:
        yield client


def test_studies_are_compared(client: TestClient) -> None:
    """A row each, in the order that was asked for, and what stands behind the numbers."""
    found = client.get(f"{API}?{BOTH}").json()
    assert [row["study"] for row in found["rows"]] == ["one-0", "one-1"]
    assert found["split"] == "search"
    assert "confirm" in found["why_split"]
    assert found["reference"] > 0
    assert {i["key"] for i in found["indicators"]} == set(found["rows"][0]["values"])
    assert [group["studies"] for group in found["groups"]] == [["one-0", "one-1"]]
    assert len(found["coverage"]) == len(found["win_rate"]) == 2


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("", 422, "study"),
        ("study=one-0&study=three", 422, "differ in 'c'"),
        ("study=nothing", 404, "nothing"),
        ("study=single", 422, "two objectives"),
        (f"{BOTH}&group=a:none-such", 422, "not compared"),
        (f"{BOTH}&split=confirm", 422, "confirm"),
        ("&".join(f"study=s{i}" for i in range(31)), 422, "study"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(client: TestClient, query: str, status: int, said: str) -> None:
    """A problem that says what is wrong."""
    answer = client.get(f"{API}?{query}")
    assert answer.status_code == status
    assert said in answer.json()["detail"]


@pytest.mark.parametrize("chart", ["front", "hypervolume", "convergence"])
def test_charts_of_the_comparison(client: TestClient, chart: str) -> None:
    """All studies in one picture."""
    answer = client.get(f"{API}/charts/{chart}?{BOTH}&group=none&against=cost").json()
    assert [t["name"] for t in answer["data"]] == ["one-0", "one-1"]
    assert answer["summary"]
    assert client.get(f"{API}/charts/fronts?{BOTH}").status_code == 404
    if chart != "front":
        assert client.get(f"{API}/charts/{chart}?{BOTH}&against=time").status_code == 422


def test_the_page_shows_the_table(client: TestClient) -> None:
    """Every study with its indicators, the best marked, each indicator's meaning."""
    page = client.get(f"/compare?{BOTH}&study=one-2")
    assert page.status_code == 200
    for text in ("one-0", "one-2", "IGD+", '<strong class="best">', "What each indicator means", "median (quartiles)"):
        assert text in page.text
    assert "/api/v1/compare/charts/front?study=one-0&amp;study=one-1&amp;study=one-2" in page.text


def test_the_page_says_why_studies_cannot_be_compared(client: TestClient) -> None:
    """With the picker open to mend it; an unknown study too."""
    page = client.get("/compare?study=one-0&study=three")
    assert page.status_code == 200
    assert "cannot be compared" in page.text
    assert 'class="more" open' in page.text
    assert client.get("/compare?study=gone").status_code == 200
    assert client.get("/compare?study=single&study=single").status_code == 200


def test_the_page_without_studies_lets_pick(client: TestClient) -> None:
    """All studies of the store are offered."""
    page = client.get("/compare").text
    assert page.count('type="checkbox" name="study"') == 5
