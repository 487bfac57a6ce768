"""Every entry of OPERATORS keeps the contract."""

import pytest
from contracts.operator import *  # noqa: F403

from mergesearch.operators import OPERATORS


@pytest.fixture(params=sorted(OPERATORS), scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    """The operator under test."""
    return str(request.param)
