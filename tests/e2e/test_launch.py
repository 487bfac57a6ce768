"""Whole studies of real (tiny) models: both pools, an interrupted launch, two controllers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import mergesearch
from mergesearch.demo.smoke import make_smoke
from mergesearch.pool.profile import load_profile
from mergesearch.results import Results
from mergesearch.store.open import open_store
from mergesearch.stored import read_stored
from mergesearch.types import Split, Status

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the smoke experts."""
    made = tmp_path_factory.mktemp("clone")
    make_smoke(made / "runs" / "smoke", seed=0)
    return made


def study_file(folder: Path, name: str, **changes: str) -> Path:
    """The smoke study under another name, some of its text changed."""
    text = (ROOT / "studies" / "smoke.yaml").read_text().replace("name: smoke", f"name: {name}")
    for old, new in {"mergesearch.db": f"{name}.db", **changes}.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def scores(results: Results) -> Mapping[int, list[float]]:
    """Candidate -> its scores on the search split."""
    return {n: [s.value for s in results.outcome(n).scores.values()] for n in results.scored}  # type: ignore[union-attr]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_pools_give_the_same_results(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`random` does not depend on the order of results: Ray workers and this process find the same scores."""
    monkeypatch.chdir(folder)
    changes = {"kind: cma_es": "kind: random", "evaluations: 60": "evaluations: 16"}
    inline = mergesearch.launch(study_file(folder, "inline", **changes))
    ray = mergesearch.launch(study_file(folder, "ray", **changes), workers=load_profile(ROOT / "workers/laptop.yaml"))
    points = {n: c.point for n, c in inline.results.candidates.items() if c.point is not None}
    assert len(points) == 16
    assert scores(inline.results) == scores(ray.results)
    for number, point in points.items():
        assert np.array_equal(ray.results.candidates[number].point, point)
    inline.store.close()
    ray.store.close()


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """The command line in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mergesearch", *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # Whoever runs the tests in the background may have told them to ignore Ctrl-C: a user's shell does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_evaluations(url: str, name: str, count: int) -> None:
    """Until the study has that many evaluations; the test's own time limit ends a wait in vain."""
    while True:
        try:
            store = open_store(url, create=False)
            told = read_stored(store, name).results.search_told
            store.close()
            if told >= count:
                return
        except mergesearch.MergesearchError:
            pass
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_launch_can_be_resumed(folder: Path, number: signal.Signals) -> None:
    """Ctrl-C and a cluster's SIGTERM end with exit 130 and say how to go on; resume ends with the whole budget."""
    name = number.name.lower()
    path = study_file(folder, name, **{"evaluations: 60": "evaluations: 3000"})
    url = f"sqlite:///{folder}/runs/{name}.db"
    process = start(folder, "launch", path.name)
    wait_for_evaluations(url, name, 5)
    second = start(folder, "resume", name, "--store", url)
    _, refusal = second.communicate(timeout=120)
    assert second.returncode == 4
    assert "is being run by" in refusal
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"mergesearch resume {name}" in said
    assert "Traceback" not in said
    store = open_store(url)
    stopped = read_stored(store, name)
    assert stopped.record.status is Status.STOPPED
    store.close()
    told = stopped.results.search_told
    assert told < 3000
    shown = start(folder, "show", name, "--store", url, "--json")
    out, _ = shown.communicate(timeout=120)
    assert json.loads(out)["status"] == "stopped"


@pytest.mark.slow
def test_a_scorer_that_fails_on_one_candidate_is_recorded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge whose scores are not finite is Failed with its message, and the study goes on to its end."""
    monkeypatch.chdir(folder)
    changes = {"coefficient: {low: 0.0, high: 1.5, init: 0.5}": "coefficient: {low: -1.0e30, high: 1.0e30, init: 0.5}"}
    path = study_file(
        folder, "wild", **changes, **{"kind: cma_es": "kind: random", "evaluations: 60": "evaluations: 4"}
    )
    launched = mergesearch.launch(path)
    assert launched.results.search_told == 4
    assert launched.results.failed == 3  # all but the start
    assert launched.results.outcome(launched.results.by_origin("start") or 0, Split.SEARCH) is not None
    assert launched.store.study("wild").status is Status.DONE
    launched.store.close()
