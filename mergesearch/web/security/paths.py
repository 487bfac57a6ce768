"""Folders that people's study files may reach into, and the server's own paths cut out of what it says."""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from mergesearch.types import Split

NAMES: Final = ("name",)
"""Keys at the top whose values are no paths, checked elsewhere."""

_FILE_URL: Final = re.compile(r"(sqlite:///|file://)/(?:[\w.@+=-]+/)*([\w.@+=-]+)")
_PASSWORD: Final = re.compile(r"([A-Za-z][\w+.-]*://[^\s/:@]*):[^\s/]+@")
_SECRET: Final = re.compile(r"((?:passw(?:or)?d|secret|api_?key)=)[^\s&;,'\"]+", re.IGNORECASE)
_KEY: Final = re.compile(r"\b(hf_|sk-|gh[pousr]_|github_pat_|glpat-|AKIA)[\w-]{16,}")
_ABSOLUTE: Final = re.compile(r"(?<![\w./~-])/([\w.@+-]+)(?:/[\w.@+=-]+)+/?")


def outside(body: Any, root: Path, roots: Sequence[Path]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Key path and value of every text in a study file that leads out of `roots`, '..' and links followed.

    Every text is looked at, not only those that are known as paths today: one that is none leads nowhere but into
    `root`, where relative paths start, so it passes.
    """
    for path, text in _texts(body, ()):
        if path[0] in NAMES or path == ("store",):
            continue
        spellings = [text.replace("{split}", split.value) for split in Split] if "{split}" in text else [text]
        if not all(_inside(spelling, root, roots) for spelling in spellings):
            yield path, text


def within(path: Path, roots: Sequence[Path]) -> bool:
    """Whether `path`, '..' and links followed, is one of the folders or lies in one."""
    try:
        found = path.resolve()
    except (OSError, RuntimeError, ValueError):
        return False
    return any(found == root or root in found.parents for root in roots)


def _inside(text: str, root: Path, roots: Sequence[Path]) -> bool:
    # '~' means nothing to us, but some library might read it as a home.
    return not text.startswith("~") and within(root / text, roots)


def _texts(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, list | tuple | set):
        for i, item in enumerate(value):
            yield from _texts(item, (*path, i))


class Cut:
    """Takes the server's paths out of a text: those in `roots` become relative, of all others the last part is left.
    Passwords of URLs and keys of well-known services become ***."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = sorted({str(root) for root in roots} - {"/"}, key=len, reverse=True)
        self._places = (*(Path(part).parts[1] for part in (*self._roots, sys.prefix) if len(Path(part).parts) > 1),)

    def __call__(self, text: str) -> str:
        """`text` with no path of this machine in it, and no secret that shows that it is one."""
        text = _KEY.sub(r"\1***", _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text)))
        for root in self._roots:
            text = re.sub(
                re.escape(root) + r"(?:/|(?![\w.@+-]))", lambda found: "" if found[0][-1] == "/" else ".", text
            )
        return _ABSOLUTE.sub(self._last, _FILE_URL.sub(r"\1…/\2", text))

    def _last(self, found: re.Match[str]) -> str:
        first = found[1]
        if first in self._places or Path("/", first).is_dir():
            return "…/" + found[0].rstrip("/").rpartition("/")[2]
        return found[0]
