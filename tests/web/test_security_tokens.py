"""The token is made once, kept as a hash in a file that only its owner reads, and found again."""

import os
import stat
from pathlib import Path

import pytest

from mergesearch.errors import SpecError
from mergesearch.web.security.tokens import hashed, known_token, matches


def kept(folder: Path) -> dict[str, str]:
    return {"MERGESEARCH_TOKEN_FILE": str(folder / "conf" / "token")}


def test_a_token_is_made_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    """256 bits, in a file of mode 600 in a folder of mode 700; the second start knows it and cannot say it."""
    first, file = known_token(kept(tmp_path)), tmp_path / "conf" / "token"
    assert len(first.fresh) >= 43
    assert first.fresh not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    again = known_token(kept(tmp_path))
    assert (again.fresh, again.hash) == ("", first.hash)
    assert matches(first.fresh, again.hash)
    assert [p.name for p in file.parent.iterdir()] == ["token"]


def test_a_new_token_replaces_the_one_before(tmp_path: Path) -> None:
    """Whoever has the old one is locked out at the next start."""
    old = known_token(kept(tmp_path))
    new = known_token(kept(tmp_path), renew=True)
    assert matches(new.fresh, known_token(kept(tmp_path)).hash)
    assert not matches(old.fresh, new.hash)


def test_a_container_gives_its_own_and_nothing_is_kept(tmp_path: Path) -> None:
    """$MERGESEARCH_TOKEN wins; one that could be guessed is refused, and never repeated in the message."""
    given = kept(tmp_path) | {"MERGESEARCH_TOKEN": "x" * 32}
    assert known_token(given).hash == hashed("x" * 32)
    assert not (tmp_path / "conf").exists()
    for bad in ("short-secret", "y" * 40 + " ", "ü" * 40):
        with pytest.raises(SpecError, match="at least 32") as raised:
            known_token({"MERGESEARCH_TOKEN": bad})
        assert bad not in str(raised.value)
    with pytest.raises(SpecError, match="MERGESEARCH_TOKEN says"):
        known_token(given, renew=True)


@pytest.mark.parametrize("text", ["", "sha256:", "hello", "sha256:" + "g" * 64, "\udcff"])
def test_a_file_that_holds_no_hash_is_not_believed(tmp_path: Path, text: str) -> None:
    """An empty or broken file lets nobody in; the message says what to do."""
    file = tmp_path / "token"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    file.chmod(0o600)
    with pytest.raises(SpecError, match="--new-token"):
        known_token({"MERGESEARCH_TOKEN_FILE": str(file)})


def test_a_file_that_others_may_write_is_not_believed(tmp_path: Path) -> None:
    """They could have put the hash of their own token there."""
    known_token({"MERGESEARCH_TOKEN_FILE": str(tmp_path / "token")})
    os.chmod(tmp_path / "token", 0o622)
    with pytest.raises(SpecError, match="others may write"):
        known_token({"MERGESEARCH_TOKEN_FILE": str(tmp_path / "token")})


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "conf").write_text("")
    with pytest.raises(SpecError, match="cannot keep the token"):
        known_token(kept(tmp_path))


def test_nothing_matches_no_token() -> None:
    """A server without a token lets nobody in, whatever they say."""
    assert not matches("", "")
    assert not matches("x", "")
