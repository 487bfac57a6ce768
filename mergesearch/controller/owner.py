"""Who holds a lease: a name that tells whether its process still lives."""

import os
import socket
import uuid

import psutil

from mergesearch.errors import LeaseError
from mergesearch.store.base import Lease, StudyStore


def owner_name() -> str:
    """'host:pid:start:nonce' of this process, unique to each call."""
    started = psutil.Process().create_time()
    return f"{socket.gethostname()}:{os.getpid()}:{started:.2f}:{uuid.uuid4().hex[:8]}"


def is_dead(owner: str) -> bool:
    """Whether `owner` was a process of this very machine that has ended. False for other machines: nobody can say."""
    try:
        host, pid, started, _ = owner.rsplit(":", 3)
        if host != socket.gethostname():
            return False
        process = psutil.Process(int(pid))
        # A zombie has ended too: in a container its parent may never look.
        return abs(process.create_time() - float(started)) > 0.05 or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (ValueError, psutil.Error):
        return False


def acquire(store: StudyStore, name: str, seconds: float) -> Lease:
    """A study's lease, taken over at once if its holder was a process of this machine that has died."""
    held_by = store.study(name).owner
    try:
        return store.acquire(name, owner_name(), seconds)
    except LeaseError:
        if not is_dead(held_by):
            raise
        return store.acquire(name, owner_name(), seconds, replacing=held_by)
