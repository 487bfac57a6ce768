"""status, pause and cancel from beside a running study, and launching on a real Ray cluster through its Jobs API."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres import Server
from ray_head import Head

from mergesearch.cli.app import main
from mergesearch.cli.common import DEFAULT_STORE, find, place
from mergesearch.cli.holding import holder
from mergesearch.demo.smoke import make_smoke
from mergesearch.errors import StudyNotFound
from mergesearch.pool.ray.jobs import entrypoint
from mergesearch.store.open import open_store
from mergesearch.types import Told

ROOT = Path(__file__).parents[2]
SMOKE = (ROOT / "studies" / "smoke.yaml").read_text()
LONG = 100_000
PATIENCE = 150.0  # a busy machine takes a minute to start Ray, a driver and a worker


def until(done: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Poll until `done`, or fail."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.1)


class Shell:
    """Types commands in a folder; every process it starts is gone in the end."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command that goes on."""
        # What is started behind (nohup, &) ignores Ctrl-C, and so would its children.
        command = ["env", "--default-signal=INT", sys.executable, "-m", "mergesearch", *words]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        self.started.append(process)
        return process

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        process = self.start(*words)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def study(self, name: str, **changes: object) -> str:
        """A smoke study in a file; returns the file's name."""
        text = SMOKE.replace("name: smoke", f"name: {name}")
        for old, new in changes.items():
            text = re.sub(rf"{old}: [^}}\n]+", f"{old}: {new}", text)
        (self.folder / f"{name}.yaml").write_text(text)
        return f"{name}.yaml"

    def evaluations(self, store: Path, name: str) -> int:
        """How many evaluations of a study were told."""
        if not store.exists():
            return 0
        opened = open_store(f"sqlite:///{store}", create=False)
        try:
            return sum(isinstance(event, Told) for event in opened.events(name))
        except StudyNotFound:
            return 0
        finally:
            opened.close()

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A folder with the smoke models, and a shell in it."""
    folder = tmp_path_factory.mktemp("beside")
    make_smoke(folder / "runs" / "smoke", seed=0)
    environment = {k: v for k, v in os.environ.items() if k != "MERGESEARCH_STORE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    made = Shell(folder, environment)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_status_pause_and_cancel_reach_a_running_study(shell: Shell) -> None:
    """Status says who runs it; pause and cancel are obeyed; of a study nobody runs both say so and leave no wish."""
    database = shell.folder / "beside.db"
    store = f"sqlite:///{database}"
    file = shell.study("beside", evaluations=LONG, store=store)
    running = shell.start("launch", file)
    until(lambda: shell.evaluations(database, "beside") > 3, "evaluations")
    body = json.loads(shell.run("status", file, "--json").stdout)
    assert (body["status"], body["alive"], body["budget"], body["asked_for"]) == ("running", True, LONG, [])
    assert str(running.pid) in body["owner"]

    paused = shell.run("pause", file, "--wait", "--timeout", "60")
    assert (paused.returncode, "paused on request" in paused.stdout) == (0, True), paused.stderr
    assert running.wait(timeout=PATIENCE) == 0
    again = shell.run("pause", "beside", "--store", store)
    assert (again.returncode, "is not running" in again.stderr) == (1, True)
    assert json.loads(shell.run("status", "beside", "--store", store, "--json").stdout)["asked_for"] == []

    resumed = shell.start("resume", file)
    before = shell.evaluations(database, "beside")
    until(lambda: shell.evaluations(database, "beside") > before, "more evaluations")
    assert shell.run("cancel", file, "--wait").returncode == 0
    assert resumed.wait(timeout=PATIENCE) == 0
    assert "cancelled" in shell.run("status", "--store", store).stdout


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_killed_controller_is_said_to_be_gone(shell: Shell) -> None:
    """On its own machine at once; a wish for it is refused, so that it stops nobody who resumes."""
    database = shell.folder / "gone.db"
    file = shell.study("gone", evaluations=LONG, store=f"sqlite:///{database}")
    running = shell.start("launch", file)
    until(lambda: shell.evaluations(database, "gone") > 3, "evaluations")
    running.kill()
    running.wait()
    body = json.loads(shell.run("status", file, "--json").stdout)
    assert (body["status"], body["alive"]) == ("running", False)
    assert "is gone; resume it" in body["controller"]
    assert shell.run("cancel", file).returncode == 1
    assert open_store(f"sqlite:///{database}", create=False).open_commands("gone") == []


def test_the_store_is_the_argument_the_file_the_environment_or_the_default(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In that order; what comes from the environment is never shown."""
    said = str(shell.folder / shell.study("said", store="sqlite:///said.db"))
    silent = shell.folder / "silent.yaml"
    silent.write_text(Path(said).read_text().replace("store: sqlite:///said.db\n", ""))
    monkeypatch.delenv("MERGESEARCH_STORE", raising=False)
    assert find(str(silent), None).store == DEFAULT_STORE
    monkeypatch.setenv("MERGESEARCH_STORE", "postgresql://me:hidden@db/x")
    assert find(said, "sqlite:///asked.db").store == "sqlite:///asked.db"
    assert find(said, None).typed == "said --store sqlite:///said.db"
    assert find(str(silent), None).store == "postgresql://me:hidden@db/x"
    assert find("said", None).typed == "said"
    assert place(None).secret


@pytest.mark.parametrize(
    ("profile", "words", "code", "sentence"),
    [
        ("pool: ray\njobs: http://127.0.0.1:9\nroot: /x\n", [], 5, "'http://127.0.0.1:9' cannot be used"),
        ("pool: ray\njobs: http://127.0.0.1:9\nroot: /x\n", ["--store", "memory://"], 2, "ends with the controller's"),
        (
            "pool: ray\njobs: http://h:1\nroot: /x\n",
            ["--store", "postgresql://u:pw@h/d"],
            2,
            "u:***@h/d' holds a password",
        ),
        ("pool: ray\njobs: http://127.0.0.1:9\n", [], 2, "'jobs' needs 'root: /folder'"),
        ("pool: ray\njobs: http://me:secret@127.0.0.1:9\nroot: /x\n", [], 2, "should match pattern"),
        ("pool: ray\njobs: http://h:1\nroot: /x\naddress: h:6379\n", [], 2, "leave 'address' out"),
        ("pool: inline\n", ["--detach"], 2, "--detach needs a workers profile with 'jobs"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_refused(
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    profile: str,
    words: list[str],
    code: int,
    sentence: str,
) -> None:
    """One sentence, before anything is recorded."""
    monkeypatch.chdir(shell.folder)
    Path("profile.yaml").write_text(profile)
    typed = ["mergesearch", "launch", shell.study("refused"), "--workers", "profile.yaml", *words]
    monkeypatch.setattr(sys, "argv", typed)
    with pytest.raises(SystemExit) as exit:
        main()
    err = capsys.readouterr().err
    assert (exit.value.code, sentence in err) == (code, True), err
    assert not (shell.folder / "runs" / "mergesearch.db").exists()


def test_the_command_of_a_job_quotes_what_it_is_given() -> None:
    """Paths with blanks arrive whole; files that travel are named where they land."""
    line = entrypoint("/a b", ["launch", "files:study.yaml", "--store", "postgresql://u@h/d?x=1&y=2"])
    assert "cd '/a b' ||" in line
    assert """launch "$files"/study.yaml --store 'postgresql://u@h/d?x=1&y=2'""" in line


@pytest.fixture(scope="module")
def head(postgres: Server) -> Iterator[Head]:
    """A Ray head of two CPUs, whose environment knows where the database's password stands."""
    with tempfile.TemporaryDirectory(prefix="mh") as folder:
        started = Head(Path(folder), cpus=2, extra=postgres.environment)
        try:
            yield started
        finally:
            started.close()


@pytest.fixture(scope="module")
def cluster(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A user's folder on another machine: it has the study files and a profile, but no models."""
    folder = tmp_path_factory.mktemp("user")
    make_smoke(head.folder / "shared" / "runs" / "smoke", seed=0)
    (folder / "cluster.yaml").write_text(
        f"pool: ray\njobs: {head.url}\nroot: {head.folder}/shared\nworkers: 1\nthreads_per_worker: 1\n"
    )
    made = Shell(folder, head.environment)
    yield made
    made.close()
    shutil.rmtree(head.folder / "shared")


@pytest.mark.ray
@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_study_is_launched_on_a_cluster_and_followed_to_its_end(cluster: Shell, head: Head, postgres: Server) -> None:
    """The log arrives, the exit code is the study's, nothing secret stands in what the cluster knows of the job; the
    store is a PostgreSQL that every machine reaches."""
    url = postgres.url(postgres.new_database())
    done = cluster.run("launch", cluster.study("there", evaluations=6), "--workers", "cluster.yaml", "--store", url)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "6 of 6" in done.stdout
    record = open_store(url, create=False).study("there")
    assert record.status.value == "done"

    wrong = cluster.study("wrong", evaluations=6, groups="{vit.embeddings: e}")
    profile = (cluster.folder / "cluster.yaml").read_text()
    (cluster.folder / "lost.yaml").write_text(profile.replace("/shared", "/nowhere"))
    stripped = {k: v for k, v in cluster.environment.items() if not k.startswith("RAY_AUTH")}
    stranger = Shell(cluster.folder, stripped | {"RAY_AUTH_MODE": "disabled", "HOME": str(cluster.folder)})
    rest = ["--store", "sqlite:///there.db", "--workers"]
    failed = cluster.start("launch", wrong, *rest, "cluster.yaml")
    lost = cluster.start("launch", cluster.study("astray"), *rest, "lost.yaml")
    refused = stranger.run("launch", wrong, *rest, "cluster.yaml")
    assert (refused.returncode, "asks for its token" in refused.stderr) == (5, True), refused.stderr
    out, err = failed.communicate(timeout=PATIENCE)
    assert (failed.returncode, "error:" in out) == (2, True), out + err
    out, err = lost.communicate(timeout=PATIENCE)
    assert (lost.returncode, "is no folder on the cluster's head" in out) == (2, True), out + err

    token = (head.folder / "token").read_text()
    listed = subprocess.run(
        [sys.executable, "-c", LIST, head.url], env=cluster.environment, capture_output=True, text=True, check=True
    )
    assert "mergesearch-there-" in listed.stdout
    assert token not in listed.stdout
    assert not any(password in listed.stdout for password in postgres.passwords.values())


LIST = """
import sys
from ray.job_submission import JobSubmissionClient
print(JobSubmissionClient(sys.argv[1]).list_jobs())
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_job_outlives_its_follower_and_a_killed_one_is_resumed(cluster: Shell, head: Head) -> None:
    """Ctrl-C detaches; `resume` follows the running job, or starts another where it was killed; `pause` ends it."""
    database = head.folder / "shared" / "long.db"
    store = ["--store", "sqlite:///long.db"]
    there = ["--store", f"sqlite:///{database}"]
    file = cluster.study("long", evaluations=LONG)
    first = cluster.start("launch", file, "--workers", "cluster.yaml", *store)
    until(lambda: cluster.evaluations(database, "long") > 3, "evaluations")
    os.kill(first.pid, signal.SIGINT)
    out, err = first.communicate(timeout=PATIENCE)
    assert first.returncode == 130, out + err
    assert "is a file on the cluster's head" in err
    assert "detached; the study goes on as job mergesearch-long-" in err
    twice = cluster.run("launch", file, "--workers", "cluster.yaml", *store)
    assert (twice.returncode, "works on study 'long' already" in twice.stderr) == (2, True)

    follower = cluster.start("resume", "long", "--workers", "cluster.yaml", *store)
    assert follower.stderr is not None
    until(lambda: "works on study 'long' already" in follower.stderr.readline(), "the follower")
    body = json.loads(cluster.run("status", "long", *there, "--json").stdout)
    assert body["alive"]
    os.kill(int(body["owner"].split(":")[1]), signal.SIGKILL)
    out, err = follower.communicate(timeout=PATIENCE)
    assert (follower.returncode, "was killed on the cluster" in err) == (5, True), out + err

    again = cluster.run("resume", "long", "--workers", "cluster.yaml", *store, "--detach")
    assert (again.returncode, "follow it: mergesearch resume long" in again.stdout) == (0, True), again.stderr
    before = cluster.evaluations(database, "long")
    until(lambda: cluster.evaluations(database, "long") > before, "more evaluations")
    follower = cluster.start("resume", "long", "--workers", "cluster.yaml", *store)
    assert follower.stderr is not None
    until(lambda: "works on study 'long' already" in follower.stderr.readline(), "the follower")
    paused = cluster.run("pause", "long", *there, "--wait")
    assert (paused.returncode, "paused on request" in paused.stdout) == (0, True), paused.stderr
    assert follower.wait(timeout=PATIENCE) == 0


def test_a_holder_without_a_lease_is_nobody() -> None:
    """A released study has no holder; an expired lease of another machine is not alive."""
    from mergesearch.store.base import StudyRecord
    from mergesearch.types import Status

    free = StudyRecord("x", "", "", Status.PAUSED, 0.0, 0.0)
    assert holder(free, 1.0) is None
    held = StudyRecord("x", "", "", Status.RUNNING, 0.0, 0.0, owner="elsewhere:12:3.0:ab", until=5.0)
    assert [holder(held, now) and holder(held, now).alive for now in (4.0, 6.0)] == [True, False]  # type: ignore[union-attr]
    assert holder(held, 4.0).where == "elsewhere:12"  # type: ignore[union-attr]


def test_the_jobs_api_is_imported_only_for_a_cluster() -> None:
    """Help and local launches do not load Ray's dashboard client."""
    code = "import sys, mergesearch.cli.app, mergesearch.cli.remote; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
