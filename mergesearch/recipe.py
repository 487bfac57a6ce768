"""A recipe: everything that decides the weights of a merge, as a value with a YAML form and a digest."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import yaml

from mergesearch.errors import SpecError
from mergesearch.space import Settings
from mergesearch.types import frozen_array


@dataclass(frozen=True, eq=False)
class Recipe:
    """An operator, its options and its settings. `settings[knob]` has shape (G, K) for G groups and K experts."""

    operator: str
    experts: tuple[str, ...]
    groups: tuple[str, ...]
    settings: Settings
    options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.groups), len(self.experts))
        frozen = {}
        for knob, table in self.settings.items():
            array = frozen_array(table)
            if array.shape != shape:
                raise SpecError(f"recipe: knob {knob!r} must have shape {shape} (groups, experts), got {array.shape}")
            if not np.all(np.isfinite(array)):
                raise SpecError(f"recipe: knob {knob!r} holds a value that is not finite")
            frozen[knob] = array
        object.__setattr__(self, "settings", frozen)

    def digest(self, models: Mapping[str, str]) -> str:
        """SHA-256 of the recipe and the digests of its models (name -> digest): equal weights, equal digest."""
        tables = {k: [[float(v).hex() for v in row] for row in t] for k, t in sorted(self.settings.items())}
        body = [self.operator, dict(self.options), self.experts, self.groups, tables, dict(models)]
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, object]:
        """Plain values for YAML or JSON: settings as knob -> group -> expert -> value."""
        tables = {
            knob: {
                group: {expert: float(v) for expert, v in zip(self.experts, row, strict=True)}
                for group, row in zip(self.groups, table, strict=True)
            }
            for knob, table in self.settings.items()
        }
        return {
            "operator": self.operator,
            "options": dict(self.options),
            "experts": list(self.experts),
            "groups": list(self.groups),
            "settings": tables,
        }

    def to_yaml(self) -> str:
        """The recipe as YAML; `from_yaml` gives back the same digest."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> "Recipe":
        """Inverse of `to_dict`.

        Raises:
            SpecError: a key is missing or a table is not complete.
        """
        try:
            experts, groups = tuple(body["experts"]), tuple(body["groups"])
            tables = {
                knob: np.array([[float(table[g][e]) for e in experts] for g in groups])
                for knob, table in body["settings"].items()
            }
            return cls(str(body["operator"]), experts, groups, tables, dict(body.get("options") or {}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SpecError(f"not a recipe: {type(error).__name__} at {error}; write it with Recipe.to_yaml") from None

    @classmethod
    def from_yaml(cls, text: str) -> "Recipe":
        """Inverse of `to_yaml`; see `from_dict` for errors."""
        body = yaml.safe_load(text)
        if not isinstance(body, Mapping):
            raise SpecError("not a recipe: the YAML is not a mapping")
        return cls.from_dict(body)
