"""Fixtures for all tests."""

from collections.abc import Iterator

import pytest
from postgres import Server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A real PostgreSQL server, one for all tests; this process and its children can log in to it."""
    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        for key, value in server.environment.items():
            patch.setenv(key, value)
        try:
            yield server
        finally:
            server.close()
