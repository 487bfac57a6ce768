"""The compiled loop of `algebra/squares.py`, over large CPU tensors; see `compiled_sums.py` for how it is written."""

import numpy as np

from mergesearch.operators.passes.compiled_sums import BLOCK, _widen
from mergesearch.operators.passes.compiled_windows import _inside, _read, inside, next_edge, spread
from mergesearch.operators.passes.compiling import compiled

EIGHTH = BLOCK // 8


@compiled
def _mark(row, first, span, marked):  # type: ignore[no-untyped-def]
    """1 where an entry is kept, 0 elsewhere."""
    one, zero = np.float32(1), np.float32(0)
    for j in range(row.size):
        marked[j] = one if _inside(row[j], first, span) else zero


@compiled
def _square(x, base, marked, row):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for j in range(x.size):
        delta = _widen(x[j]) - _widen(base[j])
        row[j] = delta * delta if marked[j] != zero else zero


@compiled
def _squared(x, base, marked, j):  # type: ignore[no-untyped-def]
    zero, kept = np.float32(0), marked[j]
    delta = _widen(x[j]) - _widen(base[j])
    return delta * delta if kept != zero else zero


@compiled
def _square_folded(x, base, marked, row):  # type: ignore[no-untyped-def]
    """As `_square` for a whole block, and already folded to an eighth."""
    for j in range(EIGHTH):
        a = _squared(x, base, marked, j) + _squared(x, base, marked, j + 4 * EIGHTH)
        b = _squared(x, base, marked, j + EIGHTH) + _squared(x, base, marked, j + 5 * EIGHTH)
        c = _squared(x, base, marked, j + 2 * EIGHTH) + _squared(x, base, marked, j + 6 * EIGHTH)
        d = _squared(x, base, marked, j + 3 * EIGHTH) + _squared(x, base, marked, j + 7 * EIGHTH)
        row[j] = (a + c) + (b + d)


@compiled
def _fold(row, half):  # type: ignore[no-untyped-def]
    """The sum of the first 2 · half entries, by halves."""
    while half > 0:
        for j in range(half):
            row[j] += row[j + half]
        half //= 2
    return row[0]


@compiled
def _fold_eighth(row):  # type: ignore[no-untyped-def]
    """As `_fold` of an eighth of a block; loops of known length are unrolled."""
    for j in range(32):
        row[j] += row[j + 32]
    for j in range(16):
        row[j] += row[j + 16]
    for j in range(8):
        row[j] += row[j + 8]
    for j in range(4):
        row[j] += row[j + 4]
    return (row[0] + row[2]) + (row[1] + row[3])


@compiled
def squares(address, window, selects, first_block, offset, begin, end, sample, sums):  # type: ignore[no-untyped-def]
    """`sums[first_block[t] + block, k]`: expert k's squared change over the block's entries in the window (T, 4, 1).

    Elements `begin` to `end` of all tensors laid end to end: the blocks that begin there. `selects`: else, all entries.
    """
    experts, tensors = address.shape[0] - 2, address.shape[1]
    mean, row = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    marked = np.ones(BLOCK, np.float32)
    for t in range(tensors):
        size = offset[t + 1] - offset[t]
        start = -(-max(begin - offset[t], 0) // BLOCK) * BLOCK
        if not selects[t]:
            marked[:] = 1
        for i in range(start, min(end - offset[t], size), BLOCK):
            stop = min(i + BLOCK, size)
            if selects[t]:
                spread(address, t, i, stop, sample, mean, row)
                a = i
                while a < stop:
                    b = next_edge(window[t], a, stop)
                    first, span = inside(window[t], 0, a)
                    _mark(row[a - i : b - i], first, span, marked[a - i : b - i])
                    a = b
            base = _read(address, 0, t, i, stop, sample)
            for k in range(experts):
                x = _read(address, k + 1, t, i, stop, sample)
                if stop - i == BLOCK:
                    _square_folded(x, base, marked, row)
                    found = _fold_eighth(row)
                else:
                    _square(x, base, marked, row)
                    row[stop - i :] = 0
                    found = _fold(row, BLOCK // 2)
                sums[first_block[t] + i // BLOCK, k] = found
