"""How much memory a worker needs, planned from headers before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch

from mergesearch.checkpoints.adapter import AdapterFolder, Expert
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.operators.base import AnyOperator, Layout


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that one worker needs to hold base, experts and live model, and bytes that are free now."""

    needed: int
    available: int

    @property
    def fits(self) -> bool:
        """Whether all of it stays in memory. If not, a CPU worker streams from the mapped files, more slowly."""
        return self.needed <= self.available


def memory_needed(
    base: Checkpoint,
    experts: Sequence[Expert],
    layout: Layout,
    operator: AnyOperator | None = None,
    device: torch.device | str = "cpu",
    *,
    gradients: bool = False,
) -> MemoryPlan:
    """Plan from headers alone: live model, merged tensors of base and experts, and what `operator` remembers.

    An adapter counts as its factors in float32, and twice that again for what an operator makes of them. With
    `gradients`, one more copy of the merged tensors; what a forward pass keeps for the backward one depends on the
    batch and is not counted.
    """
    merged = [base.headers[name] for name in layout.group_of]
    adapters = [expert for expert in experts if isinstance(expert, AdapterFolder)]
    models = 1 + len(experts) - len(adapters)
    needed = base.nbytes + models * sum(info.numel * info.dtype.itemsize for info in merged)
    needed += sum(3 * 4 * adapter.numel for adapter in adapters)
    if gradients:
        needed += sum(info.numel * info.dtype.itemsize for info in merged)
    if operator is not None and not adapters:
        needed += operator.extra_bytes({name: base.headers[name].shape for name in layout.group_of}, len(experts))
    device = torch.device(device)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return MemoryPlan(needed, int(free))
