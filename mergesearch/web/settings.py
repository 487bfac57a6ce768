"""What a server is started with."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
PORT: Final = 8790


@dataclass(frozen=True)
class Settings:
    """`store`: the URL of the store, `secret` if it may hold a password and is shown to nobody.

    `roots`: folders outside of which no path of a launched study and no export may lie; the first one is where uploaded
    study files and exports go. `profiles`: the folder of worker profiles that people may pick. `token_hash`: of the
    token that changes need, '' for none, with which nothing can be changed. `largest`: bytes of a request's body.
    """

    store: str
    secret: bool = False
    host: str = "127.0.0.1"
    port: int = PORT
    roots: tuple[Path, ...] = field(default_factory=lambda: (Path.cwd(),))
    profiles: Path = Path("workers")
    token_hash: str = ""
    largest: int = 1_000_000

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the server: then reading needs no token."""
        return self.host in LOOPBACK
