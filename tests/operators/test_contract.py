"""Every entry of OPERATORS keeps the contract."""

import pytest
from contracts.operator import *  # noqa: F403

from mergesearch.operators import OPERATORS
from mergesearch.plugins import load

DENSE = sorted(kind for kind in OPERATORS if hasattr(load("operator", OPERATORS, kind), "prepare"))


@pytest.fixture(params=DENSE, scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    """The operator under test."""
    return str(request.param)
