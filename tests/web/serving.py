"""A real server in a process of its own, for tests."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
ADDRESS = re.compile(r"http://\S+?/")


@dataclass(frozen=True)
class Serving:
    """Where it serves ('http://127.0.0.1:40000'), its token ('' if it said none), its process."""

    url: str
    token: str
    pid: int


@contextmanager
def serving(
    store: str, *options: str, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Serving]:
    """`mergesearch serve` on a free port, in `folder`; SIGTERM at the end, which it must obey.

    Its token is a new one, unless `environment` says where one is kept (MERGESEARCH_TOKEN_FILE).
    """
    with TemporaryDirectory() as made, _started(store, *options, folder=folder, environment={
        "MERGESEARCH_TOKEN_FILE": f"{made}/token", **(environment or {})}) as server:  # fmt: skip
        yield server


@contextmanager
def _started(store: str, *options: str, folder: Path | None, environment: Mapping[str, str]) -> Iterator[Serving]:
    process = subprocess.Popen(
        [sys.executable, "-m", "mergesearch", "serve", "--store", store, "--port", "0", *options],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    )
    assert process.stdout is not None
    try:
        said = ""
        while not (found := ADDRESS.search(said)):
            line = process.stdout.readline()
            assert line, f"the server ended: {said}"
            said += line
        token = re.search(r"#(\S+)", said)
        yield Serving(found.group().rstrip("/"), token.group(1) if token else "", process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            process.stdout.close()
