"""Whether base and experts can be merged, judged from headers, configurations and vocabularies alone."""

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mergesearch.checkpoints.adapted import Renamed, no_renames, targets
from mergesearch.checkpoints.adapter import AdapterFolder, Expert
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError

_SHOWN = 3


def is_head(name: str, heads: Sequence[str]) -> bool:
    """Whether a tensor's name matches one of the patterns, such as 'classifier.*'."""
    return any(fnmatchcase(name, pattern) for pattern in heads)


def compare(
    base: Checkpoint, experts: Mapping[str, Expert], heads: Sequence[str] = (), renamed: Renamed = no_renames
) -> list[str]:
    """One sentence for every difference of every expert; empty if all can be merged."""
    return [line for name, expert in experts.items() for line in differences(base, name, expert, heads, renamed)]


def check_compatible(base: Checkpoint, experts: Mapping[str, Expert], heads: Sequence[str] = ()) -> None:
    """Refuse experts that do not fit the base.

    Raises:
        CheckpointError: the sentences of `compare`, one a line.
    """
    if sentences := compare(base, experts, heads):
        raise CheckpointError("\n".join(sentences))


def differences(
    base: Checkpoint, name: str, expert: Expert, heads: Sequence[str] = (), renamed: Renamed = no_renames
) -> list[str]:
    """What keeps expert `name` from being merged with `base`; empty if nothing does.

    An adapter's modules must be matrices of the base (`renamed`: see there).
    Heads are not merged, so they may differ or be missing. Another architecture, depth or vocabulary is said alone:
    the tensors that differ because of it would only hide it.
    """
    who = f"expert {name!r}"
    if isinstance(expert, AdapterFolder):
        return _adapted(base, who, expert, heads, renamed)
    found = _architecture(base, who, expert, heads) or _vocabulary(base, who, expert)
    return found or _tensors(base, who, expert, heads)


def _adapted(base: Checkpoint, who: str, adapter: AdapterFolder, heads: Sequence[str], renamed: Renamed) -> list[str]:
    try:
        changed = targets(adapter, base, who, renamed)
    except CheckpointError as error:
        return str(error).split("\n")
    return [f"{who} is an adapter that changes the head tensor {n!r}" for n in changed if is_head(n, heads)][:_SHOWN]


def _architecture(base: Checkpoint, who: str, expert: Checkpoint, heads: Sequence[str]) -> list[str]:
    ours, theirs = base.config.get("model_type"), expert.config.get("model_type")
    if ours != theirs:
        return [f"{who} is a {theirs!r} model, the base a {ours!r}: only models of one architecture can be merged"]
    depths = (_depths(base.config), _depths(expert.config))
    found = [
        f"{who} has {depths[1].get(key)} layers ({key}), the base {depths[0].get(key)}: use an expert trained from it"
        for key in sorted(depths[0].keys() | depths[1].keys())
        if depths[0].get(key) != depths[1].get(key)
    ]
    kinds = (base.config.get("architectures"), expert.config.get("architectures"))
    if not found and not heads and kinds[0] and kinds[1] and kinds[0] != kinds[1]:
        return [f"{who} is a {kinds[1][0]}, the base a {kinds[0][0]}: name the tensors of the head under 'heads'"]
    return found


def _nested(config: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """All plain values of a configuration, those of a part (text_config, vision_config) as 'part.key'."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, dict) and key.endswith("_config"):
            flat.update(_nested(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _depths(config: Mapping[str, Any]) -> dict[str, object]:
    words = {"num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers", "encoder_layers", "depths"}
    return {k: v for k, v in _nested(config).items() if k.rsplit(".", 1)[-1] in words}


def _vocabulary(base: Checkpoint, who: str, expert: Checkpoint) -> list[str]:
    ours, theirs = _nested(base.config), _nested(expert.config)
    for key in sorted(k for k in ours.keys() & theirs.keys() if k.rsplit(".", 1)[-1] == "vocab_size"):
        if ours[key] != theirs[key]:
            return [
                f"vocabularies differ: {who} has {theirs[key]} tokens ({key}), the base {ours[key]}; rows of the "
                f"embedding would not mean the same token"
            ]
    for file in ("tokenizer.json", "vocab.txt", "vocab.json"):
        a, b = base.folder / file, expert.folder / file
        if a.exists() and b.exists() and _tokens(a) != _tokens(b):
            return [f"vocabularies differ: {b} and {a} number their tokens differently, though they have as many"]
    return []


def _tokens(path: Path) -> object:
    """What decides a token's number; settings such as truncation do not."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return text.splitlines()
    try:
        body = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from None
    if path.name != "tokenizer.json" or not isinstance(body, dict):
        return body
    model = body.get("model")
    added = [(t.get("id"), t.get("content")) for t in body.get("added_tokens") or []]
    return (model.get("vocab") if isinstance(model, dict) else None, added)


def _tensors(base: Checkpoint, who: str, expert: Checkpoint, heads: Sequence[str]) -> list[str]:
    ours = {n: t for n, t in base.headers.items() if not is_head(n, heads)}
    theirs = {n: t for n, t in expert.headers.items() if not is_head(n, heads)}
    found = []
    for names, text in (
        (sorted(ours.keys() - theirs.keys()), f"{who} lacks {{}} of the base"),
        (sorted(theirs.keys() - ours.keys()), f"{who} has {{}} that the base lacks (a head? name it under 'heads')"),
    ):
        if names:
            found.append(text.format(_listed(names)) + _tie_hint(base, expert))
    shared = sorted(ours.keys() & theirs.keys())
    for attribute, what in (("shape", "shape"), ("dtype", "dtype")):
        odd = [n for n in shared if getattr(ours[n], attribute) != getattr(theirs[n], attribute)]
        for name in odd[:_SHOWN]:
            a, b = getattr(ours[name], attribute), getattr(theirs[name], attribute)
            found.append(f"{who}: tensor {name!r} has {what} {b}, in the base {a}")
        if len(odd) > _SHOWN:
            found.append(f"{who}: {len(odd) - _SHOWN} more tensors differ in {what}")
    return found


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"tensor {shown}" if len(names) == 1 else f"tensors {shown}{more}"


def _tie_hint(base: Checkpoint, expert: Checkpoint) -> str:
    if base.tied != expert.tied:
        return "; one of the two ties its embeddings (tie_word_embeddings), the other does not"
    return ""
