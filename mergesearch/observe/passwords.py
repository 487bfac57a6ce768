"""No password in a log or on a screen."""

import re
from typing import Final

PASSWORD: Final = re.compile(r"(\b[\w+]+://[^\s:/@]*):[^\s/]*@|((?:^|[?&\s])password=)[^\s&]+")


def hide_passwords(text: str) -> str:
    """`text` with the passwords of URLs and connection strings in it replaced by three stars."""
    return PASSWORD.sub(lambda m: f"{m[1]}:***@" if m[1] is not None else f"{m[2]}***", text)
