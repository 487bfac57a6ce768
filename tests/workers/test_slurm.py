"""The Slurm script, run for real with Slurm's commands replaced: two Ray nodes of this machine, a study to its end."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_head import end, environment, free_port

from mergesearch.demo.smoke import make_smoke
from mergesearch.store.open import open_store
from mergesearch.types import Split, Told

ROOT = Path(__file__).parents[2]
EVALUATIONS = 8

# Each does here what Slurm's command of that name does, as far as the script uses it.
COMMANDS = {
    "sbatch": """
while [[ $1 == --* ]]; do shift; done
exec bash "$@"
""",
    "srun": """
while [[ $1 == --* ]]; do echo "$1" >> "$CALLS"; shift; done
if [ "$1" = hostname ]; then echo "127.0.0.1 10.0.0.1"; exit; fi
exec "$@"
""",
    "scontrol": """
[ "$*" = "show hostnames node[1-2]" ] && printf 'node1\\nnode2\\n'
""",
}


@pytest.fixture
def job() -> Iterator[int]:
    """A job's number; whatever ran under it is gone in the end."""
    number = 10_000_000 + secrets.randbelow(10_000_000)
    yield number
    end(Path(f"/tmp/ray-{number}"))
    shutil.rmtree(f"/tmp/ray-{number}", ignore_errors=True)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_slurm_script_runs_a_study_to_its_end(tmp_path: Path, job: int) -> None:
    """A head and a worker node come up, the study is done on both, and the token does not stay behind."""
    make_smoke(tmp_path / "runs" / "smoke", seed=0)
    text = (ROOT / "studies" / "smoke.yaml").read_text()
    (tmp_path / "smoke.yaml").write_text(text.replace("evaluations: 60", f"evaluations: {EVALUATIONS}"))
    bin = tmp_path / "bin"
    bin.mkdir()
    for name, body in {**COMMANDS, "mergesearch": '\nexec python -m mergesearch "$@"\n'}.items():
        (bin / name).write_text(f"#!/usr/bin/env bash{body}")
        (bin / name).chmod(0o755)
    base = {k: v for k, v in environment(tmp_path / "none").items() if not k.startswith("RAY_AUTH")}
    slurm = {
        "PATH": f"{bin}{os.pathsep}{base['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_CPUS_PER_TASK": "1",
        "PROFILE": str(ROOT / "workers" / "on-cluster.yaml"),
        "PORT": str(free_port()),
        "RAY_HEAD_OPTIONS": f"--dashboard-agent-listen-port={free_port()} --object-store-memory=100000000",
        "RAY_WORKER_OPTIONS": f"--dashboard-agent-listen-port={free_port()} --object-store-memory=100000000 "
        "--node-ip-address=127.0.0.1",
    }
    log = tmp_path / "log"
    with log.open("wb") as file:  # not a pipe: Ray's daemons outlive the script for seconds and would hold it
        done = subprocess.run(
            ["sbatch", "--nodes=2", str(ROOT / "workers" / "bring-up" / "slurm.sh"), "smoke.yaml"],
            cwd=tmp_path,
            env=base | slurm,
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=150,
        )
    assert done.returncode == 0, log.read_text()[-4000:]
    store = open_store(f"sqlite:///{tmp_path}/runs/mergesearch.db", create=False)
    told = [
        e
        for e in store.events("smoke")
        if isinstance(e, Told) and e.split is Split.SEARCH and e.candidate.point is not None
    ]
    assert store.study("smoke").status.value == "done"
    assert sum(event.candidate.point is not None for event in told) == EVALUATIONS
    store.close()
    calls = (tmp_path / "calls").read_text()
    assert "--nodelist=node1" in calls
    assert "--nodelist=node2" in calls
    assert list(tmp_path.glob(".ray-*")) == []
