"""Requests to the server, and its problems as our errors."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, final

import httpx

from mergesearch.client.values import Event
from mergesearch.errors import LeaseError, MergesearchError, NotOffered, SpecError, StoreError, StudyNotFound

API: Final = "/api/v1"
_KINDS: Final[Mapping[int, type[MergesearchError]]] = {
    400: SpecError, 401: SpecError, 403: SpecError, 404: StudyNotFound, 409: LeaseError, 413: SpecError,
    421: SpecError, 422: SpecError, 503: StoreError,
}  # fmt: skip
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between attempts while the server is away
_HEARTBEATS: Final = 60.0  # seconds without one after which a stream counts as broken; they come every 15 s


@final
class Http:
    """One connection pool to one server. Threads may share it.

    `patience`: seconds that a server which does not answer is waited for; then a request raises StoreError.
    """

    def __init__(self, url: str, token: str, patience: float, timeout: float) -> None:
        if not url.startswith(("http://", "https://")):
            raise SpecError(f"server {url!r} is not a URL; write it as 'http://127.0.0.1:8790'")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._url, self._patience = url.rstrip("/"), patience
        self._http = httpx.Client(base_url=self._url + API, headers=headers, timeout=timeout)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> httpx.Response:
        """The answer, which is no error. Raises ours, with the sentence of the problem."""
        wanted = {name: value for name, value in query.items() if value is not None}
        end, pause = time.monotonic() + self._patience, _FIRST_PAUSE
        while True:
            try:
                answer = self._http.request(method, path, json=body, params=wanted)
                break
            except httpx.TransportError as error:
                if time.monotonic() + pause > end:
                    raise self._away(error) from error
                time.sleep(pause)
                pause = min(_LONGEST_PAUSE, 2.0 * pause)
        _refuse(answer)
        return answer

    def json(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        """The answer's JSON; None of an empty one."""
        answer = self.call(method, path, body, **query)
        return answer.json() if answer.content else None

    def stream(self, path: str) -> Iterator[Event]:
        """The messages of a stream of server-sent events, until the server ends it."""
        timeout = httpx.Timeout(10.0, read=_HEARTBEATS)
        try:
            with self._http.stream("GET", path, timeout=timeout, headers={"Accept": "text/event-stream"}) as answer:
                if answer.is_error:
                    answer.read()
                    _refuse(answer)
                name, lines = "message", list[str]()
                for line in answer.iter_lines():
                    field, _, value = line.partition(":")
                    if field == "event":
                        name = value.strip()
                    elif field == "data":
                        lines.append(value.removeprefix(" "))
                    elif not line and lines:
                        yield Event(name, json.loads("\n".join(lines)))
                        name, lines = "message", []
        except httpx.TransportError as error:
            raise self._away(error) from error

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _away(self, error: httpx.TransportError) -> StoreError:
        why = " ".join(str(error).split()) or type(error).__name__
        return StoreError(f"the server at {self._url} does not answer ({why}); is `mergesearch serve` running there?")


def _refuse(answer: httpx.Response) -> None:
    """Raises our error where the answer is one."""
    if answer.is_success:
        return
    try:
        detail = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"the server answered {answer.status_code} {answer.reason_phrase}"
    kind = _KINDS.get(answer.status_code, MergesearchError)
    if answer.status_code == 404 and answer.request.url.path.rpartition("/")[2] in ("tell", "renew"):
        kind = NotOffered
    raise kind(detail)
