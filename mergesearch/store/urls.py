"""Store URLs and the secrets that they should not hold."""

import re
from typing import Final

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
