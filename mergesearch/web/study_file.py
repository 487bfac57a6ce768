"""A study file that somebody sent: what can be said of it without models, data or plug-ins."""

import re
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import yaml

from mergesearch.errors import SpecError
from mergesearch.study.black_box import BlackBoxSpec, is_black_box, parse_black_box
from mergesearch.study.bounded import load_bounded
from mergesearch.study.spec import StudySpec
from mergesearch.study.text import Source, parse_spec
from mergesearch.web.security.paths import outside
from mergesearch.web.settings import Settings

LARGEST: Final = 250_000
"""Characters of a study file."""
_NAME: Final = "study.yaml"
_MOST: Final = 20
_PLACE: Final = re.compile(_NAME + r":(\d+):\d+: ")


@dataclass(frozen=True)
class Found:
    """One finding: its `level` (ok, warning, error), a sentence, and the line it is about, counted from 1."""

    level: str
    sentence: str
    line: int | None = None


def look(text: str, settings: Settings) -> tuple[StudySpec | BlackBoxSpec | None, list[Found]]:
    """The study in `text`, None if it is none, and what is wrong with it: its YAML, its keys, and paths that lead out
    of the folders of the server. Opens no file."""
    source, found = Source(_NAME, text, settings.roots[0]), list[Found]()
    try:
        body = load_bounded(text, _NAME)
        found += [_leads_out(source, path, value) for path, value in islice(_outside(body, settings), _MOST)]
        return (parse_black_box if is_black_box(text, _NAME) else parse_spec)(source), found
    except SpecError as error:
        return None, [*found, *(_finding(line) for line in str(error).split("\n"))]


def _outside(body: Any, settings: Settings) -> Any:
    return outside(body, settings.roots[0], settings.roots) if isinstance(body, dict) else iter(())


def _leads_out(source: Source, path: tuple[str | int, ...], value: str) -> Found:
    key = ".".join(map(str, path))
    return Found(
        "error",
        f"{key}: {value[:200]!r} leads out of the folders that studies of this server may use; move it into one of "
        "them, or have the server started with --root for its folder",
        source.position(path)[0],
    )


def _finding(line: str) -> Found:
    at = _PLACE.match(line)
    return Found("error", line[at.end() if at else 0 :], int(at[1]) if at else None)


def without_store(text: str) -> str:
    """The file without its `store`, every line where it was: what a server launches stands in the server's store."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return text
    if root.flow_style:
        return yaml.safe_dump({k: v for k, v in yaml.safe_load(text).items() if k != "store"}, sort_keys=False)
    for key, value in reversed(root.value):
        if key.value == "store":
            begin, end = key.start_mark.index, value.end_mark.index
            text = f"{text[:begin]}# store: this server's{chr(10) * text.count(chr(10), begin, end)}{text[end:]}"
    return text
