"""The application in this process, signed in: for tests that need no real server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from mergesearch.web.app import create_app
from mergesearch.web.security.tokens import hashed
from mergesearch.web.settings import Settings

TOKEN = "a-token-that-only-these-tests-know-0123456789"
HERE = "http://127.0.0.1"


@contextmanager
def inside(store: str, root: Path, *, signed: bool = True, **settings: Any) -> Iterator[TestClient]:
    """A client of a server of `store` whose studies may use `root`; `signed`: it sends the token."""
    app = create_app(Settings(store, roots=(root.resolve(),), token_hash=hashed(TOKEN), **settings))
    headers = {"Authorization": f"Bearer {TOKEN}"} if signed else {}
    try:
        with TestClient(app, HERE, raise_server_exceptions=False, headers=headers) as client:
            yield client
    finally:
        app.state.service.store.close()
