"""Store URLs and the secrets that they should not hold."""

import re
from typing import Final

from mergesearch.errors import SpecError

LOCAL: Final = ("sqlite", "memory")
_SECRET = re.compile(r"([?&][^=&]*passw[^=&]*=)[^&]*", re.IGNORECASE)


def shown(url: str) -> str:
    """`url` for messages, with *** for a password. Rather too much is hidden than too little."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme in LOCAL:
        return url
    login, at, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}://{user}{':***' if colon else ''}{at}" + _SECRET.sub(r"\1***", place)


def has_password(url: str) -> bool:
    """Whether `url` holds a password."""
    return shown(url) != url


def refuse_password(url: str) -> None:
    """Raises SpecError if `url`, which stands where others may read it, holds a password."""
    if has_password(url):
        raise SpecError(
            f"store {shown(url)!r} holds a password, which others could read in the study file, the list of processes "
            "or a log; leave it out and put it into ~/.pgpass, PGPASSFILE or PGPASSWORD, or give the whole URL in the "
            "environment variable MERGESEARCH_STORE"
        )
