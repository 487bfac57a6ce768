"""A browser for each file of tests, and the servers that it visits."""

from collections.abc import Iterator

import pytest
from browser.chrome import chromium
from browser.sites import Site, launched, made, site
from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. It ends with its file: while it is there its event loop runs, and no other test can run one."""
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server over the smoke study, which was launched and has ended: real models, real scores."""
    folder = tmp_path_factory.mktemp("real")
    name = launched(folder)
    with site(folder, name, name, 30) as server:
        yield server


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server over a study of 600 evaluations and three objectives, and another with another seed."""
    folder = tmp_path_factory.mktemp("small")
    name = made(folder, 600, 3)
    with site(folder, name, made(folder, 600, 3, seed=1), 300) as server:
        yield server


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server over 100,000 evaluations of four objectives."""
    folder = tmp_path_factory.mktemp("big")
    name = made(folder, 100_000, 4)
    with site(folder, name, name, 50_000) as server:
        yield server
