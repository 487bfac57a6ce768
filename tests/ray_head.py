"""A real Ray head with its dashboard and Jobs API, alone in a folder, on free ports, behind a token."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import final

import psutil

BIN = Path(sys.executable).parent
START_SECONDS = 60.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(token: Path) -> dict[str, str]:
    """The environment of a user of this head: the token in a file, this Python first, nothing reported to anybody."""
    root = str(Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }


def end(folder: Path) -> None:
    """Kill every process that names a folder in its command line or, as Ray's workers, in its environment."""
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            words = [*process.cmdline(), *process.environ().values()]
            if any(f"{folder}/" in f"{word}/" for word in words):
                process.kill()
        except psutil.Error:
            continue


@final
class Head:
    """One head node with `cpus` CPUs; `folder` must have a short path, since Ray puts its sockets there."""

    def __init__(self, folder: Path, cpus: int, extra: Mapping[str, str] | None = None) -> None:
        """Start it and wait until its Jobs API answers. `extra` is added to its environment, as a cluster's own."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        token = folder / "token"
        token.write_text(secrets.token_hex(16))
        token.chmod(0o600)
        self.environment = environment(token)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [BIN / "ray", "start", "--head", "--block", "--port=0", "--include-dashboard=true"]
        command += [f"--dashboard-port={port}", f"--dashboard-agent-listen-port={free_port()}", f"--num-cpus={cpus}"]
        command += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000", f"--temp-dir={folder}/ray"]
        with (folder / "head.log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                env=self.environment | dict(extra or {}),
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait(port)
        except BaseException:
            self.close()
            raise

    def _wait(self, port: int) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"the head did not start: {(self.folder / 'head.log').read_text()[-2000:]}")

    def close(self) -> None:
        """Kill the head and everything it started."""
        end(self.folder)
        self._process.wait(timeout=30)
