"""A TCP proxy that tests put between a store and its server, to cut the link where they want."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

COMMIT = b"COMMIT"


@final
class Proxy:
    """Passes bytes between `port` and the server's port until it is told to cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._left: dict[str, int | None] = {"to": None, "from": None}
        self._commit = ""
        self._open = True
        self.cuts = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut_after(self, count: int, way: str) -> None:
        """Cut once `count` more bytes went 'to' or came 'from' the server; the rest of that piece never arrives."""
        with self._lock:
            self._left[way] = count

    def cut_at_commit(self, when: str) -> None:
        """Cut at the next COMMIT: 'before' it reaches the server, or 'after' the server has done and answered it."""
        with self._lock:
            self._commit = when

    def disarm(self) -> bool:
        """Cut no more; whether a cut was still to come."""
        with self._lock:
            waiting = bool(self._commit) or any(left is not None for left in self._left.values())
            self._left, self._commit = {"to": None, "from": None}, ""
            return waiting

    def close(self) -> None:
        """Cut everything and listen no more."""
        self._open = False
        self._listener.close()
        self._thread.join(10)

    def _accept(self) -> None:
        while self._open:
            try:
                ready, _, _ = select.select([self._listener], [], [], 0.05)
                client = self._listener.accept()[0] if ready else None
            except (OSError, ValueError):
                return
            if client is not None:
                threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            other = {client: (server, "to"), server: (client, "from")}
            hold_answer = False
            while self._open:
                ready, _, _ = select.select(list(other), [], [], 0.05)
                for side in ready:
                    target, way = other[side]
                    try:
                        data = side.recv(65536)
                    except OSError:
                        return
                    if not data or hold_answer:  # the answer to a COMMIT that the client shall not see
                        return
                    data, cut, hold_answer = self._judge(data, way)
                    try:
                        target.sendall(data)
                    except OSError:
                        return
                    if cut:
                        return

    def _judge(self, data: bytes, way: str) -> tuple[bytes, bool, bool]:
        """What of `data` passes, whether the link is cut then, and whether it is cut when the answer comes."""
        with self._lock:
            if way == "to" and self._commit and COMMIT in data:
                when, self._commit = self._commit, ""
                self.cuts += 1
                return (b"", True, False) if when == "before" else (data, False, True)
            left = self._left[way]
            if left is None:
                return data, False, False
            if len(data) < left:
                self._left[way] = left - len(data)
                return data, False, False
            self._left[way] = None
            self.cuts += 1
            return data[:left], True, False


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """A proxy to a port of this machine, closed at the end."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
