"""Processes that people started from a page: `mergesearch launch`, `resume`, `export`, `score`, `check`.

Each has a folder under the first root, with what it was asked, its log and its exit code: a server that starts again
still knows it, and it goes on when the server ends.
"""

import json
import os
import re
import secrets
import signal
import subprocess  # nosec B404  # commands are lists of words made here, without a shell
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final, TypeAlias

from fastapi import Depends, HTTPException, Request

from mergesearch.errors import LeaseError, MergesearchError
from mergesearch.store.urls import has_password
from mergesearch.web import keeping
from mergesearch.web.settings import STORE_VARIABLE, Settings

FOLDER: Final = Path("runs") / "serve"
ID: Final = r"^[0-9]{8}-[0-9]{6}-[0-9a-f]{8}$"
LOG_BYTES: Final = 200_000
"""The end of a log that a page shows."""
CHECK_SECONDS: Final = 60.0
CHECKS: Final = 2
"""Checks of study files at once."""
_SECRETS: Final = ("MERGESEARCH_TOKEN", "MERGESEARCH_TOKEN_FILE")


class Busy(MergesearchError):
    """As many processes run as the server starts at once."""


class State(StrEnum):
    """How a job stands; STOPPED: somebody ended it; LOST: its process is gone and left no exit code."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


@dataclass(frozen=True)
class Job:
    """A process that was started for `study`. `kind` is the command; `started` seconds since the epoch; `code` its exit
    code, None while it runs; `profile` and `candidate` what it was started with, '' and None for none."""

    id: str
    kind: str
    study: str
    started: float
    state: State
    code: int | None = None
    profile: str = ""
    candidate: int | None = None


def _drives(job: Job, study: str) -> bool:
    return job.study == study and job.kind in ("launch", "resume")


class Jobs:
    """The jobs of one server. Any thread may call. `most`: how many may run at once."""

    def __init__(self, settings: Settings, most: int | None = None) -> None:
        self._settings = settings
        self._folder = settings.roots[0] / FOLDER
        self._most = settings.jobs if most is None else most
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._checks = threading.BoundedSemaphore(CHECKS)

    def working_on(self, study: str) -> bool:
        """Whether a launch or resume of the study that was started here still runs."""
        return any(job.state is State.RUNNING and _drives(job, study) for job in self.all())

    def start(
        self,
        kind: str,
        study: str,
        commands: Sequence[Sequence[str]],
        *,
        files: Mapping[str, str] | None = None,
        profile: str = "",
        candidate: int | None = None,
        cwd: Path | None = None,
        remove: Sequence[str] = (),
        alone: bool = False,
    ) -> Job:
        """Start `mergesearch WORDS` for each of `commands`, one after the other.

        A word '{job}/x' is the file x of the job's folder, where `files` are written before. It runs in a session of
        its own, in `cwd` (the first root unless given). The store's URL goes by the environment where it may hold a
        password.

        Raises:
            Busy: too many run already. LeaseError: `alone`, and another launch or resume of the study runs.
            MergesearchError: the folder cannot be written.
        """
        with self._lock:
            running = [job for job in self.all() if job.state is State.RUNNING]
            if len(running) >= self._most:
                raise Busy(
                    f"this server runs {len(running)} processes already, as many as it may at once; wait until one ends"
                )
            if alone and any(_drives(job, study) for job in running):
                raise LeaseError(f"a process that was started here works on study {study!r} already")
            job = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
            folder = self._folder / job
            try:
                folder.mkdir(parents=True)
                for name, text in (files or {}).items():
                    (folder / Path(name).name).write_text(text, encoding="utf-8")
                made = Job(job, kind, study, time.time(), State.RUNNING, None, profile, candidate)
                body = asdict(made) | {
                    "commands": [self._words(command, folder) for command in commands],
                    "cwd": str(cwd or self._settings.roots[0]),
                    "remove": list(remove),
                }
                (folder / "job.json").write_text(json.dumps(body), encoding="utf-8")
                self._children[job] = self._spawn(folder)
            except OSError as error:
                raise MergesearchError(f"the server cannot write its folder {FOLDER}: {error.strerror}") from None
            return made

    def all(self) -> list[Job]:
        """All jobs, newest first."""
        if not self._folder.is_dir():
            return []
        names = [p.name for p in self._folder.iterdir() if re.match(ID, p.name)]
        found = [job for name in names if (job := self.find(name)) is not None]
        return sorted(found, key=lambda job: job.started, reverse=True)

    def find(self, job: str) -> Job | None:
        """A job by its id; None if there is none, or the id cannot be one."""
        if not re.match(ID, job):
            return None
        folder = self._folder / job
        try:
            body = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        state, code = self._state(job, folder)
        return Job(job, body["kind"], body["study"], body["started"], state, code, body["profile"], body["candidate"])

    def of_study(self, study: str) -> list[Job]:
        """The jobs of a study, newest first."""
        return [job for job in self.all() if job.study == study]

    def stop(self, job: Job) -> bool:
        """End a running job as Ctrl-C would; False if it has ended."""
        if self.find(job.id) != job or job.state is not State.RUNNING:
            return False
        try:
            pid, started = (self._folder / job.id / "pid").read_text(encoding="utf-8").split()
            if _started(int(pid)) != started:
                return False
            os.kill(int(pid), signal.SIGTERM)
        except (OSError, ValueError):
            return False
        return True

    def log(self, job: Job) -> str:
        """The end of what a job said."""
        try:
            with (self._folder / job.id / "log").open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - LOG_BYTES))
                return file.read(LOG_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""

    def _words(self, command: Sequence[str], folder: Path) -> list[str]:
        words = [word.replace("{job}", str(folder)) if word.startswith("{job}/") else word for word in command]
        return [sys.executable, "-m", "mergesearch", *words]

    def check(self, text: str) -> dict[str, Any] | None:
        """What `mergesearch check` says of a study file; None if it took too long.

        Raises:
            Busy: others check theirs. MergesearchError: the check itself broke.
        """
        if not self._checks.acquire(timeout=CHECK_SECONDS):
            raise Busy("others check their study files just now; try again in a minute")
        try:
            with TemporaryDirectory(prefix="mergesearch-") as made:
                file = Path(made) / "study.yaml"
                file.write_text(text, encoding="utf-8")
                words = [sys.executable, "-m", "mergesearch", "check", str(file), "--json", *self.store_option]
                process = subprocess.Popen(  # nosec B603  # the interpreter, our command, a file made here
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=self._environment(),
                    cwd=self._settings.roots[0],
                    start_new_session=True,
                )
                try:
                    said, _ = process.communicate(timeout=CHECK_SECONDS)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.communicate()
                    return None
            return dict(json.loads(said))
        except (OSError, ValueError):
            raise MergesearchError("the check ended without an answer; the server's machine may lack memory") from None
        finally:
            self._checks.release()

    def _environment(self) -> dict[str, str]:
        """That of the server, without its token, with the store; relative places to import from made absolute."""
        environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}
        paths = [str(Path(part).resolve()) for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
        package = Path(keeping.__file__).parents[2]
        if package.name not in ("site-packages", "dist-packages"):
            paths.append(str(package))
        if paths:
            environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        return environment | {STORE_VARIABLE: self.store, "PYTHONUNBUFFERED": "1", "COLUMNS": "100"}

    def _spawn(self, folder: Path) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(  # nosec B603  # the interpreter, a file of ours, a folder made here
            [sys.executable, keeping.__file__, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment(),
            start_new_session=True,
        )
        (folder / "pid").write_text(f"{process.pid} {_started(process.pid)}", encoding="utf-8")
        return process

    @property
    def store(self) -> str:
        """The store's URL for a process that starts elsewhere: a relative SQLite file made absolute."""
        scheme, separator, rest = self._settings.store.partition(":///")
        if scheme == "sqlite" and separator and not rest.startswith("/"):
            return f"{scheme}:///{Path.cwd() / rest}"
        return self._settings.store

    @property
    def store_option(self) -> list[str]:
        """['--store=URL'] where it holds no password; else the environment says it alone."""
        return [] if self._settings.secret or has_password(self.store) else [f"--store={self.store}"]

    def _state(self, job: str, folder: Path) -> tuple[State, int | None]:
        child = self._children.get(job)
        if child is not None:
            child.poll()  # takes the ended process away
        if (ended := _ended(folder)) is not None:
            return ended
        try:
            pid, started = (folder / "pid").read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            return State.RUNNING if child is None and _young(folder) else State.LOST, None
        alive = _started(int(pid)) == started and (child is None or child.returncode is None)
        return (State.RUNNING, None) if alive else _ended(folder) or (State.LOST, None)  # it may have ended just now


def _ended(folder: Path) -> tuple[State, int] | None:
    """How a job ended, as its process wrote down; None while it has not."""
    try:
        number, *more = (folder / "code").read_text(encoding="utf-8").split()
        return State.STOPPED if more else State.DONE if number == "0" else State.FAILED, int(number)
    except (OSError, ValueError):
        return None


def _young(folder: Path) -> bool:
    """Whether a job's folder was made just now, so that its process may not be written down yet."""
    return time.time() - folder.stat().st_mtime < 5.0


def _started(pid: int) -> str:
    """When a process of this machine started, in ticks since the boot, and the boot; '-' if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")[:8]
        return "-" if fields[0] == "Z" else f"{fields[19]}-{boot}"
    except OSError:
        return "-"


def jobs_of(request: Request) -> Jobs:
    """The jobs of the server behind a request."""
    found: Jobs = request.app.state.jobs
    return found


JobsOf: TypeAlias = Annotated[Jobs, Depends(jobs_of)]


def too_many(error: Busy) -> HTTPException:
    """The answer to somebody who has to wait."""
    return HTTPException(429, str(error), {"Retry-After": "30"})
