"""Masks of where experts change enough, and how many entries each expert has alone or with others."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.passes.chunked import chunks, magnitude_bits, wide
from mergesearch.operators.passes.largest import set_bit
from mergesearch.operators.passes.stream import Stream, offsets, row_weights

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


def count_marks(stream: Stream, mask: torch.Tensor, experts: int) -> NDArray[np.int64]:
    """(2, experts): how many entries each expert has marked alone, and with others, in `mask` as above."""
    bits = torch.arange(256, device=mask.device)[:, None] >> torch.arange(8, device=mask.device) & 1  # (256, 8)
    found = torch.zeros((2, mask.shape[0], 256), dtype=torch.int64, device=mask.device)
    if stream.compiled:
        from mergesearch.operators.passes import compiled_marks

        address, parts = np.array([plane.data_ptr() for plane in mask], dtype=np.int64), []

        def count(begin: int, end: int) -> None:
            part = np.zeros(tuple(found.shape), dtype=np.int64)
            compiled_marks.count_marks(address, begin, end, _BYTE, part)
            parts.append(part)

        stream.split(np.array([0, mask.shape[1]]), count)
        found += torch.from_numpy(sum(parts, np.zeros(tuple(found.shape), dtype=np.int64)))
    else:
        marks = bits.sum(dim=1)
        for part in chunks(mask.shape[1], mask.device):
            number = sum(marks[plane[part].to(torch.int64)] for plane in mask)
            for p, plane in enumerate(mask):
                for row, where in enumerate((number == 1, number > 1)):
                    found[row, p] += torch.bincount(plane[part][where], minlength=256)
    table = found.cpu() @ bits.cpu()  # (2, planes, 256) @ (256, 8); a GPU multiplies no integers
    return np.asarray(table.reshape(2, -1)[:, :experts].numpy(), dtype=np.int64)


def mark_agreed(
    stream: Stream,
    names: Sequence[str],
    thresholds: NDArray[np.float64],
    agreements: NDArray[np.float64],
    masks: Mapping[str, torch.Tensor],
) -> None:
    """Write 255 into `masks[name]`, uint8 (N,), where enough experts change more than the others do, 0 elsewhere.

    `thresholds` (len(names), experts): see `uses`. `agreements` (len(names),): how many are enough.
    """
    thresholds32 = thresholds.astype(np.float32)
    bases = [stream.flat(0, name) for name in names]

    def torch_pass(i: int) -> None:
        row = row_weights(bases[i], thresholds, thresholds32, i)
        for part, deltas, total in changes(stream, names[i]):
            count = torch.zeros(total.shape, dtype=torch.int32, device=total.device)
            for delta, threshold in zip(deltas, row, strict=True):
                count += uses(delta, total, threshold)
            masks[names[i]][part] = (count >= float(agreements[i])).to(torch.uint8) * 255

    def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
        from mergesearch.operators.passes import compiled_marks

        address = stream.addresses([names[i] for i in rows], [masks[names[i]] for i in rows])
        offset, threshold = offsets([bases[i] for i in rows]), thresholds32[rows]
        least, mark = agreements[rows].astype(np.float32), compiled_marks.mark_agreed
        stream.split(offset, lambda a, b: mark(address, threshold, least, offset, a, b, sample, _BYTE))

    stream.run(bases, torch_pass, compiled_pass)


def changes(stream: Stream, name: str) -> Iterator[tuple[slice, list[torch.Tensor], torch.Tensor]]:
    """For each chunk of a tensor: its slice, the experts' changes and their sum, in the dtype to compute in."""
    base = stream.flat(0, name)
    dtype = wide(base.dtype)
    for part in chunks(base.numel(), base.device):
        centre = base[part].to(dtype)
        deltas = [stream.flat(k, name)[part].to(dtype) - centre for k in range(1, stream.models)]
        total = torch.zeros_like(centre)
        for delta in deltas:  # one after the other, as the compiled loop adds them
            total.add_(delta)
        yield part, deltas, total


def uses(delta: torch.Tensor, total: torch.Tensor, threshold: float) -> torch.Tensor:
    """Where an expert's change exceeds `threshold` times the sum of the others'."""
    return delta.abs() > (total - delta).abs_() * threshold
