"""Fixtures of the chaos suite: nurseries of children, and the stores that their studies stand in."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chaos.nursery import Nursery


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Forks the children that are disturbed."""
    with Nursery(tmp_path_factory.mktemp("nursery"), hash_seed=1) as opened:
        yield opened


@pytest.fixture(scope="session")
def calm_nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Forks the undisturbed ones, with another seed of hashes: the order of a set must decide nothing."""
    with Nursery(tmp_path_factory.mktemp("calm"), hash_seed=2) as opened:
        yield opened


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Gives the URL of a new, empty store under a name; on every backend."""
    if request.param == "sqlite":
        return lambda name: f"sqlite:///{tmp_path / name}.db"
    server = request.getfixturevalue("postgres")
    return lambda _: str(server.url(server.new_database()))
