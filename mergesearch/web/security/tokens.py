"""The token that changes need: 256 random bits, of which only a hash is kept."""

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mergesearch.errors import SpecError

TOKEN_VARIABLE: Final = "MERGESEARCH_TOKEN"  # nosec B105  # the name of a variable
FILE_VARIABLE: Final = "MERGESEARCH_TOKEN_FILE"
SHORTEST: Final = 32
"""Characters of a token that people choose themselves: fewer could be guessed."""

_SCHEME: Final = "sha256:"


@dataclass(frozen=True)
class Known:
    """What a server knows of its token. `fresh`: the token itself, only when it was made just now; `where`: what to
    call the place it comes from."""

    hash: str
    fresh: str
    where: str


def new_token() -> str:
    """A token of 256 bits, in letters that need no quoting in a URL or a shell."""
    return secrets.token_urlsafe(32)


def hashed(token: str) -> str:
    """What is kept of a token. One round of SHA-256 is enough, since nobody can go through 256 random bits."""
    return _SCHEME + hashlib.sha256(b"mergesearch token\0" + token.encode()).hexdigest()


def matches(token: str, token_hash: str) -> bool:
    """Whether `token` is the one of `token_hash`, in a time that tells nothing of either. False for a hash of ''."""
    return hmac.compare_digest(hashed(token), token_hash) and bool(token_hash)


def token_file(environment: Mapping[str, str]) -> Path:
    """Where the hash is kept: $MERGESEARCH_TOKEN_FILE, else beside the user's other configuration."""
    if given := environment.get(FILE_VARIABLE):
        return Path(given)
    base = environment.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "mergesearch" / "token"


def known_token(environment: Mapping[str, str], *, renew: bool = False) -> Known:
    """The token of this user's servers; one is made where there is none yet, or with `renew`.

    $MERGESEARCH_TOKEN gives one for a container, and nothing is kept then.

    Raises:
        SpecError: the given token is too short, or the file cannot be read, written, or trusted.
    """
    if given := environment.get(TOKEN_VARIABLE):
        if renew:
            raise SpecError(f"--new-token: the token is what ${TOKEN_VARIABLE} says; change it there")
        if len(given) < SHORTEST or not given.isascii() or not given.isprintable() or " " in given:
            raise SpecError(
                f"${TOKEN_VARIABLE} must have at least {SHORTEST} characters, all of them printable ASCII without "
                "blanks; make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        return Known(hashed(given), "", f"${TOKEN_VARIABLE}")
    path = token_file(environment)
    try:
        if not renew and path.exists():
            return Known(_read(path), "", "the one made before")
        token = new_token()
        if _write(path, hashed(token), replace=renew):
            return Known(hashed(token), token, "a new one")
        return Known(_read(path), "", "the one made before")  # another server was quicker
    except OSError as error:
        raise SpecError(
            f"cannot keep the token's hash in {str(path)!r}: {error.strerror}; name another file in ${FILE_VARIABLE}, "
            f"or give a token in ${TOKEN_VARIABLE}"
        ) from None


def _read(path: Path) -> str:
    if path.stat().st_mode & 0o022:
        raise SpecError(f"others may write the token's file {str(path)!r}; chmod 600 it, then make a new token")
    text = path.read_text(encoding="ascii", errors="replace").strip()
    digest = text.removeprefix(_SCHEME)
    if not text.startswith(_SCHEME) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise SpecError(f"{str(path)!r} holds no hash of a token; make a new one: mergesearch serve --new-token")
    return text


def _write(path: Path, text: str, *, replace: bool) -> bool:
    """Write a file of mode 600 that is never there in part. False if one stands there already, unless `replace`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(text + "\n")
        if replace:
            draft.replace(path)
            return True
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        return True
    finally:
        draft.unlink(missing_ok=True)
