"""Stands before every route: who may ask, from where, with how large a body; and which headers an answer has.

Plain ASGI, so that streams of events pass through as they are made.
"""

import logging
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mergesearch.errors import SpecError
from mergesearch.web.problems import problem
from mergesearch.web.security.headers import HEADERS, NOT_KEPT
from mergesearch.web.security.paths import Cut
from mergesearch.web.security.rate import Failures
from mergesearch.web.security.sessions import Session, Sessions
from mergesearch.web.security.tokens import matches
from mergesearch.web.settings import LOOPBACK, Settings

READING: Final = ("GET", "HEAD", "OPTIONS")
SESSION_PATH: Final = "/api/v1/session"
LOGIN_BYTES: Final = 4096
CSRF_HEADER: Final = "X-CSRF-Token"
OPEN_PATHS: Final = ("/login", SESSION_PATH, "/api/v1/health")
"""What anybody may ask for: signing in, and whether the server lives."""

_LOG = logging.getLogger(__name__)
_BEARER: Final = {"WWW-Authenticate": 'Bearer realm="mergesearch"'}


@dataclass(eq=False)
class Security:
    """One server's sessions and failures; `app.state.security`. Raises SpecError for a server that other machines
    reach and that has no token."""

    settings: Settings
    sessions: Sessions = field(default_factory=Sessions)
    failures: Failures = field(default_factory=Failures)
    cut: Cut = field(init=False)
    """Takes paths of the server out of a text."""

    def __post_init__(self) -> None:
        if not self.settings.token_hash and not self.settings.trusted:
            raise SpecError(f"--host {self.settings.host}: a server that other machines reach needs a token")
        self.cut = Cut(self.settings.roots)

    def cookie(self, scope: Scope) -> str:
        """The cookie's name: ports share a host's cookies, so each has its own."""
        return f"mergesearch_{(scope.get('server') or ('', 0))[1]}"

    def session(self, scope: Scope) -> Session | None:
        """Whose request it is, by its cookie; None if nobody is signed in."""
        cookies = cookie_parser(Headers(scope=scope).get("cookie", ""))
        return self.sessions.find(cookies.get(self.cookie(scope), ""))


class Guard:
    """Middleware: safe by default, so that a route need not care."""

    def __init__(self, app: ASGIApp, security: Security) -> None:
        self._app = app
        self._security = security

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        session = self._security.session(scope)
        scope.setdefault("state", {})["csrf"] = session.csrf if session else ""
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                _dress(MutableHeaders(scope=message), scope["path"])
            await send(message)

        refusal = self._refusal(scope, session)
        if refusal is not None:
            await refusal(scope, receive, answer)
            return
        try:
            await self._app(scope, _limited(receive, self._largest(scope)), answer)
        except Exception:
            # Answered here, so that this answer too has its headers; the server's log gets what happened.
            if not begun:
                await problem(500, "an error of the server; its log says more")(scope, receive, answer)
            raise

    def _largest(self, scope: Scope) -> int:
        return LOGIN_BYTES if scope["path"] == SESSION_PATH else self._security.settings.largest

    def _refusal(self, scope: Scope, session: Session | None) -> Response | None:
        """The answer to a request that may not pass; None if it may."""
        headers, settings = Headers(scope=scope), self._security.settings
        if not _is_our_name(headers.get("host", ""), settings):
            names = ", ".join(settings.names) or "127.0.0.1 and localhost"
            return problem(
                421, f"this server answers to the names {names} only; give it others with `mergesearch serve --name`"
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._largest(scope):
            return _too_large(self._largest(scope))
        bearer = headers.get("authorization")
        if bearer is not None:
            scheme, _, token = bearer.partition(" ")
            right = scheme.lower() == "bearer" and matches(token.strip(), settings.token_hash)
            return None if right else _unsigned("the token is not this server's")
        path, reading = scope["path"], scope["method"] in READING
        if reading:
            free = settings.trusted or path in OPEN_PATHS or path.startswith("/static/")
            return None if free or session else _to_login(scope)
        if not _is_same_origin(headers):
            return problem(403, "the request comes from a page of another site; only this server's own pages may")
        if path == SESSION_PATH and scope["method"] == "POST":
            return None
        if session is None:
            return _unsigned("this needs the token: sign in at /login, or send 'Authorization: Bearer TOKEN'")
        if not session.sent_by(headers.get(CSRF_HEADER, "")):
            return problem(403, f"the header {CSRF_HEADER} is not that of this page's session; load the page again")
        return None


def _is_our_name(host: str, settings: Settings) -> bool:
    """Whether a Host header is a name of ours. A page of another site whose name was pointed at this machine sends that
    site's name, and must not read what only this machine may; who has to show the token may call us what they like."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if settings.names or settings.loopback:
        return name in (*LOOPBACK, *settings.names) or name.endswith(".localhost")
    return True


def _is_same_origin(headers: Headers) -> bool:
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _unsigned(why: str) -> Response:
    answer = problem(401, why)
    answer.headers.update(_BEARER)
    return answer


def _to_login(scope: Scope) -> Response:
    if scope["path"].startswith("/api/") or scope["method"] not in ("GET", "HEAD"):
        return _unsigned("this server shows nothing without its token: send 'Authorization: Bearer TOKEN'")
    query = scope["query_string"].decode("latin-1")
    where = scope["path"] + (f"?{query}" if query else "")
    return RedirectResponse(f"/login?next={quote(where, safe='')}", 303)


def _too_large(largest: int) -> Response:
    answer = problem(413, f"the request's body is larger than the {largest} bytes that this server takes")
    answer.headers["Connection"] = "close"
    return answer


def _limited(receive: Receive, largest: int) -> Receive:
    """`receive` that ends a body which says no length once it is too large."""
    got = 0

    async def counted() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        if got > largest:
            raise HTTPException(413, f"the request's body is larger than the {largest} bytes that this server takes")
        return message

    return counted


def _dress(headers: MutableHeaders, path: str) -> None:
    for name, value in HEADERS:
        headers.setdefault(name, value)
    if not path.startswith("/static/"):
        headers.setdefault(*NOT_KEPT)
