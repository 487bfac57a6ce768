"""The candidate's page and its routes show what the store knows of it, and let it be taken away."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from web.merge_store import SECRET, fill_merge
from web.stores import fill

from mergesearch.recipe import Recipe
from mergesearch.report.charts.heat import heat
from mergesearch.report.view import read_view
from mergesearch.store.base import StudyStore
from mergesearch.store.memory import MemoryStore
from mergesearch.store.open import open_store
from mergesearch.stored import read_stored
from mergesearch.web.api import recipes
from mergesearch.web.app import create_app
from mergesearch.web.settings import Settings

API = "/api/v1/studies"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with studies 'merge', 'bare' (no per-example values, heads apart) and 'box' (merges nothing)."""
    url = f"sqlite:///{tmp_path_factory.mktemp('store')}/a.db"
    store = open_store(url, create=True)
    fill_merge(store)
    fill_merge(store, "bare", keep=False, heads="['head.*']")
    fill(store, "box", evaluations=20)
    store.close()
    return url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[TestClient]:
    """A client of a server on that store."""
    with TestClient(create_app(Settings(url)), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
def store(url: str) -> Iterator[StudyStore]:
    """The store itself."""
    store = open_store(url)
    yield store
    store.close()


CHOSEN, FIRST, FAILED = 6, 5, 16


def test_everything_about_a_candidate_is_answered(client: TestClient, store: StudyStore) -> None:
    """Scores on all splits, coefficients beside their start, request, timing, worker."""
    found = client.get(f"{API}/merge/candidates/{CHOSEN}").json()
    assert [e["split"] for e in found["evaluations"]] == ["search", "confirm", "test"]
    kept = read_stored(store, "merge")
    outcome = kept.results.outcome(CHOSEN)
    assert outcome is not None
    assert found["evaluations"][0]["scores"][0]["value"] == outcome.scores["a"].value
    assert found["evaluations"][0]["timing"]["score"] == 2.0
    assert found["evaluations"][0]["worker"] == "w0"
    assert "chosen" in found["marks"]
    recipe = kept.recipe(CHOSEN)
    assert recipe is not None
    by_name = {k["knob"]: k for k in found["knobs"]}
    np.testing.assert_array_equal(by_name["coefficient"]["values"], recipe.settings["coefficient"])
    assert by_name["coefficient"]["start"] == [[0.3] * 3] * 4
    assert [k["searched"] for k in found["knobs"]] == [True, True, False]
    assert found["request"]["complete"]


def test_an_export_is_named_without_its_place(client: TestClient) -> None:
    """No path of the server stands in an answer or on a page."""
    answer = client.get(f"{API}/merge/candidates/{CHOSEN}")
    assert answer.json()["artifacts"][0]["folder"] == "first"
    page = client.get(f"/studies/merge/candidates/{CHOSEN}")
    for text in (answer.text, page.text):
        assert SECRET not in text
        assert "secret" not in text


def test_neighbours_are_the_next_ones_of_the_front(client: TestClient, store: StudyStore) -> None:
    """Along each objective, the previous is worse and the next is better, with nothing of the front between."""
    results = read_stored(store, "merge").results
    numbers, table = results.front_table()
    for number in numbers:
        found = client.get(f"{API}/merge/candidates/{number}").json()["neighbours"]
        for at, neighbours in enumerate(found):
            ordered = [n for _, n in sorted(zip(table[:, at].tolist(), numbers, strict=True), reverse=True)]
            place = ordered.index(number)
            previous, following = neighbours["previous"], neighbours["next"]
            assert (previous and previous["number"]) == (ordered[place - 1] if place else None)
            assert (following and following["number"]) == (ordered[place + 1] if number != ordered[-1] else None)


def test_differences_to_experts_are_paired_where_examples_are_kept(client: TestClient) -> None:
    """Their interval then follows the examples' own differences; without them the answer says so."""
    for name, paired in (("merge", True), ("bare", False)):
        found = client.get(f"{API}/{name}/candidates/{CHOSEN}?split=test").json()
        assert found["difference_split"] == "test"
        assert len(found["differences"]) == 4 * 3
        for d in found["differences"]:
            assert d["paired"] is paired
            assert (d["examples"] > 0) is paired
            if d["low"] is not None:
                assert d["low"] <= d["gain"] <= d["high"]
                assert d["high"] - d["low"] == pytest.approx(2 * 1.96 * d["stderr"], rel=0.25, abs=1e-9)
    page = client.get(f"/studies/bare/candidates/{CHOSEN}").text
    assert "Not paired: no per-example values" in page


def test_a_failed_candidate_says_why(client: TestClient) -> None:
    """Its message stands on the page, as text."""
    page = client.get(f"/studies/merge/candidates/{FAILED}")
    assert page.status_code == 200
    assert "out of memory &lt;b&gt;here&lt;/b&gt;" in page.text
    assert "/score" not in page.text  # nothing to score again


@pytest.mark.parametrize(("number", "said"), [(0, "base model as it is"), (1, "expert &#39;a&#39; alone")])
def test_a_baseline_says_what_it_is(client: TestClient, number: int, said: str) -> None:
    """It has no coefficients."""
    page = client.get(f"/studies/merge/candidates/{number}")
    assert page.status_code == 200
    assert said in page.text
    assert client.get(f"{API}/merge/candidates/{number}").json()["knobs"] == []


def test_a_search_that_merges_nothing_shows_its_numbers(client: TestClient) -> None:
    """Its axes are listed, and there is no recipe."""
    found = client.get(f"{API}/box/candidates/9").json()
    assert [a["axis"] for a in found["axes"]] == ["x0", "x1", "x2", "x3"]
    assert found["recipe"] is None
    assert client.get("/studies/box/candidates/9").status_code == 200


def test_the_page_has_values_for_those_who_cannot_see_colours(client: TestClient) -> None:
    """Each coefficient stands in a table."""
    found = client.get(f"{API}/merge/candidates/{CHOSEN}").json()
    page = client.get(f"/studies/merge/candidates/{CHOSEN}").text
    for row in found["knobs"][0]["values"]:
        for value in row:
            assert f"{value:.4f}" in page


@pytest.mark.parametrize("path", ["merge/candidates/999", "nothing/candidates/1", "merge/candidates/999/recipe.yaml"])
def test_what_is_not_there_is_a_sentence(client: TestClient, path: str) -> None:
    """404 as a problem that says what there is."""
    answer = client.get(f"{API}/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_recipe_downloads_and_is_the_one(client: TestClient, store: StudyStore) -> None:
    """What is downloaded gives the digest of what was evaluated."""
    answer = client.get(f"{API}/merge/candidates/{CHOSEN}/recipe.yaml")
    assert answer.headers["content-disposition"] == 'attachment; filename="recipe.yaml"'
    expected = read_stored(store, "merge").recipe(CHOSEN)
    assert expected is not None
    assert Recipe.from_yaml(answer.text).digest({}) == expected.digest({})
    assert "base: models/base" in answer.text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("merge/candidates/0/recipe.yaml", "is a baseline"),
        ("box/candidates/9/recipe.yaml", "merges nothing"),
        ("bare/candidates/6/mergekit.yaml", "heads are kept apart"),
        ("box/candidates/9/mergekit.yaml", "merges no models"),
    ],
)
def test_what_has_no_such_file_says_why(client: TestClient, path: str, said: str) -> None:
    """409 with a sentence."""
    answer = client.get(f"{API}/{path}")
    assert answer.status_code == 409
    assert said in answer.json()["detail"]


def test_a_heat_map_of_hundreds_of_groups_is_quick_and_small() -> None:
    """1,000 layer groups and 8 experts: half a second, two panels, and one row where all experts share a number."""
    store = MemoryStore()
    numbers = fill_merge(store, groups=1000, experts=tuple("abcdefgh"), evaluations=3)
    view = read_view(store, "merge")
    begun = time.process_time()
    chart = heat(view, {"candidate": str(numbers[1])})
    text = json.dumps([chart.data, chart.layout], allow_nan=False)
    assert time.process_time() - begun < 0.5
    assert len(text) < 1_000_000
    assert [(t["name"], len(t["y"]), len(t["x"])) for t in chart.data] == [
        ("coefficient", 8, 1000),
        ("density", 1, 1000),
    ]
    settings = view.settings(numbers[1])
    assert settings is not None
    np.testing.assert_allclose(np.array(chart.data[0]["customdata"])[:, :, 0], settings["coefficient"].T, atol=1e-6)
    assert chart.data[0]["zmin"] == -chart.data[0]["zmax"]  # white is the start


@pytest.mark.parametrize(
    ("chart", "query", "said"),
    [
        ("heat", "candidate=0", "has no coefficients"),
        ("heat", "candidate=x", "has no candidate 'x'"),
        ("heat", f"candidate={CHOSEN}&knob=coefficent", "did you mean 'coefficient'"),
        ("differences", f"candidate={FAILED}", "not scored on any split"),
        ("differences", f"candidate={FIRST}&split=test", "not scored on the split 'test'"),
    ],
)
def test_a_chart_that_cannot_be_is_a_sentence(client: TestClient, chart: str, query: str, said: str) -> None:
    """422 that says why."""
    answer = client.get(f"{API}/merge/charts/{chart}?{query}")
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_the_chart_of_differences_has_every_comparison(client: TestClient) -> None:
    """A mark for each objective and expert, which opens the expert's page."""
    chart = client.get(f"{API}/merge/charts/differences?candidate={CHOSEN}&split=test").json()
    assert [t["name"] for t in chart["data"]] == ["a", "b", "c"]
    assert [len(t["x"]) for t in chart["data"]] == [4, 4, 4]
    assert set(chart["data"][0]["customdata"]) == {1}


def test_mergekit_says_the_same_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made by a process that reads the models, which it calls as the study file does; made once."""
    from tiny_llama import make_llama

    from mergesearch.controller.launch import create
    from mergesearch.study.resolve import resolve
    from mergesearch.study.source import Source, parse_study
    from mergesearch.types import Candidate, Split

    base = make_llama(tmp_path / "m" / "base", layers=2)
    for seed, name in ((1, "a"), (2, "b")):
        make_llama(tmp_path / "m" / name, seed=seed, base=base, layers=2)
    text = (
        "name: llama\nmodels: {base: m/base, experts: {a: m/a, b: m/b}}\nmerge: {operator: task_arithmetic}\n"
        "objectives: [{name: x, scorer: text_classification, data: {path: x.csv}}]\n"
    )
    source = Source("llama.yaml", text, tmp_path)
    resolved = resolve(parse_study(source), tmp_path)
    url = f"sqlite:///{tmp_path}/a.db"
    store = open_store(url, create=True)
    create(store, resolved, source)
    store.ask(store.acquire("llama", "x", 60.0), Candidate(0, resolved.space.start), Split.SEARCH)
    store.close()
    with TestClient(create_app(Settings(url)), base_url="http://127.0.0.1") as client:
        answer = client.get(f"{API}/llama/candidates/0/mergekit.yaml")
        assert answer.status_code == 200, answer.text
        assert "merge_method: task_arithmetic" in answer.text
        assert "base_model: m/base" in answer.text
        assert str(tmp_path) not in answer.text
        monkeypatch.setattr(recipes, "_ask", None)  # a second process would be an error
        assert client.get(f"{API}/llama/candidates/0/mergekit.yaml").text == answer.text
