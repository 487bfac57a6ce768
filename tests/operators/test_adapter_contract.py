"""Every entry of OPERATORS that merges adapters keeps their contract."""

import pytest
from contracts.adapter_operator import *  # noqa: F403

from mergesearch.operators import OPERATORS
from mergesearch.plugins import load

ADAPTERS = sorted(kind for kind in OPERATORS if hasattr(load("operator", OPERATORS, kind), "prepare_adapters"))


@pytest.fixture(params=ADAPTERS, scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    """The operator under test."""
    return str(request.param)
