"""The form of mergekit's file: whole models, or one-layer slices where numbers differ from layer to layer.

A slice holds one layer of every model, with a plain number for each where the layer is one group. mergekit takes the
numbers of the tensors before the layers from the first slice and of those behind them from the last (`plan_module` in
plan.py), so these two name the tensors that differ by a list of {filter, value}. A list over all layers, which mergekit
calls a gradient, is never written: it gives the first layer's number to the output head too.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from mergesearch.checkpoints.groups import layer_groups
from mergesearch.export.filters import Setting, as_setting
from mergesearch.export.mergekit_methods import Numbers, Translation
from mergesearch.operators.base import Layout
from mergesearch.study.mergekit.methods import Base

Body: TypeAlias = dict[str, Any]

_LAYER = re.compile(r"L(\d+)")


def body_of(said: Translation, layout: Layout, base: str, experts: Mapping[str, str]) -> Body | str:
    """mergekit's file as plain values, all but the dtypes, or why there is none. `base` and `experts` are folders."""
    names = list(layout.group_of)
    layers = _layers(names)
    varied = [n for n in _all_numbers(said) if len({_of_layer(n, layer) for layer in layers}) > 1]
    sliced = bool(varied) or said.base is Base.APART
    if sliced and not layers:
        return f"its {said.method.name!r} averages the base too, except layer by layer, and the names tell no layers"
    whole = {word: numbers for word, numbers in said.shared.items() if not (sliced and numbers in varied)}
    head: Body = {"merge_method": said.method.name}
    if sliced:
        outside = [name for name in names if not any(name in layer for layer in layers)]
        head["slices"] = [
            _slice(said, layout, base, experts, i, [*layer, *(outside if i in (0, len(layers) - 1) else ())], whole)
            for i, layer in enumerate(map(sorted, layers))
        ]
    else:
        head["models"] = [_source(entry, layout, names) for entry in _sources(said, base, experts)]
    shared = {**{word: _setting(n, layout, names) for word, n in whole.items()}, **said.flags}
    named = {} if said.base is Base.ABSENT else {"base_model": base}
    return {**head, **named, **({"parameters": shared} if shared else {})}


def _all_numbers(said: Translation) -> list[Numbers]:
    return [*said.shared.values(), *said.weighed.values(), *(n for experts in said.inputs.values() for n in experts)]


def _of_layer(numbers: Numbers, layer: Iterable[str]) -> tuple[float, ...]:
    """The numbers of a layer's tensors, in an order that is the same for all layers."""
    return tuple(numbers[name] for name in sorted(layer))


def _layers(names: Sequence[str]) -> list[list[str]]:
    """Tensor names of each layer in order; empty where the names tell of none, or of several stacks."""
    blocks = layer_groups(dict.fromkeys(names, ()), "block")
    found: dict[int, list[str]] = {}
    for name, row in blocks.group_of.items():
        if match := _LAYER.fullmatch(blocks.groups[row]):
            found.setdefault(int(match[1]), []).append(name)
    return [found[i] for i in range(len(found))] if set(found) == set(range(len(found))) else []


def _sources(said: Translation, base: str, experts: Mapping[str, str]) -> list[tuple[str, Mapping[str, Numbers]]]:
    """Folder and numbers of each source; the base stands among them where the method takes differences or weighs it."""
    entries: list[tuple[str, Mapping[str, Numbers]]] = [
        (folder, {word: numbers[k] for word, numbers in said.inputs.items()})
        for k, folder in enumerate(experts.values())
    ]
    return entries if said.base in (Base.APART, Base.ABSENT) else [(base, said.weighed), *entries]


def _source(entry: tuple[str, Mapping[str, Numbers]], layout: Layout, names: Sequence[str]) -> Body:
    folder, numbers = entry
    parameters = {word: _setting(n, layout, names) for word, n in numbers.items()}
    return {"model": folder, **({"parameters": parameters} if parameters else {})}


def _slice(
    said: Translation,
    layout: Layout,
    base: str,
    experts: Mapping[str, str],
    index: int,
    names: Sequence[str],
    whole: Mapping[str, Numbers],
) -> Body:
    """One output layer. `names` are the tensors that take their numbers from it; `whole` is said once, elsewhere."""
    sources = []
    for entry in _sources(said, base, experts):
        source = _source(entry, layout, names)
        sources.append({"model": source["model"], "layer_range": [index, index + 1], **source})
    shared = {word: _setting(n, layout, names) for word, n in said.shared.items() if word not in whole}
    return {"sources": sources, **({"parameters": shared} if shared else {})}


def _setting(numbers: Numbers, layout: Layout, names: Sequence[str]) -> Setting:
    """The numbers of `names`, a group of the layout at a time where its tensors agree."""
    parts: dict[tuple[int, float], list[str]] = {}
    for name in names:
        parts.setdefault((layout.group_of[name], numbers[name]), []).append(name)
    return as_setting(list(parts.values()), [value for _, value in parts])
