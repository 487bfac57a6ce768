"""Nodes of a real Ray cluster on this machine, each a family of processes that can be killed, or cut off by a link."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
QUICK = {
    # A node that does not answer is given up after about 3 s instead of half a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
    # A node that has lost its head gives up soon: nothing of it stays behind.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "OMP_NUM_THREADS": "1",
}


class Node:
    """One node: `ray start --block` and all it started."""

    def __init__(self, arguments: Sequence[str], folder: Path, around: Sequence[str] = (), **more: str) -> None:
        self._log = (folder / "start.log").open("ab")
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self._process = subprocess.Popen(
            [*around, sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, "--block"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            cwd=folder,
            env={**os.environ, **QUICK, "PYTHONPATH": path, **more},
        )

    @property
    def running(self) -> bool:
        """Whether `ray start` has not ended."""
        return self._process.poll() is None

    def wait(self) -> None:
        """Until it is up."""
        end = time.monotonic() + 120
        while "Ray runtime started" not in self.said():
            assert self.running, self.said()
            assert time.monotonic() < end, f"a Ray node does not start: {self.said()}"
            time.sleep(0.05)

    def said(self) -> str:
        """What `ray start` wrote."""
        return Path(self._log.name).read_text(errors="replace")

    def family(self, name: str = "") -> list[psutil.Process]:
        """The processes of this node whose command line begins with a path or a word that ends in `name`."""
        try:
            everyone = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [one for one in everyone if not name or name in _first_word(one)]

    def kill(self, name: str = "") -> None:
        """SIGKILL the processes called `name`; the whole node without a name."""
        for one in self.family(name):
            _kill(one.pid)
        if not name:
            _kill(self._process.pid)
            self._process.wait(timeout=30)
            self._log.close()


class Cluster:
    """A head and its nodes. `address` is where controllers find it."""

    def __init__(self, ip: str = "127.0.0.1") -> None:
        self._ip = ip
        # Short, since Ray puts sockets below it and their paths may have 107 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp"))
        self.port = _free_port(ip)
        self.address = f"{ip}:{self.port}"
        self.nodes: list[Node] = []

    @property
    def folder(self) -> str:
        """Stands in the arguments of its processes."""
        return str(self._folder)

    @property
    def head(self) -> Node:
        """The first node."""
        return self.nodes[0]

    def start_head(self, cpus: int, **more: str) -> Node:
        """Start the head, or start it again, and wait until it takes drivers."""
        folder = self._new_folder()
        node = Node(
            (
                *("--head", f"--port={self.port}", f"--node-ip-address={self._ip}", f"--num-cpus={cpus}"),
                *("--include-dashboard=false", "--object-store-memory=100000000", f"--temp-dir={folder}"),
                *(f"--ray-client-server-port={_free_port(self._ip)}", "--disable-usage-stats"),
            ),
            folder,
            **more,
        )
        self.nodes[:1] = [node]
        node.wait()
        return node

    def add(self, cpus: int, ip: str = "", around: Sequence[str] = ()) -> Node:
        """Start one more node."""
        folder = self._new_folder()
        node = Node(
            (
                *(f"--address={self.address}", f"--num-cpus={cpus}", "--object-store-memory=100000000"),
                *(f"--node-ip-address={ip or self._ip}", "--disable-usage-stats"),
            ),
            folder,
            around,
        )
        self.nodes.append(node)
        node.wait()
        return node

    def _new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder))

    def close(self) -> None:
        """Kill all of it."""
        for node in reversed(self.nodes):
            if node.running:
                node.kill()
        _kill_leftovers(self.address, str(self._folder))
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def cluster(cpus: int, ip: str = "127.0.0.1", **more: str) -> Iterator[Cluster]:
    """A cluster with its head; gone afterwards."""
    made = Cluster(ip)
    try:
        made.start_head(cpus, **more)
        yield made
    finally:
        made.close()


def actors(folder: str) -> list[int]:
    """Process ids of the workers' processes of all nodes of the cluster in `folder`, oldest first."""
    found = []
    for process in psutil.process_iter():
        line = _line(process)
        if "raylet/raylet" in line and folder in line:
            found += [one for one in process.children() if _is_worker(_line(one))]
    return [one.pid for one in sorted(found, key=lambda one: (one.create_time(), one.pid))]


def _is_worker(line: str) -> bool:
    return line.startswith("ray::") and "Agent" not in line and "IDLE" not in line


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _first_word(process: psutil.Process) -> str:
    return (_line(process).split() or [""])[0]


def _kill_leftovers(address: str, folder: str) -> None:
    """What a killed `ray start` has left: raylets and workers that name this cluster."""
    for one in psutil.process_iter():
        line = _line(one)
        if folder in line or (f"={address}" in line and "ray" in line):
            _kill(one.pid)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _free_port(ip: str) -> int:
    with socket.socket() as probe:
        probe.bind((ip, 0))
        return int(probe.getsockname()[1])
