"""What the server was asked and how long it took, for /metrics: counted around every request."""

import time
from collections import Counter
from threading import Lock
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds up to which an answer counts as that quick."""
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Traffic:
    """Requests by method, route and status; seconds to the start of the answer by route. For any thread."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.seconds: Counter[str] = Counter()
        self.buckets: Counter[tuple[str, float]] = Counter()
        self.lock = Lock()

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answer."""
        with self.lock:
            self.requests[method, route, status] += 1
            self.seconds[route] += seconds  # type: ignore[assignment]  # a Counter adds whatever can be added
            for bound in BUCKETS:
                self.buckets[route, bound] += seconds <= bound


class Counting:
    """Middleware that counts. A route is known by its path with its names left open, so that there are few."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", None) or "other"
                method = scope["method"] if scope["method"] in METHODS else "other"
                self._traffic.count(method, route, message["status"], time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, counted)
