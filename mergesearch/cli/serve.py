"""mergesearch serve"""

from pathlib import Path
from typing import Annotated

import typer

from mergesearch.cli.common import StoreOption, place


def serve(
    store: StoreOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; any but loopback shows nothing without the token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="Port to listen on; 0 picks a free one.", min=0, max=65535)
    ] = 8790,
    root: Annotated[
        list[Path] | None,
        typer.Option(
            "--root",
            help="Folder that launched studies may take models and data from, and where exports go (the first one); "
            "can be given several times [default: the current folder].",
            show_default=False,
        ),
    ] = None,
    profiles: Annotated[
        Path, typer.Option("--profiles", help="Folder of the workers profiles that people may pick.")
    ] = Path("workers"),
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            help="Name under which a TLS proxy on this machine shows the server; everything then needs the token.",
            show_default=False,
        ),
    ] = None,
    new_token: Annotated[
        bool, typer.Option("--new-token", help="Make a new token; the one before stops working at the next start.")
    ] = False,
) -> None:
    """Serve the web pages and the REST API of a store, until Ctrl-C.

    Reading on this machine is free; whatever changes something needs a token, which the first start shows once as a
    link. $MERGESEARCH_TOKEN gives one, for containers; $MERGESEARCH_TOKEN_FILE says where its hash is kept.

    Example: mergesearch serve
    """
    import os

    from mergesearch.web.run import run
    from mergesearch.web.security.tokens import known_token
    from mergesearch.web.settings import Settings, existing

    found = place(store)
    roots = existing("--root", root or [Path()])
    token = known_token(os.environ, renew=new_token)
    settings = Settings(
        found.url, found.secret, host, port, roots, profiles.resolve(), token.hash, names=tuple(name or ())
    )
    if not token.fresh:
        typer.echo(f"the token is {token.where}; if it is lost: mergesearch serve --new-token")
    if not settings.loopback:
        typer.echo(
            f"warning: --host {host} is reached by other machines, and what goes over the network is not encrypted; "
            "put a proxy with TLS before it (--host 127.0.0.1 --name its.name)",
            err=True,
        )
    run(settings, typer.echo, token.fresh)
