"""Every strategy in the table keeps the contract."""

import pytest
from contracts.strategy import CHECKS

from mergesearch.strategies import STRATEGIES


@pytest.mark.parametrize("kind", sorted(STRATEGIES))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_contract(kind, check):
    """Promise: the docstring of the check."""
    check(kind)
