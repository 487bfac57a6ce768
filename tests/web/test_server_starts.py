"""A real server answers, and ends when it is told to."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from web import serving as started
from web.serving import serving
from web.stores import fill

from mergesearch.store.open import open_store
from mergesearch.types import Status


def test_a_server_starts_answers_and_ends(tmp_path: Path) -> None:
    """It says where it is before anyone can miss it."""
    with serving(f"sqlite:///{tmp_path}/a.db") as server:
        assert httpx.get(f"{server.url}/api/v1/openapi.json").json()["info"]["title"] == "mergesearch"
        assert httpx.get(f"{server.url}/static/plotly.min.js").status_code == 200
        assert httpx.get(f"{server.url}/static/style.css").status_code == 200


def test_it_ends_with_people_waiting_and_a_taken_port_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM ends it as Ctrl-C does, with 130 and no traceback, though streams are open and scorers wait for work.
    One that found its port taken has shown its new token all the same, since only the hash is kept."""
    ended: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def noted(*words: Any, **more: Any) -> "subprocess.Popen[str]":
        ended.append(popen(*words, **more))
        return ended[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    url = f"sqlite:///{tmp_path}/a.db"
    store = open_store(url)
    fill(store, "x", evaluations=3, status=Status.RUNNING)
    store.close()
    with ThreadPoolExecutor(2) as pool:
        with serving(url) as server:
            headers = {"Authorization": f"Bearer {server.token}"}
            ask = pool.submit(
                httpx.post, f"{server.url}/api/v1/studies/x/ask", json={"worker": "w", "wait_seconds": 20},
                headers=headers, timeout=30,
            )  # fmt: skip
            stream = pool.submit(httpx.get, f"{server.url}/api/v1/studies/x/events", timeout=30)
            second = subprocess.run(
                [sys.executable, "-m", "mergesearch", "serve", "--store", url, "--port", server.url.rpartition(":")[2]],
                capture_output=True, text=True, timeout=60, check=False,
                env={**os.environ, "PYTHONPATH": str(started.ROOT), "MERGESEARCH_TOKEN_FILE": f"{tmp_path}/token"},
            )  # fmt: skip
            assert not ask.done()
            assert not stream.done()
        assert ask.result(10).json()["offers"] == []
        assert "event: changed" in stream.result(10).text
    assert ended[0].returncode == 130
    assert "Traceback" not in capfd.readouterr().err
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "name another --port" in second.stderr
    assert "new token, which is shown only now: " in second.stdout
