"""Runs a server on a socket that is open before anything is said."""

import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType

import uvicorn

from mergesearch.errors import MergesearchError, SpecError
from mergesearch.web.app import create_app
from mergesearch.web.settings import Settings

BACKLOG = 2048


def run(settings: Settings, say: Callable[[str], None], token: str = "") -> None:  # nosec B107  # no token is none
    """Serve until SIGINT or SIGTERM; `say` gets the sentence with the address, once it can be visited.

    `token` is one that was made just now: it is said once, as a link whose last part no server or log ever sees.

    Raises:
        SpecError: the address is taken, or none of this machine.
        StoreError: the store cannot be opened.
    """
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(_listen(settings))
            app = create_app(settings)
        except MergesearchError:
            if token:
                say(f"the new token, which is shown only now: {token}")  # it counts from here on; only a hash was kept
            raise
        url = _url(settings, listener.getsockname()[1])
        if token:
            say(f"sign in with this link, which is shown only now: {url}login#{token}")
        say(f"mergesearch serves at {url}")
        config = uvicorn.Config(
            app,
            log_level="warning",
            timeout_graceful_shutdown=2,
            server_header=False,
            proxy_headers=bool(settings.names),  # else nobody is believed who says that he asks for another
        )
        server = uvicorn.Server(config)
        app.state.service.streams.ending = lambda: server.should_exit  # else they would keep it from ending
        stack.callback(app.state.service.store.close)
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _interrupt))
        server.run(sockets=[listener])  # at its end uvicorn raises the signal anew


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # SIGTERM ends every command as Ctrl-C does


def _url(settings: Settings, port: int) -> str:
    """Where this machine reaches the server."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # nosec B104  # compared
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _listen(settings: Settings) -> socket.socket:
    where = (settings.host, settings.port)
    try:
        family = socket.getaddrinfo(*where, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server(where, family=family, backlog=BACKLOG)
        # Else a small answer waits 40 ms for the client's acknowledgement; connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]  # Python adds the address once more
        raise SpecError(
            f"cannot listen on {settings.host} port {settings.port}: {why}; name another --port or --host"
        ) from None
