"""A small real disk in memory that can be filled up and freed again."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted tmpfs. `folder` is where; `ballast` takes what is free."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @property
    def free(self) -> int:
        """Bytes that are free."""
        return shutil.disk_usage(self.folder).free

    def fill(self, leave: int) -> None:
        """Take all but about `leave` bytes, whoever else is writing."""
        with self._ballast.open("ab", buffering=0) as file:
            while (take := self.free - leave) > 0:
                try:
                    file.write(b"x" * min(take, 2**20))
                except OSError:
                    return

    def empty(self) -> None:
        """Give all of it back."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, size: int, owner: str = "") -> Iterator[SmallDisk]:
    """A disk of `size` bytes at `folder`, made for the purpose and unmounted afterwards. Needs root."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "chaos", str(folder)], check=True)
    try:
        if owner:
            shutil.chown(folder, owner, owner)
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
