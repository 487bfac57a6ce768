"""The layer groups of an imported study: as fine as the numbers of mergekit's file go, read from names alone."""

import re
from collections.abc import Sequence
from pathlib import Path

from mergesearch.checkpoints.groups import Shapes, layer_groups
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError, SpecError
from mergesearch.study.mergekit.config import MergeConfig
from mergesearch.study.mergekit.settings import Summary

_NUMBERED = re.compile(r"(?:^|\.)\d+(?:\.|$)")
_WHOLE_LAYER = re.compile(r"(?:^|\.)\d+\.?$")
_OUTSIDE = re.compile(r"emb|lm_head|wte|wpe|^model\.norm|ln_f")


def tensor_shapes(folder: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the float tensors of a model, empty where it is no folder here or cannot be read."""
    try:
        headers = Checkpoint.open(Path(folder)).headers if Path(folder).is_dir() else {}
    except CheckpointError:
        return {}
    return {name: tensor.shape for name, tensor in headers.items() if tensor.dtype.is_floating_point}


def layer_count(shapes: Shapes) -> int:
    """Number of layers of a model, 0 where its names tell of none."""
    blocks = layer_groups(shapes, "block").groups if shapes else ()
    return sum(re.fullmatch(r"(?:.*\.)?L\d+", block) is not None for block in blocks)


def layer_prefix(shapes: Shapes) -> str:
    """What stands before the layers' numbers, such as 'model.layers.'."""
    blocks = layer_groups(shapes, "block")
    first = next(name for name, row in blocks.group_of.items() if re.fullmatch(r"(?:.*\.)?L\d+", blocks.groups[row]))
    number = blocks.groups[blocks.group_of[first]].rsplit("L", 1)[-1]
    return re.split(rf"(?<=\.){number}\.", first, maxsplit=1)[0]


def check_depth(config: MergeConfig, shapes: Shapes) -> None:
    """Raises SpecError where slices leave layers of the base out."""
    layers, stop = layer_count(shapes), config.slices[-1].stop
    if stop is not None and layers and stop != layers:
        raise SpecError(f"the slices make {stop} layers of the base's {layers}; a study keeps them all")


def groups_of(config: MergeConfig, found: Sequence[Summary], shapes: Shapes) -> tuple[object, str]:
    """The study's layer groups: as fine as the config's numbers go; and a sentence about the choice."""
    filters = list(dict.fromkeys(name for summary in found for name in summary.filters))
    gradient = any(summary.gradient for summary in found)
    layered = gradient or any(summary.stepped for summary in found) or any(map(_NUMBERED.search, filters))
    if not layered and not filters:
        return "model", "One number for all layers, as in the config; 'block' would search every layer by itself."
    if not layered:
        names = [f for f in filters if not shapes or any(f in name for name in shapes)]
        if names:
            rest = {} if shapes and all(any(f in n for f in names) for n in shapes) else {".*": "rest"}
            return {**{re.escape(f): f for f in names}, **rest}, "Groups by the config's filters, the first that fits."
        return "model", "None of the config's filters names a tensor of the base."
    if any(_within_layer(name, shapes) for name in filters):
        return "module", "The config tells parts of a layer apart, so each part of each layer is a group."
    lengths = {part.length for part in config.slices}
    if len(lengths) == 1 and lengths != {1} and not gradient:
        chunks = len(config.slices)
        return {"chunks": chunks}, "A group for each slice; what stands outside the layers has groups of its own."
    return "block", "A group for each layer; what stands outside the layers has groups of its own."


def _within_layer(name: str, shapes: Shapes) -> bool:
    """True for a filter that takes a part of a layer, not all of it and not what stands outside."""
    if _NUMBERED.search(name):
        return not _WHOLE_LAYER.search(name)
    if shapes:
        return any(name in tensor and _NUMBERED.search(tensor) for tensor in shapes)
    return not _OUTSIDE.search(name)
