"""Folders that are made once: complete or absent, remade when what they depend on changes."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mergesearch.errors import SpecError

MARKER = "made.json"
_WORK = ".making-"


def digest(settings: Mapping[str, object]) -> str:
    """SHA-256 of plain settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def is_made(folder: Path, wanted: str, parts: Sequence[str]) -> bool:
    """Whether `folder` holds all `parts`, made with the digest `wanted`."""
    return _marked(folder) == wanted and all((folder / part).is_dir() for part in parts)


def make_once(folder: Path, wanted: str, parts: Sequence[str], make: Callable[[Path], None]) -> bool:
    """Have `make(work)` write the sub-folders `parts`, and move them into `folder`; False if they stand there already.

    An interrupted call leaves nothing that a later call would take for whole: the work happens in a hidden sub-folder,
    each part arrives by one rename, and the marker with the digest is written last. Other files of `folder` stay.

    Raises:
        SpecError: a sub-folder of that name stands there that this function did not write.
    """
    if is_made(folder, wanted, parts):
        return False
    taken = [part for part in parts if (folder / part).exists()]
    if taken and not (folder / MARKER).exists():
        raise SpecError(f"{folder / taken[0]} was not made by mergesearch and would be lost; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"{_WORK}*"):
        shutil.rmtree(stale)
    work = Path(tempfile.mkdtemp(prefix=_WORK, dir=folder))
    try:
        make(work)
        _mark(folder, "")
        for part in parts:
            shutil.rmtree(folder / part, ignore_errors=True)
            os.replace(work / part, folder / part)
        _mark(folder, wanted)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True


def _marked(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / MARKER).read_text())["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mark(folder: Path, made: str) -> None:
    new = folder / f"{MARKER}.new"
    new.write_text(json.dumps({"digest": made}) + "\n")
    os.replace(new, folder / MARKER)
