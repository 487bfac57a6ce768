"""A Pareto front that grows: each newcomer meets a few good rows first, and only what they leave meets all of them."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_SIEVE: Final = 64
_BLOCK: Final = 256
_CHUNK: Final = 2048  # rows of the front that are compared at once: what comes of it stays in the processor's cache


class GrowingFront:
    """The non-dominated rows of losses (n, M), minimised, in the order they came; of equal rows the first counts.

    Each row has a number that the caller gave it. `version` counts the rows that were on the front when they came.
    """

    def __init__(self, objectives: int) -> None:
        self.version = 0
        self.numbers: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.rows: NDArray[np.float64] = np.zeros((0, objectives))

    def add(self, numbers: NDArray[np.int64], rows: NDArray[np.float64]) -> NDArray[np.int64]:
        """Take rows (n, M) in their order; which of them (k,) were on the front when they came."""
        size = len(self.rows)
        table = np.vstack([self.rows, rows]) if len(rows) > 1 else rows
        # Ranks say the same of dominance as the losses themselves, in a quarter of the memory.
        ranks = _ranks(table) if len(rows) > _BLOCK else table
        front = np.arange(size)
        keys = ranks[:size] if len(rows) > 1 else self.rows
        found = []
        for first in range(0, len(rows), _BLOCK):
            block = ranks[size:][first : first + _BLOCK] if len(rows) > 1 else rows
            entered = _entering(keys, block)
            if len(entered) == 0:
                continue
            left, last = _leaving(keys, block[entered])
            keys = np.concatenate([keys[left], block[entered[last]]])
            front = np.concatenate([front[left], size + first + entered[last]])
            found.append(first + entered)
        if not found:
            return np.zeros(0, dtype=np.int64)
        all_entered = np.concatenate(found)
        self.version += len(all_entered)
        self.numbers = np.concatenate([self.numbers, numbers])[front]
        self.rows = np.vstack([self.rows, rows])[front]
        return all_entered


def _entering(front: NDArray[Any], block: NDArray[Any]) -> NDArray[np.int64]:
    """Which rows no row of the front, and none before them in the block, dominates or equals."""
    left = np.arange(len(block))
    if len(front) > _CHUNK:
        left = left[~_covers(front[:: len(front) // _SIEVE], block).any(axis=0)]
    for first in range(0, len(front), _CHUNK):
        left = left[~_covers(front[first : first + _CHUNK], block[left]).any(axis=0)]
    among = _covers(block[left], block[left])  # (earlier, later)
    return left[~np.triu(among, k=1).any(axis=0)]


def _leaving(front: NDArray[Any], rows: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of the front stay once `rows` entered it, and which of `rows` do: later ones of them dominate some.

    A row that equals an older one does not enter, so that who is covered is dominated.
    """
    covered = [_covers(rows, front[i : i + _CHUNK]).any(axis=0) for i in range(0, len(front), _CHUNK)]
    gone = np.concatenate([np.zeros(0, dtype=np.bool_), *covered])
    again = np.tril(_covers(rows, rows), k=-1).any(axis=0)
    return np.logical_not(gone), np.logical_not(again)


def _covers(rows: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each of `rows` (n, M) is nowhere worse than each of `others` (m, M): (n, m)."""
    found = rows[:, :1] <= others[None, :, 0]
    for objective in range(1, rows.shape[1]):
        found &= rows[:, objective, None] <= others[None, :, objective]
    return found


def _ranks(table: NDArray[np.float64]) -> NDArray[Any]:
    """Dense ranks of each column."""
    columns = [np.unique(column, return_inverse=True)[1] for column in table.T]
    small = all(column.max(initial=0) < 2**16 for column in columns)
    return np.stack(columns, axis=1).astype(np.uint16 if small else np.uint32)
