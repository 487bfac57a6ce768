"""Runs a server on a socket that is open before anything is said."""

import socket
from collections.abc import Callable

import uvicorn

from mergesearch.errors import SpecError
from mergesearch.web.app import create_app
from mergesearch.web.settings import Settings

BACKLOG = 2048


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `say` gets the sentence with the address, once it can be visited.

    Raises:
        SpecError: the address is taken, or none of this machine.
        StoreError: the store cannot be opened.
    """
    app = create_app(settings)
    with _listen(settings) as listener:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        say(f"mergesearch serves at http://{host}:{listener.getsockname()[1]}/")
        uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)).run(sockets=[listener])


def _listen(settings: Settings) -> socket.socket:
    where = (settings.host, settings.port)
    try:
        family = socket.getaddrinfo(*where, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server(where, family=family, backlog=BACKLOG)
    except OSError as error:
        raise SpecError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; name another --port or --host"
        ) from None
