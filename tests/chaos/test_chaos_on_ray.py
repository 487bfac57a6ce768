"""Studies on a real Ray: workers, nodes and the head die, and candidates do their worst."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from chaos.child import Script
from chaos.harness import assert_whole, create, goes_on, hurry, quietly_kill, scorings, status, until
from chaos.nursery import Nursery
from chaos.ray_nodes import QUICK, Cluster, actors, cluster

from mergesearch.types import Failed, Status

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(240)]

STEPS = (
    *(("before submit", 3), ("after submit", 8), ("arrived", 11), ("before tell", 16), ("after tell", 21)),
    *(("before ask", 26), ("after ask", 32)),
)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Cluster]:
    """A head with four (lent) cores."""
    with cluster(4) as made:
        yield made


def script_of(cluster: Cluster, tmp_path: Path, name: str, **more: Any) -> Script:
    """A study with two workers, whose points do not depend on the order of results."""
    pool = {"pool": "ray", "address": cluster.address, "workers": 2, **more.pop("pool", {})}
    return create(
        Script(
            f"sqlite:///{tmp_path}/{name}.db",
            str(tmp_path / f"{name}.marks"),
            strategy="random",
            pool=pool,
            environment=QUICK,
            cluster=cluster.folder,
            **more,
        )
    )


def test_workers_that_die_at_every_step(ray_cluster: Cluster, tmp_path: Path, nursery: Nursery) -> None:
    """Killed while they start, wait, score, and send what they have: each job ends once, none fails for it."""
    evil = {"5": "die", "18": "die"}
    script = script_of(ray_cluster, tmp_path, "steps", evil=evil, budget=40.0, seconds=0.03, actors=STEPS)
    ended = nursery.run(script, 150.0)
    assert ended.code == 0, ended.said
    found = assert_whole(script)
    assert found.failed == 0
    assert scorings(script) >= len(found.outcomes) + len(evil)


def test_what_candidates_do_on_ray(ray_cluster: Cluster, tmp_path: Path, nursery: Nursery) -> None:
    """Raised, not a number, out of memory, hanging, deadly: Failed with its kind, and the study uses its budget."""
    evil = {"2": "raise", "4": "nan", "6": "memory", "8": "limited", "10": "hang"}
    script = script_of(ray_cluster, tmp_path, "evil", evil=evil, pool={"timeout_s": 3.0}, budget=20.0, failures=6)
    ended = nursery.run(script, 120.0)
    assert ended.code == 0, ended.said
    found = assert_whole(script)
    kinds = Counter(outcome.kind for outcome in found.outcomes.values() if isinstance(outcome, Failed))
    memory = kinds.pop("MemoryError", 0) + kinds.pop("_ArrayMemoryError", 0)
    assert (dict(kinds), memory) == ({"ValueError": 1, "not_finite": 1, "timeout": 1}, 2)


def test_deadly_candidates_stop_the_study(ray_cluster: Cluster, tmp_path: Path, nursery: Nursery) -> None:
    """A candidate that kills two workers has failed; when all do, the study stops with exit 6 and one sentence."""
    script = script_of(ray_cluster, tmp_path, "deadly", evil={"*": "die"}, failures=2, baselines=())
    ended = nursery.run(script, 120.0)
    assert ended.code == 6, ended
    assert "worker_lost" in ended.said
    mended = replace(script, evil={}, failures=5)
    assert nursery.run(mended, 60.0).code == 0
    found = assert_whole(mended)
    failed = [outcome for outcome in found.outcomes.values() if isinstance(outcome, Failed)]
    assert {outcome.kind for outcome in failed} == {"worker_lost"}
    assert 2 <= len(failed) <= 3  # one more may have been out


def test_a_controller_that_ends_leaves_a_study_to_resume(
    ray_cluster: Cluster, tmp_path: Path, nursery: Nursery
) -> None:
    """Ctrl-C, SIGTERM, SIGKILL with jobs on two workers: what was told stays, the workers go, and resumes take the rest
    to the end."""
    script = script_of(ray_cluster, tmp_path, "ended", budget=60.0, seconds=0.15)
    for how, code in ((signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)):
        pid = nursery.start(script)
        goes_on(script, 6)
        os.kill(pid, how)
        ended = nursery.wait(pid, 30)
        assert ended is not None
        assert ended.code == code, ended.said
        assert status(script) == ((Status.STOPPED, "interrupted") if code == 130 else (Status.RUNNING, ""))
        until("its workers end", lambda: not actors(ray_cluster.folder), 30)
    hurry(script)
    assert nursery.run(script, 60.0).code == 0
    found = assert_whole(script)
    assert len(found.outcomes) <= scorings(script) <= len(found.outcomes) + 9


def test_ray_s_memory_monitor(tmp_path: Path, nursery: Nursery) -> None:
    """A candidate that takes a node's memory is stopped by Ray before the system is; its job is tried again."""
    memory = psutil.virtual_memory()
    # Room enough that other tests, which run beside this one, do not use it up.
    limit = (memory.total - memory.available + 3 * 2**30) / memory.total
    if limit > 0.95:
        pytest.skip("this machine has less than 3 GiB to spare")
    with cluster(1, RAY_memory_usage_threshold=f"{limit:.4f}", RAY_memory_monitor_refresh_ms="100") as made:
        script = script_of(made, tmp_path, "memory", evil={"4": "eat"}, budget=10.0, pool={"workers": 1})
        ended = nursery.run(script, 120.0)
    assert ended.code == 0, ended.said
    found = assert_whole(script)
    assert found.failed == 0
    assert scorings(script) == len(found.outcomes) + 1


def test_a_node_that_dies_takes_no_job_along(tmp_path: Path, nursery: Nursery) -> None:
    """SIGKILL of the raylet of one of two nodes in the midst of its job: it ends elsewhere, once; then of the head:
    one sentence, exit 5, and when it is back a resume ends the study."""
    with cluster(1) as made:
        node = made.add(1)
        script = script_of(made, tmp_path, "nodes", budget=200.0, seconds=0.3, failures=3)
        script = replace(script, pool={**script.pool, "workers": "auto"})
        pid = nursery.start(script)
        try:
            until("both nodes work", lambda: len(actors(made.folder)) == 2 and scorings(script) >= 8, 90)
            node.kill("raylet")
            goes_on(script, 5)
            made.head.kill()
            ended = nursery.wait(pid, 60)
            assert ended is not None, "a controller without a cluster hangs"
            assert ended.code == 5, ended
            errors = [line for line in ended.said.splitlines() if line.startswith("error: ")]
            assert len(errors) == 1, ended.said
            assert "is gone" in errors[0]
            assert status(script)[0] is Status.STOPPED
        finally:
            quietly_kill(pid)
        made.start_head(2)
        hurry(script)
        ended = nursery.run(script, 90.0)
        assert ended.code == 0, ended.said
        found = assert_whole(script)
        assert found.failed == 0
        assert len(found.outcomes) < scorings(script) <= len(found.outcomes) + 4
