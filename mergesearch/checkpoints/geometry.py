"""Inner products of task vectors by layer group, read tensor by tensor: how large, and how alike, the experts are."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.checkpoints.adapted import Renamed, no_renames, targets
from mergesearch.checkpoints.adapter import AdapterFolder, Expert, LowRank
from mergesearch.checkpoints.load import load_tensors
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.types import Vector

_CHUNK = 1 << 20


def inner_products(
    base: Checkpoint,
    experts: Mapping[str, Expert],
    group_of: Mapping[str, int],
    groups: int,
    renamed: Renamed = no_renames,
) -> tuple[NDArray[np.float64], Vector, Vector]:
    """Products <τ_i, τ_j> (G, K, K) of the experts' changes of the base, <base, base> (G,), numbers merged (G,).

    `group_of`: merged tensor -> its group. The experts are all whole models, or all adapters. In float64, a piece of a
    tensor at a time.

    Raises:
        CheckpointError: a tensor is unreadable, or holds NaN or infinity.
    """
    gram = np.zeros((groups, len(experts), len(experts)))
    norm, sizes = np.zeros(groups), np.zeros(groups)
    adapters = {name: expert for name, expert in experts.items() if isinstance(expert, AdapterFolder)}
    modules = {name: targets(adapter, base, f"expert {name!r}", renamed) for name, adapter in adapters.items()}
    for tensor, group in group_of.items():
        own = _flat(base, tensor)
        sizes[group] += own.numel()
        for begin in range(0, own.numel(), _CHUNK):
            part = own[begin : begin + _CHUNK].double()
            norm[group] += float(part @ part)
        if adapters:
            low = [_change(adapter, modules[name], base, tensor) for name, adapter in adapters.items()]
            gram[group] += _products(low)
        else:
            models = [_flat(expert, tensor) for expert in experts.values() if isinstance(expert, Checkpoint)]
            for begin in range(0, own.numel(), _CHUNK):
                gram[group] += _gram(*(flat[begin : begin + _CHUNK] for flat in [own, *models]))
    return gram, norm, sizes


def _flat(checkpoint: Checkpoint, tensor: str) -> torch.Tensor:
    return load_tensors(checkpoint, [tensor])[tensor].reshape(-1)


def _gram(own: torch.Tensor, *models: torch.Tensor) -> NDArray[np.float64]:
    """Products (K, K) of the changes in one piece."""
    start = own.double()
    changes = torch.stack([model.double() - start for model in models])
    found: NDArray[np.float64] = (changes @ changes.T).numpy()
    return found


def _change(adapter: AdapterFolder, modules: Mapping[str, str], base: Checkpoint, tensor: str) -> LowRank | None:
    if tensor not in modules:
        return None
    return adapter.load({tensor: modules[tensor]}, base, torch.float64)[tensor]


def _products(changes: Sequence[LowRank | None]) -> NDArray[np.float64]:
    """Products (K, K) of s U D: <U D, V E> = <Vᵀ U, E Dᵀ>, so that no matrix of the model's size is made."""
    found = np.zeros((len(changes), len(changes)))
    for i, one in enumerate(changes):
        for j, other in enumerate(changes[: i + 1]):
            if one is not None and other is not None:
                inner = ((other.up.T @ one.up) * (other.down @ one.down.T)).sum()
                found[i, j] = found[j, i] = one.scale * other.scale * float(inner)
    return found
