"""How a kind named in YAML becomes a class: one table per family, loaded when it is first used."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from mergesearch.errors import SpecError

OptionsT = TypeVar("OptionsT", bound="PluginOptions")


class PluginOptions(BaseModel):
    """Options of one plug-in: typed, bounded, documented in its file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """'; did you mean 'x'?' for the nearest of `allowed`, else a list of what is allowed."""
    names = list(allowed)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(map(repr, names)) or 'none'}"


def load(family: str, table: Mapping[str, str], kind: str) -> Any:
    """The class that `table` names for `kind` as 'module:Class'.

    Raises:
        SpecError: `kind` is not in the table.
    """
    if kind not in table:
        raise SpecError(f"{family} {kind!r} is unknown{did_you_mean(kind, table)}")
    module, name = table[kind].split(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True)
class Fault:
    """One thing wrong in outside text: the path of keys and list positions to it, and a sentence about it."""

    path: tuple[str | int, ...]
    sentence: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.sentence}" if self.path else self.sentence


def faults(schema: type[BaseModel], error: ValidationError) -> list[Fault]:
    """Every fault that pydantic found, in plain words and with 'did you mean'."""
    found = []
    for detail in error.errors(include_url=False):
        path = tuple(part for part in detail["loc"] if not _is_union_tag(part))
        key = str(path[-1]) if path else ""
        if detail["type"] == "extra_forbidden":
            found.append(Fault(path, f"unknown key {key!r}{did_you_mean(key, _fields_at(schema, path[:-1]))}"))
        elif detail["type"] == "missing":
            found.append(Fault(path[:-1], f"key {key!r} is missing"))
        else:
            sentence = detail["msg"].removeprefix("Value error, ")
            found.append(Fault(path, f"{sentence} (got {detail['input']!r})"))
    return found


def _is_union_tag(part: str | int) -> bool:
    """Pydantic names the branch of a union in its paths ('function-after[...]', 'dict[str,str]'): not a key."""
    return isinstance(part, str) and ("[" in part or part in ("float", "int", "str", "bool"))


def _fields_at(schema: Any, path: tuple[str | int, ...]) -> list[str]:
    for part in path:
        if isinstance(part, int) or not (isinstance(schema, type) and issubclass(schema, BaseModel)):
            schema = next((a for a in get_args(schema) if isinstance(a, type)), None)
            if isinstance(part, int):
                continue
        else:
            field = schema.model_fields.get(part)
            schema = field.annotation if field else None
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return list(schema.model_fields)
    return [
        name for a in get_args(schema) if isinstance(a, type) and issubclass(a, BaseModel) for name in a.model_fields
    ]


def parse_options(where: str, schema: type[OptionsT], values: Mapping[str, object]) -> OptionsT:
    """`values` checked against `schema`.

    Raises:
        SpecError: one sentence for each wrong key, each beginning with `where`.
    """
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        raise SpecError("\n".join(f"{where}: {fault}" for fault in faults(schema, error))) from None
