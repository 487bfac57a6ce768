"""The compiled loop of `algebra/squares.py`, over large CPU tensors; see `compiled_sums.py` for how it is written."""

import numpy as np
from numba import carray

from mergesearch.operators.passes.compiled_sums import BLOCK, _at, _load, _widen
from mergesearch.operators.passes.compiled_votes import _mark_inside, inside, next_edge, spread
from mergesearch.operators.passes.compiling import compiled


@compiled
def _square(x, base, marked, row):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for j in range(x.size):
        delta = _widen(x[j]) - base[j]
        row[j] = delta * delta if marked[j] != 0 else zero


@compiled
def _fold(row, half):  # type: ignore[no-untyped-def]
    for j in range(half):
        row[j] += row[j + half]


@compiled
def squares(address, window, selects, first_block, offset, begin, end, sample, sums):  # type: ignore[no-untyped-def]
    """`sums[first_block[t] + block, k]`: expert k's squared change over the block's entries in the window (T, 4, 1).

    Elements `begin` to `end` of all tensors laid end to end: the blocks that begin there. `selects`: else, all entries.
    """
    experts, tensors = address.shape[0] - 2, address.shape[1]
    base, mean, row = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    marked = np.full(BLOCK, 255, np.uint8)
    for t in range(tensors):
        size = offset[t + 1] - offset[t]
        start = -(-max(begin - offset[t], 0) // BLOCK) * BLOCK
        for i in range(start, min(end - offset[t], size), BLOCK):
            stop = min(i + BLOCK, size)
            if selects[t]:
                spread(address, t, i, stop, sample, base, mean, row)
                a = i
                while a < stop:
                    b = next_edge(window[t], a, stop)
                    first, span = inside(window[t], 0, a)
                    _mark_inside(row[a - i : b - i], first, span, marked[a - i : b - i])
                    a = b
            else:
                marked[:] = 255
                _load(carray(_at(address[0, t], sample), stop)[i:stop], base)
            for k in range(experts):
                _square(carray(_at(address[k + 1, t], sample), stop)[i:stop], base, marked, row)
                row[stop - i :] = 0
                half = BLOCK // 2
                while half > 0:
                    _fold(row, half)
                    half //= 2
                sums[first_block[t] + i // BLOCK, k] = row[0]
