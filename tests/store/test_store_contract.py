"""The store contract on every backend."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from contracts.store import *  # noqa: F403 (the tests themselves)
from contracts.store import KINDS, url_of
from contracts.store_more import *  # noqa: F403
from contracts.store_offers import *  # noqa: F403

from mergesearch.store import STORES
from mergesearch.store.base import StudyStore
from mergesearch.store.open import open_store


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StudyStore]:
    """A new, empty store of each kind."""
    opened = open_store(url_of(request.param, tmp_path, request))
    yield opened
    opened.close()


def test_every_scheme_is_under_test() -> None:
    """Each scheme in the table is among the kinds, so that none escapes the contract."""
    assert {kind if isinstance(kind, str) else kind.values[0] for kind in KINDS} == set(STORES)
