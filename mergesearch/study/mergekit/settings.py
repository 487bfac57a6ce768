"""What a parameter of mergekit says, over slices, layers and tensor names, summed up for a study's knob."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from mergesearch.errors import SpecError
from mergesearch.study.mergekit.config import MergeConfig, Setting, Slice

Weighted: TypeAlias = list[tuple[float, float]]
"""Numbers and how many layers each stands for."""


@dataclass(frozen=True)
class Summary:
    """All numbers that one parameter of one model takes. `said`: as the file has it, for a comment."""

    low: float
    high: float
    mean: float
    filters: tuple[str, ...]
    gradient: bool
    stepped: bool  # differs from slice to slice
    said: str

    @property
    def constant(self) -> bool:
        """One number everywhere."""
        return self.low == self.high


def summarise(config: MergeConfig, word: str, model: str | None, default: float | None) -> Summary:
    """The numbers of parameter `word` of a model, or of the whole merge (None).

    mergekit looks at the model's own parameters, the slice's, then the file's; the first that names a tensor counts.

    Raises:
        SpecError: it is missing, or no number.
    """
    pieces: Weighted = []
    filters: dict[str, None] = {}
    gradient, said, per_slice = False, [], set()
    for part in config.slices:
        chain = [s[word] for s in _scopes(config, part, model) if word in s]
        if default is not None:
            chain.append(default)
        found = _first(chain)
        if not found:
            owner = f" of model {model!r}" if model else ""
            raise SpecError(f"merge_method {config.method!r} needs parameter {word!r}{owner}, which the file lacks")
        names = [entry["filter"] for entry in found if isinstance(entry, dict) and entry.get("filter") is not None]
        filters |= dict.fromkeys(name for name in names if name != "*")
        numbers: Weighted = []
        for entry in found:
            value = entry.get("value") if isinstance(entry, dict) else entry
            gradient |= isinstance(value, list) and len(set(map(str, value))) > 1
            numbers += _numbers(value, word)
        share = part.length / sum(weight for _, weight in numbers)
        pieces += [(number, weight * share) for number, weight in numbers]
        said.append(_flow(chain[0]))
        per_slice.add(said[-1])
    values = [number for number, _ in pieces]
    mean = math.fsum(n * w for n, w in pieces) / math.fsum(w for _, w in pieces)
    same = min(values) == max(values)
    text = said[0] if len(per_slice) == 1 else "by slice " + ", ".join(said)
    return Summary(
        min(values), max(values), values[0] if same else mean, tuple(filters), gradient, len(per_slice) > 1, text
    )


def flag(config: MergeConfig, word: str) -> Any:
    """The one value of a parameter of the whole merge, None where the file does not name it.

    Raises:
        SpecError: it differs from place to place.
    """
    found = [s[word] for part in config.slices for s in _scopes(config, part, None) if word in s]
    if any(isinstance(value, list | Mapping) or value != found[0] for value in found):
        raise SpecError(f"parameter {word!r} differs from tensor to tensor; a study has one value of it")
    return found[0] if found else None


def _scopes(config: MergeConfig, part: Slice, model: str | None) -> list[Mapping[str, Setting]]:
    own = [source.parameters for source in part.sources if source.model == model]
    return [*own, part.parameters, config.parameters]


def _first(chain: Sequence[Setting]) -> list[Any]:
    """What counts of a chain of settings: plain values, or entries of {filter, value} up to one that takes all."""
    found: list[Any] = []
    for setting in chain:
        entries = [setting] if isinstance(setting, Mapping) else setting
        if not (isinstance(entries, list) and any(isinstance(entry, Mapping) for entry in entries)):
            return [*found, setting]
        for entry in entries:
            found.append(dict(entry))
            if entry.get("filter") in (None, "*"):
                return found
    return found


def _numbers(value: Setting, word: str) -> Weighted:
    """A scalar, or the nodes of a gradient: those inside stand for a whole step, those at its ends for half of one."""
    if not isinstance(value, list):
        return [(number(value, word), 1.0)]
    nodes = [number(node, word) for node in value]
    if len(nodes) < 2:
        return [(node, 1.0) for node in nodes]
    steps = len(nodes) - 1
    return [(node, (0.5 if i in (0, steps) else 1.0) / steps) for i, node in enumerate(nodes)]


def number(value: Any, word: str) -> float:
    """A number as mergekit reads it: '1e-5', which YAML 1.1 takes for text, too.

    Raises:
        SpecError: it is none.
    """
    convert: Callable[[Any], float] = float
    try:
        found = convert(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise SpecError(f"parameter {word!r} is a number, got {value!r}")
    return found


def _flow(setting: Setting) -> str:
    """A setting on one line, as in a file."""
    text = yaml.safe_dump(setting, default_flow_style=True, width=math.inf, sort_keys=False)
    return text.replace("\n...", "").strip()
