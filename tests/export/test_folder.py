"""Exports are whole or not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mergesearch.errors import CheckpointError, SpecError
from mergesearch.export.folder import RECIPE_FILE, check_space, link_or_copy, new_folder


def write_half(place: Path) -> None:
    """Begin a folder and fail."""
    with new_folder(place) as folder:
        (folder / "half").write_text("x")
        raise ZeroDivisionError


def test_a_finished_block_leaves_the_folder_and_nothing_else(tmp_path: Path) -> None:
    """The folder appears under its name, parents made, with no helper beside it."""
    with new_folder(tmp_path / "deep" / "out") as folder:
        (folder / RECIPE_FILE).write_text("x")
        assert not (tmp_path / "deep" / "out").exists()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]
    assert (tmp_path / "deep" / "out" / RECIPE_FILE).read_text() == "x"


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    """A block that raises leaves no folder, whole or partial."""
    with pytest.raises(ZeroDivisionError):
        write_half(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    """A folder that is not an export is refused even by force; a file too."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letters.txt").write_text("dear")
    for force in (False, True):
        with pytest.raises(SpecError, match="other files"), new_folder(tmp_path / "home", force):
            pass
    with pytest.raises(SpecError, match="is a file"), new_folder(tmp_path / "home" / "letters.txt"):
        pass
    assert (tmp_path / "home" / "letters.txt").read_text() == "dear"


def test_an_earlier_export_is_replaced_only_by_force(tmp_path: Path) -> None:
    """Force replaces the whole folder: no file of the older export stays."""
    with new_folder(tmp_path / "out") as folder:
        (folder / RECIPE_FILE).write_text("old")
        (folder / "stale").write_text("old")
    with pytest.raises(SpecError, match="force"), new_folder(tmp_path / "out"):
        pass
    with new_folder(tmp_path / "out", force=True) as folder:
        (folder / RECIPE_FILE).write_text("new")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [RECIPE_FILE]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    """A folder that was made beforehand is no obstacle."""
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("x")
    assert (tmp_path / "out" / "a").exists()


def test_too_little_room_is_said_before_writing(tmp_path: Path) -> None:
    """One sentence with both sizes."""
    with pytest.raises(CheckpointError, match=r"needs 2\.00 GB.* has 1\.00 GB"):
        check_space(tmp_path, 2 * 10**9, free=10**9)
    check_space(tmp_path, 1)


FILLS_THE_DISK = """
import resource, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from mergesearch.errors import CheckpointError
from mergesearch.export.folder import new_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    with new_folder(Path(sys.argv[1])) as folder:
        if sys.argv[2] == "safetensors":
            save_file({"a": torch.zeros(100_000)}, str(folder / "model.safetensors"))
        else:
            (folder / "big").write_bytes(bytes(100_000))
except CheckpointError as error:
    sys.stdout.write(str(error))
    sys.exit(3)
"""


@pytest.mark.parametrize("kind", ["bytes", "safetensors"])
def test_a_write_that_fails_in_the_middle_leaves_nothing(tmp_path: Path, kind: str) -> None:
    """A file that may not grow (as on a full disk) ends in one sentence and an empty place, with real writes."""
    command = [sys.executable, "-c", FILLS_THE_DISK, str(tmp_path / "out"), kind]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    assert "cannot write the export" in done.stdout
    assert "nothing was left behind" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_link_or_copy_gives_the_same_bytes(tmp_path: Path) -> None:
    """Within one file system the second name costs no room."""
    (tmp_path / "a").write_bytes(b"weights")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"weights"
    assert (tmp_path / "a").stat().st_ino == (tmp_path / "b").stat().st_ino
