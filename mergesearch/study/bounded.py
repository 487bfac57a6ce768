"""YAML of people one does not know: refused before it is built if it would be large, deep, or unfolds into more than
it says ('a billion laughs')."""

from typing import Any, Final

import yaml

from mergesearch.errors import SpecError

NODES: Final = 20_000
"""Values in one file, with those counted again that an alias repeats."""
DEPTH: Final = 24
CHARACTERS: Final = 500_000


def load_bounded(text: str, name: str) -> Any:
    """What `text` says, as plain values; only YAML's safe types are known.

    Raises:
        SpecError: it is not YAML, or too much of it; with line and column, counted from 1, after `name`.
    """
    if len(text) > CHARACTERS:
        raise SpecError(f"{name}:1:1: the file has {len(text)} characters; {CHARACTERS} are allowed")
    try:
        _refuse_bombs(text, name)
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        raise SpecError(f"{_at(name, error.problem_mark)}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        why = getattr(error, "reason", "it cannot be read")
        line = text.count("\n", 0, getattr(error, "position", 0) or 0) + 1
        raise SpecError(f"{name}:{line}:1: not valid YAML: {why}") from None
    except ValueError as error:  # a date or a number that cannot be
        raise SpecError(f"{name}:1:1: not valid YAML: {error}") from None


def _refuse_bombs(text: str, name: str) -> None:
    """Go through the file's events, which come as they are read, and stop at the first that is too much."""
    sizes: dict[str, int] = {}  # of what each anchor names, unfolded
    open_nodes: list[tuple[str | None, int]] = []  # anchor and the count when it began
    count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = _at(name, event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise SpecError(f"{where}: alias '*{event.anchor}' repeats what is not known yet, or itself")
            count += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            count += 1
            open_nodes.append((event.anchor, count))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, begun = open_nodes.pop()
            if anchor:
                sizes[anchor] = count - begun + 1
        if count > NODES:
            raise SpecError(f"{where}: the file unfolds into more than {NODES} values; no study needs so many")
        if len(open_nodes) > DEPTH:
            raise SpecError(f"{where}: values stand in each other more than {DEPTH} deep; no study needs that")


def _at(name: str, mark: Any) -> str:
    return f"{name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else f"{name}:1:1"
