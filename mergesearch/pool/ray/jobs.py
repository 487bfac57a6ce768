"""Runs a command on a Ray cluster as a job of its Jobs API, and follows it from outside.

The job outlives whoever submitted it. Nothing secret is handed over: what is submitted stands in the cluster's
metadata, readable to all who reach its dashboard.
"""

import asyncio
import logging
import shlex
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from mergesearch.errors import PoolError
from mergesearch.pool.jobs import one_sentence

KNOCK_SECONDS = 10.0
AWAY_SECONDS = 60.0  # a head that does not answer for longer is taken for gone
AGAIN_SECONDS = 1.0
INTERRUPTED = 130
NO_FOLDER = 2  # exit code where the profile's root is no folder on the cluster
STUDY, STORE = "mergesearch_study", "mergesearch_store"  # keys of the job's metadata

_LOG = logging.getLogger(__name__)


@final
class Jobs:
    """The Jobs API of one cluster. Every method raises PoolError where it does not answer or refuses."""

    def __init__(self, url: str) -> None:
        """`url` is that of the cluster's dashboard, 'http://head:8265'."""
        self._url = url
        with self._reached():
            _knock(url)
            self._client = JobSubmissionClient(url)
        for handler in logging.getLogger("ray").handlers:
            handler.setLevel(logging.WARNING)  # Ray's client tells of each upload

    def running(self, study: str, store: str) -> str | None:
        """The id of a job that works on this study of the store that `store` stands for, if one has not ended."""
        with self._reached():
            found = self._client.list_jobs()
        said = {STUDY: study, STORE: store}
        mine = [job for job in found if said.items() <= (job.metadata or {}).items() and not job.status.is_terminal()]
        return str(mine[-1].submission_id) if mine else None

    def submit(self, study: str, store: str, root: str, arguments: Sequence[str], files: Mapping[str, str]) -> str:
        """Start `mergesearch ARGUMENTS` in folder `root` of the cluster; returns the job's id.

        `files` (name -> text) travel with it; an argument 'files:NAME' becomes the path of one of them there.
        """
        job = f"mergesearch-{study}-{uuid.uuid4().hex[:8]}"
        with self._reached(), tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                (Path(folder) / name).write_text(text, encoding="utf-8")
            self._client.submit_job(
                entrypoint=entrypoint(root, arguments),
                submission_id=job,
                runtime_env={"working_dir": folder},
                metadata={STUDY: study, STORE: store},
            )
        return job

    def stop(self, job: str) -> None:
        """End a job as Ctrl-C would, or, where it does not obey within seconds, by force."""
        with self._reached():
            self._client.stop_job(job)

    def follow(self, job: str, write: Callable[[str], None]) -> int:
        """Hand the job's log to `write`, from its beginning, until the job ends; returns its own exit code.

        A job that somebody stopped gives 130. KeyboardInterrupt passes through and leaves the job running.

        Raises:
            PoolError: the job was killed, or its cluster does not answer any more.
        """
        self._tail_in_a_thread(job, write)
        info = self._info(job)
        code = info.driver_exit_code
        if info.status == JobStatus.STOPPED:
            return INTERRUPTED
        if info.status == JobStatus.SUCCEEDED:
            return 0
        if code is not None and code > 0:
            return int(code)
        raise PoolError(f"job {job!r} was killed on the cluster at {self._url}: {info.message or 'nobody knows why'}")

    def _tail_in_a_thread(self, job: str, write: Callable[[str], None]) -> None:
        """Ray's client may swallow the cancellation that Ctrl-C would be to a loop in this thread."""
        raised: list[BaseException] = []

        def tail() -> None:
            try:
                asyncio.run(self._tail(job, write))
            except BaseException as error:  # noqa: BLE001 - raised again below
                raised.append(error)

        thread = threading.Thread(target=tail, name=f"log of {job}", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.2)
        if raised:
            raise raised[0]

    async def _tail(self, job: str, write: Callable[[str], None]) -> None:
        """Pass the log on until the job has ended. A link that breaks is made again, where it broke off."""
        seen = 0
        while True:
            passed = 0
            try:
                async with aclosing(self._chunks(job)) as chunks:
                    async for chunk in chunks:
                        fresh = chunk[max(0, seen - passed) :]
                        passed += len(chunk)
                        if fresh:
                            write(fresh)
            except (OSError, RuntimeError) as error:
                _LOG.debug("the log of %s broke off: %s", job, error)
            seen = max(seen, passed)
            info = await asyncio.to_thread(self._info, job)
            if info.status.is_terminal():
                return
            await asyncio.sleep(AGAIN_SECONDS)

    async def _chunks(self, job: str) -> AsyncGenerator[str, None]:
        """Ray's own iterator, whose errors have no common root."""
        import aiohttp  # comes with Ray's dashboard

        try:
            async for chunk in self._client.tail_job_logs(job):
                yield chunk
        except aiohttp.ClientError as error:
            raise RuntimeError(str(error)) from error

    def _info(self, job: str) -> Any:
        """What the cluster knows of a job; asked again for a while where it does not answer."""
        end = time.monotonic() + AWAY_SECONDS
        while True:
            try:
                _knock(self._url)
                return self._client.get_job_info(job)
            except AuthenticationError as error:
                raise self._refused(error) from error
            except (OSError, RuntimeError) as error:
                if time.monotonic() >= end:
                    raise PoolError(
                        f"the cluster at {self._url} does not answer any more: {one_sentence(error)}; what was "
                        "evaluated is in the study's store"
                    ) from error
            time.sleep(AGAIN_SECONDS)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            raise self._refused(error) from error
        except (OSError, RuntimeError) as error:  # those of requests are OSErrors
            raise PoolError(f"the Jobs API at {self._url!r} cannot be used: {one_sentence(error)}") from error

    def _refused(self, error: Exception) -> PoolError:
        return PoolError(
            f"the cluster at {self._url} asks for its token: {one_sentence(error)}; put the token in a file and name "
            "it in the environment variable RAY_AUTH_TOKEN_PATH, with RAY_AUTH_MODE=token"
        )


def entrypoint(root: str, arguments: Sequence[str]) -> str:
    """The shell command of a job: `mergesearch ARGUMENTS` in `root`. 'files:NAME' is a file that travels with it."""
    words = []
    for argument in arguments:
        name = argument.removeprefix("files:")
        words.append(f'"$files"/{shlex.quote(name)}' if name != argument else shlex.quote(argument))
    missing = shlex.quote(f"error: root {root!r} of the workers profile is no folder on the cluster's head")
    enter = f"files=$PWD; cd {shlex.quote(root)} || {{ echo {missing} >&2; exit {NO_FOLDER}; }}"
    return f"{enter}; exec python -P -m mergesearch {' '.join(words)}"


def _knock(url: str) -> None:
    """Raises OSError at once where nobody listens; Ray itself would wait without end."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((parts.hostname or "", port), timeout=KNOCK_SECONDS).close()
