"""Who holds a lease: a name that tells whether its process still lives."""

import os
import socket
import uuid

import psutil


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
        return abs(psutil.Process(int(pid)).create_time() - float(started)) > 0.05
    except psutil.NoSuchProcess:
        return True
    except (ValueError, psutil.Error):
        return False
