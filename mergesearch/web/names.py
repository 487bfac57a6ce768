"""Names of studies as they come in addresses."""

import re
from typing import Annotated, Final, TypeAlias

from fastapi import Path

from mergesearch.errors import StudyNotFound
from mergesearch.study.spec import NAME

_NAME: Final = re.compile(NAME)
_LONGEST: Final = 200

StudyName: TypeAlias = Annotated[
    str,
    Path(
        description="Name of a study, as in its file.",
        examples=["smoke"],
        json_schema_extra={"pattern": NAME, "maxLength": _LONGEST},
    ),
]
"""A study's name in a path. It is not checked here: what can be no name is answered like a study that is not there."""


def check_name(name: str) -> None:
    """Raises StudyNotFound if no study can have that name: it never reaches the database."""
    if len(name) > _LONGEST or not _NAME.fullmatch(name) or name.endswith("\n"):
        raise StudyNotFound(f"no study can be named {name[:40]!r}: names are of letters, digits, '-' and '_'")
