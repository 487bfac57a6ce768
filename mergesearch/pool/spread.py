"""One live model over several devices, layer by layer: for a candidate that one GPU cannot hold.

Layers stand in order, each device with about the same bytes; what a layer is given is brought to its device. Nothing
runs at the same time on two devices: it is memory that is won, not speed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch


def spread(model: torch.nn.Module, devices: Sequence[torch.device]) -> Mapping[str, torch.device]:
    """Move a model's parts to the devices, in place; returns part -> device. What the model answers is on the first.

    Parts are the blocks that transformers says not to split, and whatever holds no block. Tensors that are tied stay
    one tensor, where the first of them stands.
    """
    parts = dict(_parts(model, "", _blocks(model)))
    total = sum(map(_bytes, parts.values())) or 1
    placed: dict[str, torch.device] = {}
    where: dict[int, torch.device] = {}  # parameter -> its device: a tied one may be moved only once
    before = 0
    for name, part in parts.items():
        middle = before + _bytes(part) / 2
        before += _bytes(part)
        device = devices[min(len(devices) - 1, int(middle * len(devices) / total))]
        device = next((where[id(p)] for p in part.parameters() if id(p) in where), device)
        part.to(device)
        part.register_forward_pre_hook(_bringer(device), with_kwargs=True)
        where |= {id(p): device for p in part.parameters()}
        placed[name] = device
    for tensor in (*model.parameters(), *model.buffers()):  # what belongs to no part is used where all comes together
        if not any(tensor is t for part in parts.values() for t in (*part.parameters(), *part.buffers())):
            tensor.data = tensor.data.to(devices[-1])
    model.register_forward_hook(lambda _module, _given, answer: bring(answer, devices[0]))
    return placed


def bring(value: Any, device: torch.device) -> Any:
    """The value with all tensors in it on a device; lists, tuples and mappings are gone through."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        parts = [bring(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [bring(part, device) for part in value]
    if isinstance(value, dict):  # also what transformers' models answer: it keeps its kind
        for key in list(value):
            value[key] = bring(value[key], device)
    return value


def _bringer(device: torch.device) -> Any:
    def hook(_module: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
        return bring(given, device), bring(dict(named), device)

    return hook


def _blocks(model: torch.nn.Module) -> frozenset[str]:
    """Class names of the modules that stay whole: transformers' list, else whatever stands in lists of modules."""
    said = getattr(model, "_no_split_modules", None)
    if said:
        return frozenset(said)
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return frozenset(type(block).__name__ for blocks in lists for block in blocks)


def _parts(module: torch.nn.Module, name: str, blocks: frozenset[str]) -> Iterator[tuple[str, torch.nn.Module]]:
    """The parts below a module in their order: blocks, and modules without a block inside."""
    inside = any(type(child).__name__ in blocks for child in module.modules() if child is not module)
    if type(module).__name__ in blocks or (not inside and name):
        if next(module.parameters(), None) is not None or next(module.buffers(), None) is not None:
            yield name, module
        return
    for key, child in module.named_children():
        yield from _parts(child, f"{name}.{key}" if name else key, blocks)


def _bytes(module: torch.nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
