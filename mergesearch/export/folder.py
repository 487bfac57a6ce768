"""A folder that is either whole or not there: written beside its place, renamed at the end."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from mergesearch.errors import CheckpointError, SpecError

RECIPE_FILE = "recipe.yaml"
"""Every export holds this file; only a folder that has it may be replaced."""


@contextmanager
def new_folder(to: Path, force: bool = False) -> Iterator[Path]:
    """A new, empty folder to write into; it becomes `to` when the block ends without an error, and vanishes otherwise.

    Whatever kills the process, `to` is never half-written: a hidden sibling '.NAME.PID.partial' may be left behind.

    Args:
        force: replace an earlier export at `to`. Any other folder that is not empty is refused even so.

    Raises:
        SpecError: `to` is a file, or a folder that is not empty.
        CheckpointError: the disk is full, or something else forbids writing.
    """
    place = Path(os.path.abspath(to))
    _refuse_to_overwrite(place, force)
    partial = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        _replace(partial, place)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write the export {str(place)!r}: {_reason(error)}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_space(folder: Path, needed: int, free: int | None = None) -> None:
    """Refuse before the first byte what would not fit; `free` bytes are asked of the disk unless given.

    Raises:
        CheckpointError: fewer than `needed` bytes are free where `folder` stands.
    """
    there = shutil.disk_usage(folder).free if free is None else free
    if there < needed:
        raise CheckpointError(
            f"the export needs {needed / 1e9:.2f} GB, the disk of {str(folder)!r} has {there / 1e9:.2f} GB free; "
            "make room, or give another folder"
        )


def _refuse_to_overwrite(place: Path, force: bool) -> None:
    if not place.exists():
        return
    if not place.is_dir():
        raise SpecError(f"cannot export to {str(place)!r}: it is a file; name a folder")
    if not any(place.iterdir()):
        return
    if not (place / RECIPE_FILE).is_file():
        raise SpecError(f"cannot export to {str(place)!r}: the folder holds other files; name a new one")
    if not force:
        raise SpecError(f"cannot export to {str(place)!r}: an export is there; name a new folder, or force it")


def _replace(partial: Path, place: Path) -> None:
    """Rename; an older folder steps aside first and is removed last, so that one whole folder always exists."""
    older = partial.with_suffix(".older")
    if place.exists():
        shutil.rmtree(older, ignore_errors=True)
        place.rename(older)
    partial.rename(place)
    shutil.rmtree(older, ignore_errors=True)


def _reason(error: OSError | SafetensorError) -> str:
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left" in text or "os error 28" in text:
        return "the disk is full; make room and export again (nothing was left behind)"
    return f"{text} (nothing was left behind)"


def link_or_copy(source: Path, target: Path) -> None:
    """The same bytes at `target`: a hard link where the file system knows them, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
