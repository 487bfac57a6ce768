"""The pages of all studies and of one: what they say, in every state, and that nothing in a study becomes markup."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from web.stores import fill

from mergesearch.space import SearchSpace
from mergesearch.store.open import open_store
from mergesearch.stored import describe
from mergesearch.types import Candidate, Failed, Objective, Score, Scored, Split, Status
from mergesearch.web.app import create_app
from mergesearch.web.pages.candidates_table import Choice, page_of
from mergesearch.web.pages.overview import age, sparkline
from mergesearch.web.pages.preference import preference, winners
from mergesearch.web.pages.studies import COLUMNS
from mergesearch.web.settings import Settings
from mergesearch.web.table import table_of

EVIL = "<script>alert(1)</script>"


def hostile(store):
    """A study whose every text would be markup: objectives, messages, notes, workers, figures."""
    aims = (Objective(f"{EVIL}a"), Objective('"b" onload=x'))
    facts = describe(
        SearchSpace.box(2, 0.0, 1.0), aims, 9, EVIL, notes=[EVIL], diagnostics={f"r2.{EVIL}a": 0.5, EVIL: 1}
    )
    store.create("hostile", f"name: hostile # {EVIL}", "", facts=facts)
    lease = store.acquire("hostile", f"{EVIL}:1:1:x", 600.0)
    for number in range(4):
        store.ask(lease, Candidate(number, np.full(2, number / 4), EVIL), Split.SEARCH)
        outcome = Scored({a.name: Score(0.1 * number + 0.2 * i * (3 - number)) for i, a in enumerate(aims)})
        store.tell(lease, number, Split.SEARCH, Failed(EVIL, f"{EVIL}\n&") if number == 3 else outcome)
    store.set_status(lease, Status.FAILED, EVIL)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Where the store is."""
    return f"sqlite:///{tmp_path_factory.mktemp('pages')}/a.db"


@pytest.fixture(scope="module")
def store(url):
    """A store with a study in each state."""
    found = open_store(url)
    fill(found, "two", evaluations=40)
    fill(found, "three", evaluations=40, objectives=3)
    fill(found, "one", evaluations=12, objectives=1, status=Status.PAUSED)
    fill(found, "left", evaluations=5, status=Status.RUNNING)
    aims = (Objective("a"), Objective("b"))
    found.create("new", "", "", facts=describe(SearchSpace.box(2, 0.0, 1.0), aims, 9, "cma_es"))
    hostile(found)
    yield found
    found.close()


@pytest.fixture(scope="module")
def client(store, url):
    """A client of a server on that store, on this machine."""
    return TestClient(create_app(Settings(url)), base_url="http://127.0.0.1")


def text(client, path):
    """A page that was found."""
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_an_empty_store_says_what_to_do(tmp_path: Path):
    """A newcomer reads the next command."""
    with TestClient(create_app(Settings(f"sqlite:///{tmp_path}/b.db")), base_url="http://127.0.0.1") as client:
        page = text(client, "/")
    assert "mergesearch demo" in page
    assert 'href="/launch"' in page


def test_the_list_shows_every_study_with_its_figures(client):
    """Name, status, progress, best, sparkline, failures, who launched it."""
    page = text(client, "/")
    assert set(re.findall(r'data-study="([^"]+)"', page)) == {"two", "three", "one", "left", "new", "hostile"}
    row = client.get("/studies/two/row").text
    assert "40 of 40" in row
    assert "<polyline" in row
    assert re.search(r"#\d+ \(mean [\d.]+±[\d.]+ %\)", row)
    assert "<td>5</td>" in row
    assert "ada@node7" in row


@pytest.mark.parametrize("key", list(COLUMNS))
def test_the_list_sorts_by_links(client, key):
    """Both ways, with what is not known last."""
    up = re.findall(r'data-study="([^"]+)"', text(client, f"/?sort={key}&order=asc"))
    down = re.findall(r'data-study="([^"]+)"', text(client, f"/?sort={key}&order=desc"))
    assert sorted(up) == sorted(down)
    assert key not in ("name",) or up == down[::-1]
    assert 'aria-sort="ascending"' in text(client, f"/?sort={key}&order=asc")


def test_the_list_filters_by_status_and_word(client):
    """And says when nothing fits."""
    assert re.findall(r'data-study="([^"]+)"', text(client, "/?status=paused")) == ["one"]
    assert re.findall(r'data-study="([^"]+)"', text(client, "/?q=THR")) == ["three"]
    assert "No study fits" in text(client, "/?q=nowhere")
    assert client.get("/?sort=evil").status_code == 422


def test_a_study_nobody_works_on_is_called_so(client):
    """Running, says its record; but its process is gone."""
    assert "left alone" in client.get("/studies/left/row").text
    page = text(client, "/studies/left")
    assert "Resume" in page
    assert "/pause" not in page


def test_a_study_page_has_its_numbers_before_any_script(client):
    """Facts, table, failures, log, time; and the charts' places."""
    page = text(client, "/studies/two")
    for words in ("on the front", "hypervolume", "40</span>", "What matters to you?", "17", "waiting for a worker"):
        assert words in page
    charts = re.findall(r'data-chart="([^"]+)"', page)
    assert {c.rsplit("/", 1)[1] for c in charts} == {"front", "convergence", "hypervolume", "parallel", "timing"}
    for chart in charts:
        assert client.get(chart).status_code == 200
    assert "the tensor &#39;x&#39; has shape" in page
    assert client.get("/studies/two/report.html").headers["content-disposition"].startswith("attachment")


def test_pages_hold_no_inline_script(client):
    """As their policy forbids it."""
    for path in ("/", "/studies/two", "/studies/hostile"):
        page = text(client, path)
        assert not re.findall(r"<script(?![^>]*\bsrc=)", page)
        assert not re.findall(r"<[^>]*\s(?:on\w+|style)=", re.sub(r'"[^"]*"', '""', page))


def test_hostile_texts_stay_texts(client):
    """In pages, rows, tables and charts."""
    for path in ("/", "/studies/hostile", "/studies/hostile/row", "/studies/hostile/table?show=all"):
        page = text(client, path)
        assert EVIL not in page
        assert "&lt;script&gt;" in page
    for chart in ("front", "convergence", "parallel", "fit"):
        body = client.get(f"/api/v1/studies/hostile/charts/{chart}").json()
        assert "<script" not in json.dumps(body)


def test_one_objective_has_no_front(client):
    """It says so, and shows the convergence."""
    page = text(client, "/studies/one")
    assert "has one objective" in page
    assert "charts/convergence" in page
    assert "charts/front" not in page
    assert client.get("/studies/one/preference.json").json() is None


def test_a_study_without_scores_says_what_comes(client):
    """No empty charts are taken for an error."""
    page = text(client, "/studies/new")
    assert "Nothing scored yet" in page
    assert client.get("/api/v1/studies/new/charts/front").json()["data"] == []
    assert EVIL.replace("<", "&lt;").replace(">", "&gt;") in text(client, "/studies/hostile")


def test_an_unknown_study_is_not_found(client):
    """Whatever is asked of it."""
    for path in ("", "/row", "/table", "/preference.json", "/report.html"):
        assert client.get(f"/studies/nobody{path}").status_code == 404


def test_a_large_study_is_read_behind_its_page(store, client):
    """The first content comes at once, without the log."""
    if "large" not in {r.name for r in store.studies()}:
        facts = describe(SearchSpace.box(2, 0.0, 1.0), (Objective("a"), Objective("b")), 100_000, "cma_es")
        store.create("large", "", "", facts=facts)
    assert "Reading the study" in text(client, "/studies/large")
    assert client.get("/api/v1/studies/large").status_code == 200
    assert "Reading the study" not in text(client, "/studies/large")
    store.remove("large")


def test_the_table_pages_sorts_and_filters(client):
    """25 a page, links that work without a script, any offset."""
    first = text(client, "/studies/two/table?show=all&sort=number")
    assert "1 to 25 of 45" in first
    assert "26 to 45 of 45" in text(client, "/studies/two/table?show=all&sort=number&offset=9999")
    numbers = [int(n) for n in re.findall(r">#(\d+)</a>", first)]
    assert numbers == sorted(numbers)
    assert "1 to 5 of 5" in text(client, "/studies/two/table?show=failed")
    assert "offset=25" in first
    assert client.get("/studies/two/table?show=evil").status_code == 422
    assert client.get("/studies/two/table?sort=score:99").status_code == 200


def test_a_preference_picks_what_the_api_picks(client):
    """The browser's sum over the scaled losses has its least value at the merge that `prefer` names."""
    found = client.get("/studies/three/preference.json").json()
    scaled = np.array(found["scaled"])
    assert scaled.min(axis=0) == pytest.approx(0)
    for weights in ([1, 0, 0], [0.2, 0.5, 0.3], [1, 1, 1]):
        names = [o["name"] for o in client.get("/api/v1/studies/three").json()["objectives"]]
        prefer = ",".join(f"{n}={w}" for n, w in zip(names, weights, strict=True))
        answer = client.get("/api/v1/studies/three/front", params={"prefer": prefer}).json()["preferred"]
        ours = found["numbers"][int(np.argmin(scaled @ np.array(weights)))]
        assert ours == answer


def test_winners_hold_every_extreme():
    """The best of each objective is among them, and nothing that no preference picks."""
    table = np.random.default_rng(0).random((3000, 3))
    found = winners(table, 500)
    assert set(table.argmin(axis=0)) <= set(found.tolist())
    for row in found:
        assert not (np.all(table < table[row], axis=1)).any()


def test_a_sparkline_rises_and_stays_within_its_box():
    """However many points it has."""
    corners = [tuple(map(float, c.split(","))) for c in sparkline(range(5000), np.linspace(0, 7, 5000)).split()]
    assert len(corners) < 300
    assert all(0 <= x <= 110 and 0 <= y <= 28 for x, y in corners)
    assert [y for _, y in corners] == sorted((y for _, y in corners), reverse=True)
    assert sparkline([], []) == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3, "just now"),
        (60, "1 minute ago"),
        (7300, "2 hours ago"),
        (86400 * 3, "3 days ago"),
        (86400 * 400, "1970-01-01"),
    ],
)
def test_an_age_reads_as_people_say_it(seconds, words):
    """Exact times stand in the title."""
    assert age(0.0, float(seconds)) == words


def test_what_is_not_known_sorts_last(store):
    """Failed candidates come after all scores, in either order."""
    from mergesearch.report.view import read_view

    view = read_view(store, "two")
    made = table_of(view, Split.SEARCH)
    for order in ("asc", "desc"):
        last = page_of(view, made, Choice("all", "score:0", order, 25), {}).lines[-5:]
        assert {line.state for line in last} == {"failed"}
    assert preference(view)["objectives"] == ["a % ↑", "b % ↑"]
