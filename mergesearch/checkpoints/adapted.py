"""Which of the base's tensors an adapter changes: module names of the trained model against names in files.

An adapter names modules as the model had them that it was trained on. The base may have been saved with another prefix
('model.layers.0' and 'layers.0'), or under names that transformers changes while it loads; both are found.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import TypeAlias

import torch

from mergesearch.checkpoints.adapter import Adapter, AdapterFolder, LowRank
from mergesearch.checkpoints.load import is_finite
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError

Renamed: TypeAlias = Callable[[], Mapping[str, str]]
"""Gives name in memory -> name in the base's files. Asked only when the files' own names do not do."""
_WEIGHT = ".weight"
_SHOWN = 3
_DROPPED = 3
"""How many leading parts of a module's name may be the adapter's alone."""


def no_renames() -> Mapping[str, str]:
    """Names in memory are those of the files."""
    return {}


def targets(adapter: AdapterFolder, base: Checkpoint, who: str, renamed: Renamed = no_renames) -> dict[str, str]:
    """The base's tensors that an adapter changes, sorted -> its module for each.

    Raises:
        CheckpointError: one line for each module that the base does not have in this shape; `who` names the adapter.
    """
    known = {name.removesuffix(_WEIGHT): name for name in base.names if name.endswith(_WEIGHT)}
    found = _find(adapter, known)
    if found is None:
        known |= {m.removesuffix(_WEIGHT): name for m, name in renamed().items() if m.endswith(_WEIGHT)}
        found = _find(adapter, known)
    if found is None:
        odd = [module for module in adapter.modules if module not in known] or list(adapter.modules)
        more = f" ({len(odd)} of {len(adapter.modules)} modules are unknown)" if len(odd) > 1 else ""
        near = get_close_matches(odd[0], known, n=1)
        hint = f"; its nearest is {near[0]!r}" if near else ""
        raise CheckpointError(
            f"{who} adapts module {odd[0]!r}, which the base {str(base.folder)!r} does not have as a matrix of its own"
            f"{more}{hint}"
        )
    if faults := [f"{who} {fault}" for name, module in found.items() for fault in _misfit(adapter, base, name, module)]:
        raise CheckpointError("\n".join(faults[:_SHOWN]))
    return dict(sorted(found.items()))


def load_adapted(
    adapter: AdapterFolder,
    base: Checkpoint,
    who: str,
    like: Mapping[str, torch.Tensor],
    renamed: Renamed = no_renames,
) -> Adapter:
    """An adapter in memory: its changes of the tensors in `like`, each on its device, in float32 (float64 for float64).

    Raises:
        CheckpointError: see `targets`; or a factor is unreadable, or holds NaN or infinity.
    """
    wanted = {name: module for name, module in targets(adapter, base, who, renamed).items() if name in like}
    first = next(iter(like.values()))
    dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
    loaded: dict[str, LowRank] = {}
    for device in {like[name].device for name in wanted}:
        loaded |= adapter.load({n: m for n, m in wanted.items() if like[n].device == device}, base, dtype, device)
    return {name: loaded[name] for name in wanted}


def adapted_names(base: Mapping[str, torch.Tensor], adapters: Mapping[str, Adapter]) -> list[str]:
    """Names of the tensors in memory that some adapter (by name) changes, sorted.

    Raises:
        CheckpointError: the base has no such float tensor of that shape, or it shares memory with another one; a value
            of it or of a factor is not finite.
    """
    places: dict[int, list[str]] = {}
    for name, tensor in base.items():
        places.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)
    found = set()
    for who, adapter in adapters.items():
        for name, change in adapter.items():
            tensor = base.get(name, torch.empty(()))
            if tuple(tensor.shape) != change.shape or not tensor.is_floating_point():
                has = f"it as {tuple(tensor.shape)} {tensor.dtype}" if name in base else "no such tensor"
                raise CheckpointError(f"expert {who!r} changes {name!r} as a matrix {change.shape}, the base has {has}")
            others = [n for n in places[tensor.untyped_storage().data_ptr()] if n != name]
            if others and tensor.numel():
                raise CheckpointError(
                    f"expert {who!r} changes {name!r}, one tensor with {others[0]!r} in the base: untie them first"
                )
            if not (is_finite(change.up) and is_finite(change.down) and math.isfinite(change.scale)):
                raise CheckpointError(f"expert {who!r}: a factor of {name!r} holds NaN or infinity")
            found.add(name)
    if odd := [name for name in sorted(found) if not is_finite(base[name])]:
        raise CheckpointError(f"the base: tensor {odd[0]!r} holds NaN or infinity")
    return sorted(found)


def _misfit(adapter: AdapterFolder, base: Checkpoint, name: str, module: str) -> Iterator[str]:
    """What is wrong with one module's form."""
    if not base.dtype(name).is_floating_point or base.dtype(name).itemsize < 2:
        yield f"adapts {name!r}, which the base stores as {base.dtype(name)}: give a base that is not quantised"
    elif adapter.transposed(module, base.shape(name)) is None:
        yield (
            f"changes in module {module!r} a matrix {adapter.modules[module].shape}, tensor {name!r} of the base is "
            f"{base.shape(name)}: is it an adapter of another model?"
        )


def _find(adapter: AdapterFolder, known: Mapping[str, str]) -> dict[str, str] | None:
    """Tensor -> module under the one change of prefix that fits every module; None where none or several do."""
    for dropped in range(_DROPPED + 1):
        stems = {".".join(m.split(".")[dropped:]): m for m in adapter.modules if m.count(".") >= dropped}
        if len(stems) < len(adapter.modules):
            return None
        first = next(iter(stems))
        prefixes = [""] if first in known else []
        if not prefixes:
            prefixes = [path.removesuffix(first) for path in known if path.endswith(f".{first}")]
        fits = [{known[p + s]: m for s, m in stems.items()} for p in prefixes if all(p + s in known for s in stems)]
        if fits:
            return fits[0] if all(fit == fits[0] for fit in fits) else None
    return None
