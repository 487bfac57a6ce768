"""Which entries of a task vector are the largest: no copy of model size, no sort.

The bits of a non-negative float32, read as an integer, order like the number. So the k-th largest magnitude is found by
counting the upper 16 bits of all entries, then the lower 16 bits of those in the one bin that holds it. A large CPU
model is counted by compiled loops, all else by torch; the result is the same.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.passes.chunked import chunks, magnitude_bits

__all__ = ["BINS", "bin_of", "kth_largest", "magnitude_bits", "mark_largest", "set_bit"]
BINS = 1 << 16
"""Values of half a float32's bits."""


def kth_largest(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], k: int, compiled: bool) -> tuple[int, int]:
    """The bits of the k-th largest magnitude (k >= 1) over flat pairs (base, expert), and how many are above it.

    `compiled`: count with the compiled loops, where they can.
    """
    pairs = list(pairs)
    upper, above = bin_of(_counts(pairs, -1, compiled), k)
    lower, more = bin_of(_counts(pairs, upper, compiled), k - above)
    return (upper << 16) | lower, above + more


def mark_largest(
    base: torch.Tensor, expert: torch.Tensor, k: int, plane: torch.Tensor, bit: int, compiled: bool
) -> None:
    """Set `bit` of the flat uint8 `plane` at the k largest magnitudes, clear it elsewhere.

    Exactly k are kept. Of equal magnitudes, common in bfloat16, those that come first are. (mergekit
    leaves that to an unstable sort, whose choice depends on the CPU.)
    """
    threshold, above = kth_largest([(base, expert)], k, compiled)
    ties = k - above  # how many that equal the threshold are kept
    if compiled and _can_compile(base):
        from mergesearch.operators.passes import compiled_sums

        compiled_sums.mark(_array(base), _array(expert), threshold, ties, bit, plane.numpy())
        return
    for part in chunks(base.numel(), base.device):
        bits = magnitude_bits(base[part], expert[part])
        equal = bits == threshold
        set_bit(plane[part], equal & (equal.cumsum(0) <= ties) | (bits > threshold), bit)
        ties -= min(ties, int(equal.sum()))


def set_bit(plane: torch.Tensor, where: torch.Tensor, bit: int) -> None:
    """Write the booleans `where` into one bit of the uint8 `plane`."""
    plane.bitwise_and_(255 ^ (1 << bit)).bitwise_or_(where.to(torch.uint8) << bit)


def _counts(pairs: list[tuple[torch.Tensor, torch.Tensor]], upper: int, compiled: bool) -> torch.Tensor:
    """How often each upper half occurs, int64 (65536,); or each lower half of the entries with this `upper` half."""
    total = torch.zeros(BINS, dtype=torch.int64, device=pairs[0][0].device)
    for base, expert in pairs:
        if compiled and _can_compile(base):
            from mergesearch.operators.passes import compiled_sums

            compiled_sums.count(_array(base), _array(expert), upper, total.numpy())
            continue
        for part in chunks(base.numel(), base.device):
            bits = magnitude_bits(base[part], expert[part])
            half = bits >> 16 if upper < 0 else bits[bits >> 16 == upper] & (BINS - 1)
            total += torch.bincount(half, minlength=BINS)
    return total


def bin_of(counts: torch.Tensor, k: int) -> tuple[int, int]:
    """The bin that holds the k-th largest entry, and how many entries lie in higher bins."""
    table = counts.cpu().numpy()
    at_least = np.cumsum(table[::-1])[::-1]  # (bins,): entries in this bin or a higher one
    found = int((at_least >= k).sum()) - 1
    return found, int(at_least[found] - table[found])


def _can_compile(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype in (torch.bfloat16, torch.float32)


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    """A CPU tensor as the compiled loops take it: bfloat16 as its bits."""
    stored = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    array: NDArray[Any] = np.asarray(stored.numpy())
    return array
