"""The store contract on every backend."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from contracts.store import *  # noqa: F403 (the tests themselves)
from contracts.store import OPENERS

from mergesearch.store import STORES
from mergesearch.store.base import StudyStore


@pytest.fixture(params=list(OPENERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StudyStore]:
    """A new, empty store of each kind."""
    opened = OPENERS[request.param](tmp_path)
    yield opened
    opened.close()


def test_every_scheme_is_under_test() -> None:
    """Each scheme in the table has an opener, so that none escapes the contract."""
    assert set(OPENERS) == set(STORES)
