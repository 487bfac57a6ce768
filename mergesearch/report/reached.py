"""Which of many merges is the first that reaches each of many points: what estimates of hypervolume are made of."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

BLOCK: Final = 1024


def first_reached(rows: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each of `drawn` (s, M) the first of `rows` (n, M) that is nowhere worse, n where there is none.

    In blocks of rows: those that are good enough in one objective are the first few in its order, a set of bits that is
    looked up; those good enough in all are the sets' intersection.
    """
    first = np.full(len(drawn), len(rows), dtype=np.int64)
    left = np.arange(len(drawn))
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        reached = np.full((len(left), (len(block) + 7) // 8), 255, dtype=np.uint8)
        for column, values in zip(block.T, drawn[left].T, strict=True):
            ranks = np.empty(len(block), dtype=np.int64)
            order = np.argsort(column, kind="stable")
            ranks[order] = np.arange(len(block))
            sets = np.packbits(ranks[None, :] < np.arange(len(block) + 1)[:, None], axis=1)
            reached &= sets[np.searchsorted(column[order], values, "right")]
        hit = reached.any(axis=1)
        if hit.any():
            bits = np.unpackbits(reached[hit], axis=1, count=len(block))
            first[left[hit]] = start + bits.argmax(axis=1)
            left = left[~hit]
    return first
