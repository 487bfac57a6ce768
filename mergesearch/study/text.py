"""The text of a study file: where each key stands in it, and what its schema makes of it. Knows no plug-in, so it is
quick to import."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from mergesearch.errors import SpecError
from mergesearch.plugins import Fault, faults
from mergesearch.store.urls import refuse_password
from mergesearch.study.bounded import load_bounded
from mergesearch.study.spec import StudySpec

Position = tuple[int, int]


@dataclass(frozen=True)
class Source:
    """A study file's text, where its relative paths start, and where each key stands in it."""

    name: str
    text: str
    root: Path

    def at(self, path: Iterable[str | int]) -> str:
        """'file:line:column' of a key path, or of the nearest part of it that exists."""
        line, column = self.position(path)
        return f"{self.name}:{line}:{column}"

    def position(self, path: Iterable[str | int]) -> Position:
        """Line and column, counted from 1, of a key path, or of the nearest part of it that exists."""
        marks = _marks(self.text)
        keys = tuple(path)
        while keys and keys not in marks:
            keys = keys[:-1]
        return marks.get(keys, (1, 1))

    def error(self, found: Iterable[Fault]) -> SpecError:
        """One SpecError, a line for each fault."""
        return SpecError("\n".join(f"{self.at(fault.path)}: {fault.sentence}" for fault in found))


def parse_spec(source: Source) -> StudySpec:
    """The study in `source` by the schema alone; `parse_study` looks at its plug-ins' options too.

    Raises:
        SpecError: it is not YAML, or has keys or values that cannot be; a line for each with file, line and column.
    """
    body = load_bounded(source.text, source.name)
    if not isinstance(body, dict):
        raise SpecError(f"{source.name}:1:1: a study file is a mapping that begins with 'name: ...'")
    try:
        spec = StudySpec.model_validate(body)
    except ValidationError as error:
        raise source.error(faults(StudySpec, error)) from None
    refuse_password(spec.store)
    return spec


def _marks(text: str) -> dict[tuple[str | int, ...], Position]:
    """Key path -> (line, column), counted from 1, of every key and list item."""
    found: dict[tuple[str | int, ...], Position] = {}

    def walk(node: yaml.Node | None, path: tuple[str | int, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                found[(*path, key.value)] = (key.start_mark.line + 1, key.start_mark.column + 1)
                walk(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                found[(*path, i)] = (item.start_mark.line + 1, item.start_mark.column + 1)
                walk(item, (*path, i))

    walk(yaml.compose(text, Loader=yaml.SafeLoader), ())
    return found
