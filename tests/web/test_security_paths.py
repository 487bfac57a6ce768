"""A launched study reaches nothing outside the server's folders, and answers name no place of the server."""

import os
from pathlib import Path
from typing import Any

import pytest
from web import stores
from web.inside import inside

from mergesearch.store.open import open_store
from mergesearch.types import Failed, Status
from mergesearch.web.security.paths import Cut, outside
from mergesearch.web.settings import Settings
from mergesearch.web.study_file import look, without_store

STUDY = """\
name: mine
models:
  base: runs/base
  experts: {{a: runs/a, b: {expert}}}
merge: {{operator: fisher, statistics: {{a: {statistics}, b: runs/b.safetensors}}}}
objectives:
  - name: a
    scorer: image_classification
    data: {{path: {data}}}
store: {store}
"""
FINE = {"expert": "runs/b", "statistics": "runs/s", "data": '"runs/{split}.npz"', "store": "sqlite:///x.db"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    root = tmp_path / "root"
    (root / "runs").mkdir(parents=True)
    (tmp_path / "root2").mkdir()
    (tmp_path / "rootless").mkdir()
    os.symlink("/etc", root / "runs" / "link")
    os.symlink(tmp_path / "root2", root / "runs" / "ours")
    os.symlink("loop", root / "runs" / "loop")
    os.symlink("/etc/passwd", root / "runs" / "leak-test.npz")
    return Settings("sqlite:///a.db", roots=(root.resolve(), (tmp_path / "root2").resolve()))


def test_what_stays_within_is_fine(settings: Settings, tmp_path: Path) -> None:
    """Relative paths start in the first root; absolute ones and links may lead into any of them."""
    for path in ("runs/b", "runs/../runs/b", f"{tmp_path}/root/runs/b", f"{tmp_path}/root2/b", "runs/ours/b", "."):
        spec, found = look(STUDY.format(**(FINE | {"expert": path})), settings)
        assert spec is not None
        assert not found, path


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../rootless", "runs/../../rootless", "runs/link/passwd", "~/x", "~root/x", "/", "..",
     "/proc/self/environ", "runs/loop/../../../x", "//etc/passwd"],
)  # fmt: skip
@pytest.mark.parametrize("key", ["expert", "statistics", "data"])
def test_what_leads_out_is_refused_with_its_line(settings: Settings, key: str, path: str) -> None:
    """'..', absolute paths and links, in models, statistics and data; the sentence names the key alone."""
    lines = {
        "expert": (4, "models.experts.b"),
        "statistics": (5, "merge.statistics.a"),
        "data": (9, "objectives.0.data"),
    }
    _, found = look(STUDY.format(**(FINE | {key: f'"{path}"'})), settings)
    assert [f.line for f in found] == [lines[key][0]]
    assert found[0].sentence.startswith(lines[key][1])
    assert str(settings.roots[0]) not in found[0].sentence


def test_every_split_of_a_pattern_is_looked_at(settings: Settings) -> None:
    """Only the file of the test split is a link that leads out."""
    _, found = look(STUDY.format(**(FINE | {"data": '"runs/leak-{split}.npz"'})), settings)
    assert [f.line for f in found] == [9]


@pytest.mark.parametrize("body", [{"x": {"y": ["/etc"]}}, {"x": "\0"}, {"strategy": {"file": "../../x"}}])
def test_keys_that_come_later_are_looked_at_too(settings: Settings, body: dict[str, Any]) -> None:
    """Nothing has to be known as a path to be refused."""
    assert list(outside(body, settings.roots[0], settings.roots))


def test_the_store_is_the_servers_own(settings: Settings) -> None:
    """The line is taken out; every other line stays where it was."""
    text = "name: a\nstore: 'sqlite:////etc/x.db'  # mine\nmodels: {}\n"
    assert without_store(text) == "name: a\n# store: this server's  # mine\nmodels: {}\n"
    assert without_store("{name: a, store: x}") == "name: a\n"
    assert without_store("name: a\nstore:\n  x\nb: 1\n").split("\n")[3] == "b: 1"


def test_what_is_no_study_is_said_with_its_line(settings: Settings) -> None:
    """Unknown keys, missing ones, broken YAML, no mapping, a password."""
    for text, line, word in (
        ("name: a\nmodel: x\n", 2, "unknown key"), ("- a\n", 1, "a mapping"), ("a: [\n", 2, "YAML"),
        ("", 1, "a mapping"),
    ):  # fmt: skip
        spec, found = look(text, settings)
        assert spec is None
        assert any(f.line == line and word in f.sentence for f in found), (text, found)
    spec, found = look(STUDY.format(**(FINE | {"store": "postgresql://me:hidden@host/db"})), settings)
    assert spec is None
    assert "hidden" not in found[-1].sentence


def test_places_of_the_server_are_cut_out_of_what_it_says(tmp_path: Path) -> None:
    """Those in a root become relative, others keep their last part; addresses and fractions stay."""
    cut = Cut([tmp_path])
    assert cut(f"cannot read '{tmp_path}/runs/a': gone") == "cannot read 'runs/a': gone"
    assert cut(f"in {tmp_path}") == "in ."
    assert cut(f'File "/usr/lib/python3.11/x.py", line 3, {tmp_path}x/y') == 'File "…/x.py", line 3, …/y'
    assert cut(f"--store sqlite:///{tmp_path}/a.db or sqlite:////var/x/b.db") == (
        "--store sqlite:///a.db or sqlite:///…/b.db"
    )
    for text in ("http://head:8265/api/jobs", "sqlite:///runs/a.db", "3/4 of 5/6", "runs/a/b", "see /login"):
        assert cut(text) == text


def test_secrets_are_cut_out_of_what_it_says(tmp_path: Path) -> None:
    """Passwords of URLs and keys that show what they are; ports and words of models stay."""
    cut = Cut([tmp_path])
    assert cut("at postgresql://me:hid@den@db:5432/x?password=also&a=1") == (
        "at postgresql://me:***@db:5432/x?password=***&a=1"
    )
    assert cut("401 for hf_abcdefghijklmnopqrstuvwx, api_key=12345") == "401 for hf_***, api_key=***"
    assert cut(f"No such file:{tmp_path}/a or:/usr/lib/x.so") == "No such file:a or:…/x.so"
    for text in ("http://host:80/a@b", "max_tokens=12, secrets of merging", "a:b@c"):
        assert cut(text) == text


def test_what_studies_say_leaves_the_server_without_its_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages of studies and failures and notes, in every answer, page and report that shows them."""
    url, hidden = f"sqlite:///{tmp_path}/s.db", f"{tmp_path}/models/x"
    said = f"cannot read {hidden}, /usr/lib/q.so of http://me:hunter2@host/"
    monkeypatch.setattr(stores, "Failed", lambda kind, _: Failed(kind, said))
    store = open_store(url)
    stores.fill(store, "x", evaluations=14)
    lease = store.acquire("x", "here:1:1:test", 600.0)
    store.set_status(lease, Status.FAILED, said)
    store.set_facts(lease, {"notes": [said]})
    store.release(lease)
    store.close()
    with inside(url, tmp_path) as client:
        api = ["studies", *(f"studies/x{more}" for more in ("", "/failures", "/log", "/candidates/11"))]
        pages = ["", "studies/x", "studies/x/candidates/11", "studies/x/report.html", "studies/x/table"]
        for path in [f"/api/v1/{one}" for one in api] + [f"/{one}" for one in pages]:
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert not any(word in answer.text for word in (str(tmp_path), "hunter2", "/usr/lib")), path
        assert client.get("/api/v1/studies/x").json()["message"].startswith("cannot read models/x, …/q.so")
        assert client.get("/api/v1/studies/x/failures").json()["failures"][0]["message"].startswith("cannot read mod")
        assert client.get("/studies/%00").json()["detail"].startswith("no study can be named")
