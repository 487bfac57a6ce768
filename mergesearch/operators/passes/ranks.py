"""Exact order statistics of values that are made chunk by chunk: two passes, no sort, nothing of model size.

A float32 read as an integer orders like the number, once negative ones are turned round. So its upper 16 bits are
counted first, then the lower 16 bits of the values in the one bin that holds a rank. (`largest.py` does the same,
faster, for the magnitude of a change.)
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray

_BINS = 1 << 16

Rows: TypeAlias = Callable[[], Iterable[Sequence[torch.Tensor]]]
"""Makes all values anew: chunks, and in each one flat float32 tensor for every row. No NaN."""


@final
class Ranked:
    """R rows of values to take order statistics of; the first pass is made at once and remembered (512 kB a row)."""

    def __init__(self, rows: Rows, count: int) -> None:
        self._rows = rows
        self._upper = self._counted(lambda keys, _: keys >> 16, [(r, -1) for r in range(count)])

    def values(self, ranks: Sequence[Sequence[int]]) -> list[list[float]]:
        """For each row, its values at these ranks; rank 0 is the smallest."""
        places = [[_place(self._upper[r, -1], rank) for rank in wanted] for r, wanted in enumerate(ranks)]
        bins = sorted({(r, found) for r, row in enumerate(places) for found, _ in row})
        lower = self._counted(lambda keys, upper: keys[keys >> 16 == upper] & (_BINS - 1), bins)
        return [
            [_value((found << 16) | _place(lower[r, found], rest)[0]) for found, rest in row]
            for r, row in enumerate(places)
        ]

    def _counted(
        self, halves: Callable[[torch.Tensor, int], torch.Tensor], bins: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], NDArray[np.int64]]:
        """For each (row, bin) how often each of `halves(keys, bin)` occurs."""
        totals: dict[tuple[int, int], torch.Tensor] = {}
        for chunk in self._rows():
            keys = [_keys(values) for values in chunk]
            for place in bins:
                found = torch.bincount(halves(keys[place[0]], place[1]), minlength=_BINS)
                totals[place] = totals[place].add_(found) if place in totals else found
        return {place: total.cpu().numpy() for place, total in totals.items()}


def _keys(values: torch.Tensor) -> torch.Tensor:
    """int64 in [0, 2^32) that order like the float32 values; 0 and -0 have one key."""
    bits = values.view(torch.int32).to(torch.int64)
    return torch.where(bits >= 0, bits, -(bits & 0x7FFFFFFF)).add_(1 << 31)


def _value(key: int) -> float:
    """The float32 of a key."""
    signed = key - (1 << 31)
    magnitude = float(np.array(abs(signed), dtype=np.uint32).view(np.float32))
    return magnitude if signed >= 0 else -magnitude


def _place(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """The bin that holds the value of a rank, and its rank among those of the bin."""
    up_to = np.cumsum(counts)
    found = int(np.searchsorted(up_to, rank, side="right"))
    return found, rank - int(up_to[found] - counts[found])
