"""Folders that are made once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mergesearch.demo.cache import digest, is_made, make_once
from mergesearch.errors import SpecError

PARTS = ("base", "a")


def maker(text: str) -> Callable[[Path], None]:
    def make(work: Path) -> None:
        for part in PARTS:
            (work / part).mkdir()
            (work / part / "weights").write_text(text)

    return make


def test_a_second_call_makes_nothing(tmp_path: Path) -> None:
    """With the same digest the folder is reused as it stands."""
    assert make_once(tmp_path, "one", PARTS, maker("first"))
    assert not make_once(tmp_path, "one", PARTS, maker("second"))
    assert (tmp_path / "a" / "weights").read_text() == "first"


def test_another_digest_makes_it_again(tmp_path: Path) -> None:
    """When a setting changes, the parts are replaced; other files of the folder stay."""
    make_once(tmp_path, "one", PARTS, maker("first"))
    (tmp_path / "report.html").write_text("mine")
    assert make_once(tmp_path, "two", PARTS, maker("second"))
    assert (tmp_path / "a" / "weights").read_text() == "second"
    assert (tmp_path / "report.html").read_text() == "mine"


def test_an_interrupted_call_leaves_nothing(tmp_path: Path) -> None:
    """A maker that is stopped half-way leaves no part and no work folder, and the next call starts anew."""

    def stopped(work: Path) -> None:
        (work / "base").mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once(tmp_path / "run", "one", PARTS, stopped)
    assert list((tmp_path / "run").iterdir()) == []
    assert make_once(tmp_path / "run", "one", PARTS, maker("whole"))
    assert is_made(tmp_path / "run", "one", PARTS)


def test_what_a_killed_call_left_is_swept(tmp_path: Path) -> None:
    """A work folder of a process that was killed is removed by the next call."""
    (tmp_path / ".making-old").mkdir()
    make_once(tmp_path, "one", PARTS, maker("whole"))
    assert not (tmp_path / ".making-old").exists()


def test_a_missing_part_is_made_again(tmp_path: Path) -> None:
    """A marker alone does not count: each part must be there."""
    make_once(tmp_path, "one", PARTS, maker("first"))
    (tmp_path / "a" / "weights").unlink()
    (tmp_path / "a").rmdir()
    assert not is_made(tmp_path, "one", PARTS)
    assert make_once(tmp_path, "one", PARTS, maker("second"))


def test_a_folder_of_someone_else_is_not_overwritten(tmp_path: Path) -> None:
    """A part that this code did not write is refused, and left as it is."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "weights").write_text("precious")
    with pytest.raises(SpecError, match="was not made by mergesearch"):
        make_once(tmp_path, "one", PARTS, maker("mine"))
    assert (tmp_path / "base" / "weights").read_text() == "precious"


def test_the_digest_does_not_depend_on_the_order_of_settings() -> None:
    """Equal settings give equal digests."""
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
