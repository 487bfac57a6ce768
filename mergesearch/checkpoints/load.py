"""Loading weights with a check that they are numbers."""

from collections.abc import Sequence

import torch

from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError

_CHUNK = 1 << 22


def load_tensors(
    checkpoint: Checkpoint, names: Sequence[str], device: torch.device | str = "cpu"
) -> dict[str, torch.Tensor]:
    """Tensors by name. On the CPU they stay mapped from their files, so that what does not fit memory is streamed.

    Raises:
        CheckpointError: a tensor is missing or unreadable, or holds NaN or infinity.
    """
    loaded = {}
    for name in names:
        tensor = checkpoint.tensor(name)
        if not is_finite(tensor):
            file = checkpoint.headers[name].file
            raise CheckpointError(f"{file}: tensor {name!r} holds NaN or infinity; use a checkpoint that trained well")
        loaded[name] = tensor.to(device)
    return loaded


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether every entry is finite; integers and booleans always are. Uses no memory of the tensor's size."""
    if not tensor.is_floating_point():
        return True
    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), _CHUNK):
        part = flat[start : start + _CHUNK]
        # A sum is not finite if any entry is not; only then are entries looked at, as a sum may also overflow.
        total = part.sum(dtype=torch.float64)
        if not bool(torch.isfinite(total)) and not bool(torch.isfinite(part.float()).all()):
            return False
    return True
