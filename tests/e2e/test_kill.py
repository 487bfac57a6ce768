"""A controller killed with SIGKILL at random moments loses nothing and counts nothing twice."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mergesearch.space import SearchSpace
from mergesearch.store.open import open_store
from mergesearch.stored import describe, read_stored
from mergesearch.types import Objective, Split, Status

KILLS = 20
EVALUATIONS = 60
CONTROLLER = """
import sys, time
import numpy as np
from mergesearch.controller.loop import Controller, StudyRun
from mergesearch.controller.search import make_strategy
from mergesearch.pool.function import FunctionWorker
from mergesearch.pool.profile import Profile, open_pool
from mergesearch.space import SearchSpace
from mergesearch.store.open import open_store
from mergesearch.strategies.base import Problem
from mergesearch.types import Objective

def function(values):
    time.sleep(0.004)
    return {"up": -float(((values - 0.7) ** 2).sum()), "cost": float(values.sum())}

url, evaluations = sys.argv[1], int(sys.argv[2])
space = SearchSpace.box(5, 0.0, 1.0)
problem = Problem(5, (Objective("up"), Objective("cost")), space.start, evaluations)
run = StudyRun("s", problem.objectives, evaluations, make_strategy("cma_es", problem, 0, {}), lambda c: space.values(
    np.full(5, 0.5) if c.point is None else c.point), baselines=("baseline:base", "baseline:expert:a"), finalists=3)
store = open_store(url)
print("ready", flush=True)
Controller(run, store, open_pool(Profile(), lambda: FunctionWorker(function, ("up", "cost")))).run()
"""


def start(url: str) -> "subprocess.Popen[str]":
    """A controller in a process of its own, once it is about to run."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", CONTROLLER, url, str(EVALUATIONS)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_kills_lose_nothing(tmp_path: Path) -> None:
    """Twenty kills and a last resume: the budget exactly, each evaluation once, the points of an undisturbed study."""
    url = f"sqlite:///{tmp_path / 'killed.db'}"
    calm = f"sqlite:///{tmp_path / 'calm.db'}"
    objectives = (Objective("up"), Objective("cost"))
    for each in (url, calm):
        store = open_store(each)
        store.create(
            "s", "", "", time.time(), describe(SearchSpace.box(5, 0.0, 1.0), objectives, EVALUATIONS, "cma_es")
        )
        store.close()
    moments = random.Random(7)
    told_before = 0
    for _ in range(KILLS):
        process = start(url)
        try:
            process.wait(timeout=moments.uniform(0.0, 0.12))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
        told = len(read_stored(open_store(url), "s").results.outcomes)
        assert told >= told_before, "an evaluation that was told is gone"
        told_before = told
    for each in (url, calm):
        last = start(each)
        assert last.wait(timeout=120) == 0
        last.stdout.close()  # type: ignore[union-attr]
    killed, undisturbed = (read_stored(open_store(each), "s") for each in (url, calm))
    assert killed.record.status is Status.DONE
    assert killed.results.search_told == undisturbed.results.search_told == EVALUATIONS
    assert killed.results.pending == []
    assert len(killed.results.outcomes) == len(undisturbed.results.outcomes)
    assert sum(split is Split.TEST for _, split in killed.results.outcomes) >= 3
    for number, candidate in undisturbed.results.candidates.items():
        if candidate.point is not None:
            assert np.array_equal(killed.results.candidates[number].point, candidate.point)
