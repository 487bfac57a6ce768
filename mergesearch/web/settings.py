"""What a server is started with."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mergesearch.errors import SpecError

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
PORT: Final = 8790
STORE_VARIABLE: Final = "MERGESEARCH_STORE"
"""Where `mergesearch` finds the URL of its store, if it is not told another one."""


@dataclass(frozen=True)
class Settings:
    """`store`: the URL of the store, `secret` if it may hold a password and is shown to nobody.

    `roots`: folders outside of which no path of a launched study and no export may lie; the first one is where uploaded
    study files and exports go. `profiles`: the folder of worker profiles that people may pick. `token_hash`: of the
    token that changes need, '' for none, with which nothing can be changed. `largest`: bytes of a request's body.
    `names`: what a proxy before the server is called; then its X-Forwarded headers are believed. `jobs`: processes that
    people may have running at once.
    """

    store: str
    secret: bool = False
    host: str = "127.0.0.1"
    port: int = PORT
    roots: tuple[Path, ...] = field(default_factory=lambda: (Path.cwd(),))
    profiles: Path = Path("workers")
    token_hash: str = ""
    largest: int = 1_000_000
    names: tuple[str, ...] = ()
    jobs: int = 8

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        return self.host in LOOPBACK

    @property
    def trusted(self) -> bool:
        """Whether reading needs no token: only this machine reaches the server, and no proxy stands before it."""
        return self.loopback and not self.names


def existing(option: str, folders: Iterable[Path]) -> tuple[Path, ...]:
    """The folders with links and '..' resolved. Raises SpecError, which names `option`, if one is no folder."""
    found = tuple(folder.resolve() for folder in folders)
    for given in found:
        if not given.is_dir():
            raise SpecError(f"{option} {str(given)!r} is not a folder")
    return found
