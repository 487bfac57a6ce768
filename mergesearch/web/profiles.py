"""The workers profiles that people may pick."""

import re
from dataclasses import dataclass
from pathlib import Path

from mergesearch.errors import SpecError
from mergesearch.plugins import did_you_mean
from mergesearch.study.spec import NAME
from mergesearch.web.settings import Settings


@dataclass(frozen=True)
class Offered:
    """A profile by the name of its file, and what its first comment says of it."""

    name: str
    explanation: str


def offered(settings: Settings) -> list[Offered]:
    """All profiles of the server's folder, by name."""
    if not settings.profiles.is_dir():
        return []
    files = sorted(file for file in settings.profiles.glob("*.yaml") if re.match(NAME, file.stem))
    return [Offered(file.stem, _explanation(file)) for file in files]


def profile_file(settings: Settings, name: str) -> Path:
    """The file of a profile that is offered. Raises SpecError."""
    names = [profile.name for profile in offered(settings)]
    if name not in names:
        raise SpecError(f"no workers profile is called {name[:60]!r}{did_you_mean(name[:60], names)}")
    return settings.profiles / f"{name}.yaml"


def _explanation(file: Path) -> str:
    """The first sentence of the comment that a file begins with."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    said = []
    for line in lines:
        if not line.startswith("#"):
            break
        said.append(line.lstrip("# ").rstrip())
    return re.split(r"(?<=\.)\s", " ".join(said), maxsplit=1)[0]
