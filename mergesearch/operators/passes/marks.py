"""Bit planes of where experts change more than a threshold, and how many entries each has alone or with others."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.passes.chunked import chunks, magnitude_bits
from mergesearch.operators.passes.largest import set_bit
from mergesearch.operators.passes.stream import Stream, offsets

_SAMPLE: dict[torch.dtype, NDArray[Any]] = {
    torch.bfloat16: np.zeros(0, np.uint16),
    torch.float32: np.zeros(0, np.float32),
}
_BYTE = np.zeros(0, np.uint8)


def mark_above(stream: Stream, name: str, k: int, threshold: float, mask: torch.Tensor) -> None:
    """Write bit k % 8 of plane k // 8 of `mask`, uint8 (planes, N): where |θ_k - θ0| in float32 is above `threshold`.

    Model 0 of the stream is the base, model 1 + k the expert.
    """
    base, expert, plane = stream.flat(0, name), stream.flat(k + 1, name), mask[k // 8]
    exact = np.float32(threshold)
    if stream.compiled and base.dtype in _SAMPLE:
        from mergesearch.operators.passes import compiled_entrywise

        sample, bit = _SAMPLE[base.dtype], np.int64(k % 8)
        address = [np.int64(x.data_ptr()) for x in (base, expert, plane)]
        mark = compiled_entrywise.mark_above
        stream.split(offsets([base]), lambda a, b: mark(*address, exact, bit, a, b, sample, _BYTE))
        return
    bits = int(exact.view(np.int32))
    for part in chunks(base.numel(), base.device):
        set_bit(plane[part], magnitude_bits(base[part], expert[part]) > bits, k % 8)


def count_marks(mask: torch.Tensor, experts: int) -> NDArray[np.int64]:
    """(2, experts): how many entries each expert has marked alone, and with others, in `mask` as above."""
    bits = torch.arange(256, device=mask.device)[:, None] >> torch.arange(8, device=mask.device) & 1  # (256, 8)
    marks = bits.sum(dim=1)
    found = torch.zeros((2, mask.shape[0], 256), dtype=torch.int64, device=mask.device)
    for part in chunks(mask.shape[1], mask.device):
        count = sum(marks[plane[part].to(torch.int64)] for plane in mask)
        for p, plane in enumerate(mask):
            for row, where in enumerate((count == 1, count > 1)):
                found[row, p] += torch.bincount(plane[part][where], minlength=256)
    table = found.cpu() @ bits.cpu()  # (2, planes, 256) @ (256, 8); a GPU multiplies no integers
    return np.asarray(table.reshape(2, -1)[:, :experts].numpy(), dtype=np.int64)
