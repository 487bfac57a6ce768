"""Lets the asserts of the shared contract explain themselves."""

import pytest

pytest.register_assert_rewrite("contracts.store", "contracts.store_more", "contracts.store_offers")
