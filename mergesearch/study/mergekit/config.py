"""mergekit's merge config as values: its models or slices, their parameters, and what is refused by name.

A list of numbers is a gradient over the layers of its slice, a list of {filter, value} goes by tensor names; both stay
as they are here (`Setting`) and are summed up in settings.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mergesearch.errors import SpecError
from mergesearch.plugins import did_you_mean

Setting: TypeAlias = Any
"""A scalar, a list of them, or a list of {filter, value}, as YAML gives it."""

_KEYS = ("merge_method", "models", "slices", "modules", "base_model", "parameters", "dtype", "out_dtype", "tokenizer",
         "tokenizer_source", "chat_template", "name")  # fmt: skip


@dataclass(frozen=True)
class SourceModel:
    """One model of a slice and its own parameters."""

    model: str
    parameters: Mapping[str, Setting]


@dataclass(frozen=True)
class Slice:
    """Output layers `start` to `stop` (None: all layers of the models) and where they come from."""

    sources: tuple[SourceModel, ...]
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    start: int = 0
    stop: int | None = None

    @property
    def length(self) -> int:
        """Number of layers; 1 where it is all there are."""
        return 1 if self.stop is None else self.stop - self.start


@dataclass(frozen=True)
class MergeConfig:
    """A merge config. `models`: every source but the base, in order. `notes`: what a study leaves out, in sentences."""

    method: str
    base: str | None
    slices: tuple[Slice, ...]
    parameters: Mapping[str, Setting]
    notes: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The models that are merged, the base too where it stands among them, in the order of the first slice."""
        return tuple(source.model for source in self.slices[0].sources)

    @property
    def sliced(self) -> bool:
        """True where the file says slices."""
        return self.slices[0].stop is not None


def read_config(body: Mapping[str, Any]) -> MergeConfig:
    """A merge config from YAML's values.

    Raises:
        SpecError: it says what a study cannot, each thing by its name.
    """
    for key in body:
        if key not in _KEYS:
            raise SpecError(f"a merge config has no key {key!r}{did_you_mean(str(key), _KEYS)}")
    if body.get("modules") is not None:
        raise SpecError("'modules' merges the parts of a model by different recipes; a study has one for the whole")
    if (body.get("models") is None) == (body.get("slices") is None):
        raise SpecError("a merge config names either 'models' or 'slices'")
    base = model_path(body["base_model"], "base_model") if body.get("base_model") is not None else None
    slices = _models(body["models"]) if body.get("models") is not None else _slices(body["slices"], base)
    return MergeConfig(
        str(body.get("merge_method")),
        base,
        slices,
        _parameters(body.get("parameters"), "parameters"),
        tuple(tokenizer_notes(body, base)) + tuple(_file_notes(body)),
    )


def model_path(value: Any, where: str) -> str:
    """The folder or the hub's name of a model reference.

    Raises:
        SpecError: it names an adapter, a revision or another architecture.
    """
    if isinstance(value, Mapping):
        extra = sorted(set(value) - {"model", "path"})
        if extra:
            raise SpecError(f"{where}: {extra[0]!r} of a model reference is not expressible; name a folder")
        return model_path(value.get("model", value.get("path")), where)
    if not isinstance(value, str) or not value:
        raise SpecError(f"{where}: a model is the name of a folder, got {value!r}")
    if "+" in value:
        raise SpecError(f"{where}: {value!r} is a model with an adapter on it; merge the two into a folder first")
    if "@" in value:
        raise SpecError(f"{where}: {value!r} names a revision; download it and name its folder")
    return value


def tokenizer_notes(body: Mapping[str, Any], base: str | None) -> Sequence[str]:
    """Sentences on the tokenizer, which a study takes from the base.

    Raises:
        SpecError: another vocabulary than the base's is asked for.
    """
    source = body.get("tokenizer_source")
    tokenizer = body.get("tokenizer")
    if isinstance(tokenizer, Mapping):
        for key in tokenizer:
            if key not in ("source", "tokens", "pad_to_multiple_of"):
                raise SpecError(f"tokenizer: unknown key {key!r}")
            if key != "source" and tokenizer[key]:
                raise SpecError(f"'tokenizer: {key}' changes the rows of the embeddings, which a study does not")
        source = tokenizer.get("source", "base")
    if source is not None and source != "base" and (base is None or model_path(source, "tokenizer_source") != base):
        raise SpecError(
            f"tokenizer_source {source!r} builds another vocabulary than the base's; a study merges models of one "
            "vocabulary and keeps the base's tokenizer"
        )
    return ()


def _file_notes(body: Mapping[str, Any]) -> list[str]:
    notes = []
    dtype = body.get("out_dtype") or body.get("dtype")
    if dtype is not None:
        notes.append(f"The config writes {dtype}; a study computes in float32 and writes the base's dtype.")
    if body.get("chat_template") is not None:
        notes.append("'chat_template' is no weight: the export keeps the base's; add yours to its tokenizer.")
    return notes


def _parameters(value: Any, where: str) -> Mapping[str, Setting]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SpecError(f"{where}: parameters are a mapping, got {value!r}")
    return dict(value)


def _only(entry: Any, where: str, *keys: str) -> Mapping[str, Any]:
    """`entry` as a mapping of no other keys."""
    if not isinstance(entry, Mapping):
        raise SpecError(f"{where} is a mapping, got {entry!r}")
    for key in entry:
        if key not in keys:
            raise SpecError(f"{where}: {key!r} is not expressible{did_you_mean(str(key), keys)}")
    return entry


def _entries(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise SpecError(f"'{where}' is a list with at least one entry")
    return value


def _models(value: Any) -> tuple[Slice, ...]:
    sources = []
    for i, entry in enumerate(_entries(value, "models")):
        where = f"models[{i}]"
        # mergekit-evolve writes layer_range into models, where mergekit does not read it
        found = _only(entry, where, "model", "parameters", "layer_range")
        sources.append(SourceModel(model_path(found.get("model"), where), _parameters(found.get("parameters"), where)))
    return (Slice(tuple(sources)),)


def _slices(value: Any, base: str | None) -> tuple[Slice, ...]:
    slices: list[Slice] = []
    for i, entry in enumerate(_entries(value, "slices")):
        where = f"slices[{i}]"
        found = _only(entry, where, "sources", "parameters", "base_model")
        own = found.get("base_model")
        if own is not None and model_path(own, where) != base:
            raise SpecError(f"{where}: a base_model of its own ({own!r}) is not expressible: a study has one base")
        slices.append(_slice(found, where, slices[-1] if slices else None))
    if any({s.model for s in part.sources} != {s.model for s in slices[0].sources} for part in slices):
        raise SpecError("the slices merge different models; in a study every layer is merged from all experts")
    return tuple(slices)


def _slice(found: Mapping[str, Any], where: str, before: Slice | None) -> Slice:
    sources, ranges = [], []
    for j, entry in enumerate(_entries(found.get("sources"), f"{where}.sources")):
        place = f"{where}.sources[{j}]"
        source = _only(entry, place, "model", "layer_range", "parameters")
        span = source.get("layer_range")
        if not (isinstance(span, list) and len(span) == 2 and all(isinstance(n, int) for n in span)):
            raise SpecError(f"{place}: layer_range is [first, last + 1], got {span!r}")
        ranges.append(tuple(span))
        sources.append(
            SourceModel(model_path(source.get("model"), place), _parameters(source.get("parameters"), place))
        )
    start, stop = ranges[0]
    if len(set(ranges)) > 1:
        raise SpecError(f"{where} puts layers {', '.join(f'{a}-{b - 1}' for a, b in ranges)} of its models together; a "
                        "study merges each layer with the same layer of the others")  # fmt: skip
    due = before.stop if before is not None else 0
    if start != due or stop <= start:
        raise SpecError(f"{where} takes layers {start} to {stop - 1} where layer {due} is due: layers that are "
                        "repeated, left out or moved are not expressible")  # fmt: skip
    return Slice(tuple(sources), _parameters(found.get("parameters"), where), start, stop)
