"""mergesearch serve"""

from typing import Annotated

import typer

from mergesearch.cli.common import StoreOption, place


def serve(
    store: StoreOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; any but loopback needs the token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="Port to listen on; 0 picks a free one.", min=0, max=65535)
    ] = 8790,
) -> None:
    """Serve the web pages and the REST API of a store, until Ctrl-C.

    Example: mergesearch serve
    """
    from mergesearch.web.run import run
    from mergesearch.web.settings import Settings

    found = place(store)
    run(Settings(found.url, found.secret, host, port), typer.echo)
