"""Promises about a cluster that the study did not start: by address and by ray://, and when its head is lost."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_heads import ENVIRONMENT, Head, head

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.chaos]

DRIVER = """
import sys, time
from functools import partial
import numpy as np
from mergesearch.errors import PoolError
from mergesearch.pool.base import Job
from mergesearch.pool.function import FunctionWorker
from mergesearch.pool.profile import open_pool, parse_profile
from mergesearch.types import Split

def slow(values):
    import time
    time.sleep(600 * values[0])
    return {"sum": 1.5}

def say(text):
    sys.stdout.write(text + "\\n")
    sys.stdout.flush()

profile = parse_profile({"pool": "ray", "address": sys.argv[1], "workers": {"max": 1}}, "test")
pool = open_pool(profile, partial(FunctionWorker, slow, ("sum",)))
pool.submit(Job(0, Split.SEARCH, np.zeros(1), study="mnist"))
results = []
while not results:
    results = pool.poll(1.0)
say(f"scored {results[0].outcome.scores['sum'].value} {pool.size} {pool.usage().workers}")
pool.submit(Job(1, Split.SEARCH, np.ones(1), study="mnist"))
pool.poll(1.0)
say("ready")
begin = time.monotonic()
try:
    while True:
        pool.poll(0.5)
except PoolError as error:
    say(f"after {time.monotonic() - begin:.1f} {error}")
begin = time.monotonic()
pool.close()
say(f"closed {time.monotonic() - begin:.1f}")
sys.exit(5)
"""


@pytest.fixture
def one_head() -> Iterator[Head]:
    """A head of its own for each test: it will be killed."""
    with head() as found:
        yield found


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("scheme", "victim"), [("", "gcs_server"), ("ray://", "")])
def test_a_lost_head_ends_the_pool_with_one_sentence(one_head: Head, tmp_path: Path, scheme: str, victim: str) -> None:
    """A worker at host:port and at ray:// scores; when the head is killed, poll raises within 30 seconds and says how
    to go on, close does not hang, and the process ends by itself and not by Ray."""
    address = f"ray://127.0.0.1:{one_head.client}" if scheme else one_head.address
    (tmp_path / "driver.py").write_text(DRIVER)
    process = subprocess.Popen(
        [sys.executable, "driver.py", address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT},
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        assert lines == ["scored 1.5 1 1\n", "ready\n"], process.communicate(timeout=60)[1]
        one_head.kill(victim)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    said, closed = out.splitlines()
    _, seconds, sentence = said.split(" ", 2)
    assert float(seconds) < 30
    assert sentence == (
        f"the Ray cluster at {address} is gone; when it is back, go on with: mergesearch resume mnist"
    ), err
    assert float(closed.removeprefix("closed ")) < 5
    assert process.returncode == 5, err
