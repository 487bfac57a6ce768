"""Real Ray heads and nodes for tests, each in a process group of its own, and what is left of them ended."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass(frozen=True)
class Head:
    """A running head: its port, its client server's, and the folder that its processes name in their arguments."""

    port: int
    client: int
    folder: Path

    @property
    def address(self) -> str:
        """What a driver on this machine gives."""
        return f"127.0.0.1:{self.port}"

    def processes(self, name: str = "") -> list[psutil.Process]:
        """Its living processes whose arguments have `name` in them."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if str(self.folder) in line and name in line:
                    found.append(process)
        return found

    def kill(self, name: str = "") -> None:
        """SIGKILL to all of them."""
        for process in self.processes(name):
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)


def free_port() -> int:
    """A port nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def head(cpus: int = 2) -> Iterator[Head]:
    """`ray start --head` on this machine; ended with everything it started, also when a test fails."""
    with tempfile.TemporaryDirectory(prefix="msr", ignore_cleanup_errors=True) as folder:
        found = Head(free_port(), free_port(), Path(folder))
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={found.port}",
            f"--ray-client-server-port={found.client}", f"--num-cpus={cpus}", "--object-store-memory=100000000",
            "--include-dashboard=false", f"--temp-dir={folder}", "--disable-usage-stats",
        ]  # fmt: skip
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,
        )
        try:
            wait_for(lambda: _listens(found.port) and _listens(found.client), 90, "the head to listen")
            yield found
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            wait_for(lambda: found.kill() is None and not found.processes(), 30, "the head to end")


def wait_for(ready: Callable[[], object], seconds: float, what: str) -> None:
    """Look every tenth of a second until it is so; an AssertionError says what did not come."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.1)


def _listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False
