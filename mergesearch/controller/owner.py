"""Who holds a lease: a name that tells whether its process still lives."""

import getpass
import os
import socket
import uuid
from pathlib import Path

import psutil

from mergesearch.errors import LeaseError
from mergesearch.store.base import Lease, StudyStore


def owner_name() -> str:
    """'host:pid:start:nonce' of this process, unique to each call."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start(os.getpid())}:{uuid.uuid4().hex[:8]}"


def person() -> str:
    """'user@host' of whoever started this process; the host alone where the user has no name, as in some containers."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return socket.gethostname()


def is_dead(owner: str) -> bool:
    """Whether `owner` was a process of this very machine that has ended. False for other machines, containers and
    boots of it: nobody can say."""
    try:
        host, pid, started, _ = owner.rsplit(":", 3)
        if host != socket.gethostname() or started.partition("-")[2] != _here():
            return False
        # A zombie has ended too: in a container its parent may never look.
        return _start(int(pid)) != started or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (ValueError, psutil.Error):
        return False


def _start(pid: int) -> str:
    """When a process of this machine started, in ticks since the boot, which a change of the clock does not move, and
    where. Raises psutil.NoSuchProcess."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        ticks = stat.read_text().rpartition(")")[2].split()[19]  # field 22; the name before it may hold blanks
    except OSError:
        ticks = f"{psutil.Process(pid).create_time():.0f}"
    return f"{ticks}-{_here()}"


def _here() -> str:
    """This boot of this machine, and this container of it: names and numbers of processes mean something only here."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def acquire(store: StudyStore, name: str, seconds: float) -> Lease:
    """A study's lease, taken over at once if its holder was a process of this machine that has died."""
    held_by = store.study(name).owner
    try:
        return store.acquire(name, owner_name(), seconds)
    except LeaseError:
        if not is_dead(held_by):
            raise
        return store.acquire(name, owner_name(), seconds, replacing=held_by)
