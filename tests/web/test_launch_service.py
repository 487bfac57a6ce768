"""A study that is checked, launched, paused, resumed, exported and scored through the REST API of a real server."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from web.serving import serving

from mergesearch.demo.smoke import make_smoke

STUDY = """\
name: mine
models:
  base: runs/smoke/base
  experts: {a: runs/smoke/a, b: runs/smoke/b}
merge: {operator: task_arithmetic, heads: ["classifier.*"]}
space: {groups: block, coefficient: {low: 0.0, high: 1.5, init: 0.5}}
objectives:
  - {name: a, scorer: image_classification, head: a, data: {path: "runs/smoke/data/a-{split}.npz"}}
  - {name: b, scorer: image_classification, head: b, data: {path: "runs/smoke/data/b-{split}.npz"}}
strategy: {kind: random, seed: 0}
budget: {evaluations: 100000}
store: sqlite:////nowhere/else.db
"""
PROFILE = "# Runs here. A second sentence.\npool: inline\n"


class Api:
    """The API of a server, with its token."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=90, trust_env=False
        )

    def post(self, path: str, body: dict[str, Any] | None = None, status: int | None = 202) -> dict[str, Any]:
        answer = self._client.post(path, json={} if body is None else body)
        assert status is None or answer.status_code == status, answer.text
        return dict(answer.json())

    def get(self, path: str) -> dict[str, Any]:
        return dict(self._client.get(path).raise_for_status().json())

    def until(self, path: str, right: Callable[[dict[str, Any]], bool], seconds: float = 90.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while True:
            answer = self._client.get(path)
            body = dict(answer.json())
            if answer.status_code == 200 and right(body):
                return body
            assert time.monotonic() < end, body
            time.sleep(0.2)


def ended(job: dict[str, Any]) -> bool:
    return bool(job["state"] != "running")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A server's folder with the models of the smoke study and a profile."""
    made = tmp_path / "root"
    make_smoke(made / "runs" / "smoke", seed=0)
    (made / "workers").mkdir()
    (made / "workers" / "here.yaml").write_text(PROFILE)
    return made


@pytest.mark.slow
def test_a_study_from_its_file_to_its_export(root: Path, tmp_path: Path) -> None:
    """Everything a person can ask for, one after the other; the study outlives the server that started it."""
    store = f"sqlite:///{root}/a.db"
    kept = {"MERGESEARCH_TOKEN_FILE": str(tmp_path / "token")}
    with serving(store, folder=root, environment=kept) as server:
        token = server.token
        api = Api(server.url, token)
        _checks(api, root)
        assert api.get("/profiles")["profiles"] == [{"name": "here", "explanation": "Runs here."}]
        api.post("/studies", {"text": STUDY, "profile": "../../etc/passwd"}, 422)
        started = api.post("/studies", {"text": STUDY, "profile": "here"})
        api.until("/studies/mine", lambda study: study["status"] == "running")
        os.kill(server.pid, signal.SIGKILL)
    with serving(store, folder=root, environment=kept) as server:
        assert server.token == ""
        api = Api(server.url, token)
        assert api.get(f"/jobs/{started['job']}")["state"] == "running"
        api.post("/studies", {"text": STUDY}, 409)
        api.post("/studies/mine/resume", {"evaluations": 200_000}, 409)
        api.until("/studies/mine/log", lambda log: "baseline" in str(log) or len(str(log)) > 2000)
        assert api.post("/studies/mine/pause")["asked"]
        # Somebody else, at the same time, is told that it was asked, unless the study has ended by now.
        assert api.post("/studies/mine/pause", status=None).get("asked") is not True
        job = api.until(f"/jobs/{started['job']}", ended)
        assert (job["state"], job["profile"]) == ("done", "here"), job["log"]
        assert str(root) not in job["log"]
        assert "not running" in api.post("/studies/mine/pause", status=409)["detail"]
        assert "not running" in api.post("/studies/mine/cancel", status=409)["detail"]
        _goes_on(api)
        _candidates(api, root)


def _checks(api: Api, root: Path) -> None:
    """Findings have lines; nothing outside of the root is looked at; no path of the server is said."""
    checked = api.post("/check", {"text": STUDY}, 200)
    assert checked["ok"], checked
    assert checked["axes"] == 8
    assert {2, 8, 9} <= {finding["line"] for finding in checked["findings"]}
    for wrong, lines in (
        ({"runs/smoke/b}": "runs/smoke/none}", "b-{split}": "c-{split}"}, {4, 9}),  # by models and data
        ({"task_arithmetic": "tasks", "head: b,": "head: c,"}, {5, 9}),  # by plug-ins
        ({"runs/smoke/b}": "/etc}", "strategy:": "strategie:"}, {4, 10}),  # by the file alone
    ):
        text = STUDY
        for old, new in wrong.items():
            text = text.replace(old, new)
        checked = api.post("/check", {"text": text}, 200)
        assert not checked["ok"]
        assert {f["line"] for f in checked["findings"] if f["level"] == "error"} >= lines, checked
        assert str(root) not in str(checked)
    api.post("/studies", {"text": STUDY.replace("runs/smoke/b}", "../b}")}, 422)


def _goes_on(api: Api) -> None:
    """With a budget that is below what was made, a resume ends the search and confirms."""
    for wrong in ({"evaluations": 0}, {"target": {"c": 1}}, {"plateau": {"evaluations": -1}}, {"target": {"a=1,b": 1}}):
        api.post("/studies/mine/resume", wrong, 422)
    started = api.post("/studies/mine/resume", {"evaluations": 2, "target": {"a": 0.5}, "profile": ""})
    job = api.until(f"/jobs/{started['job']}", ended)
    assert job["state"] == "done", job["log"]
    assert api.get("/studies/mine")["status"] == "done"


def _candidates(api: Api, root: Path) -> None:
    """An export lies in exports/; scoring builds anew and leaves nothing but its log."""
    for folder in ("../x", "/etc/x", "a/b", "-x", ".x", ""):
        api.post("/studies/mine/candidates/0/export", {"folder": folder}, 422)
    api.post("/studies/mine/candidates/99999999/export", status=404)
    export = api.post("/studies/mine/candidates/0/export", {"folder": "best"})
    score = api.post("/studies/mine/candidates/0/score", {"split": "confirm"})
    done = api.until(f"/jobs/{export['job']}", ended)
    assert done["state"] == "done", done["log"]
    assert (root / "exports" / "best" / "recipe.yaml").is_file()
    api.post("/studies/mine/candidates/0/export", {"folder": "best"}, 409)
    done = api.until(f"/jobs/{score['job']}", ended)
    assert done["state"] == "done", done["log"]
    assert "examples)" in done["log"]
    assert not (root / "runs" / "serve" / score["job"] / "checkpoint").exists()
    assert [job["kind"] for job in api.get("/jobs")["jobs"]] == ["score", "export", "resume", "launch"]
    shutil.rmtree(root / "exports")
