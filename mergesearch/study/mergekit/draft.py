"""A study in the making, and its text: what an import found, what it could not know, and what is left to fill in."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml

from mergesearch.errors import SpecError

_CACHED = re.compile(r"models--[^/]+--([^/]+)")

OBJECTIVES = """\
# FILL IN at least one objective: mergekit's file says how to merge, not what is good. `mergesearch list scorers` has
# the kinds. For example:
#   objectives:
#     - {name: reviews, scorer: text_classification, data: {path: "reviews-{split}.csv"}}
"""


@dataclass(frozen=True)
class Draft:
    """All parts of a study but its objectives. `notes` are sentences for the head of the file and for the user."""

    name: str
    origin: str
    base: str
    experts: Mapping[str, str]
    operator: str
    options: Mapping[str, object]
    space: Mapping[str, object]
    strategy: Mapping[str, object] = field(default_factory=lambda: {"kind": "cma_es", "seed": 0})
    evaluations: int = 200
    objectives: str = OBJECTIVES
    notes: tuple[str, ...] = ()
    space_notes: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """The models that are no folders here."""
        return tuple(path for path in dict.fromkeys((self.base, *self.experts.values())) if not Path(path).is_dir())

    def to_yaml(self) -> str:
        """The study file; it loads once its objectives are filled in."""
        missing = [f"{path!r} is no folder here: download the model and write its folder." for path in self.missing]
        parts = [
            _comment(f"From mergekit's {self.origin} by 'mergesearch import mergekit'."),
            *(_comment(note) for note in self.notes),
            f"name: {self.name}\n",
            *(_comment(sentence) for sentence in missing),
            _dump({"models": {"base": self.base, "experts": dict(self.experts)}}, flow=False),
            _dump({"merge": {"operator": self.operator, **self.options}}, flow=False),
            *(_comment(note) for note in self.space_notes),
            _dump({"space": dict(self.space)}),
            self.objectives,
            "objectives: []\n",
            _dump({"strategy": dict(self.strategy)}),
            _dump({"budget": {"evaluations": self.evaluations}}),
        ]
        return "".join(parts)


def _dump(body: Mapping[str, Any], flow: bool | None = None) -> str:
    """YAML of a section; `flow` None: what holds no collection stands on one line."""
    return yaml.safe_dump(dict(body), sort_keys=False, allow_unicode=True, width=116, default_flow_style=flow)


def _comment(sentence: str) -> str:
    return "".join(f"# {line}\n" for line in wrap(sentence, 116, break_long_words=False, break_on_hyphens=False))


def study_name(path: Path) -> str:
    """A study's name from a file's."""
    return _clean(path.stem) or "imported"


def expert_names(paths: Sequence[str]) -> dict[str, str]:
    """Names for models, from the last parts of their paths (or the hub's name in its cache): name -> path."""
    names: dict[str, str] = {}
    for path in paths:
        cached = _CACHED.search(path)
        name = _clean(cached[1] if cached else path.rstrip("/").rsplit("/", 1)[-1]) or "expert"
        unique, n = name, 1
        while unique in names:
            n += 1
            unique = f"{name}-{n}"
        names[unique] = path
    return names


def distinct(models: Sequence[str], what: str) -> None:
    """Raises SpecError where a model stands twice."""
    twice = next((model for i, model in enumerate(models) if model in models[:i]), None)
    if twice is not None:
        raise SpecError(f"{what}: {twice!r} stands there twice")


def _clean(word: str) -> str:
    return re.sub(r"^[^A-Za-z0-9]+", "", re.sub(r"[^A-Za-z0-9_-]+", "-", word)).rstrip("-")
