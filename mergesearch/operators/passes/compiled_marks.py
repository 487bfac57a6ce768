"""The passes of `marks.py` as compiled loops, with the same bits; see `compiled_sums.py`."""

import numpy as np
from numba import carray

from mergesearch.operators.passes.compiled_masks import ones
from mergesearch.operators.passes.compiled_sums import BLOCK, _at, _load, _widen
from mergesearch.operators.passes.compiling import compiled


@compiled
def count_marks(masks, begin, end, byte, found):  # type: ignore[no-untyped-def]
    """Add to `found` (2, P, 256) how often each byte of each plane occurs in entries with one bit set, and with more.

    `masks` (P,): addresses of planes of bytes (`byte`: an array of these).
    """
    for j in range(begin, end):
        marks = 0
        for p in range(masks.size):
            marks += ones(carray(_at(masks[p], byte), end)[j])
        if marks > 0:
            for p in range(masks.size):
                found[0 if marks == 1 else 1, p, carray(_at(masks[p], byte), end)[j]] += 1


@compiled
def _add_change(x, base, total):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        total[j] += _widen(x[j]) - base[j]


@compiled
def _count_use(x, base, total, threshold, count):  # type: ignore[no-untyped-def]
    one, zero = np.float32(1), np.float32(0)
    for j in range(x.size):
        delta = _widen(x[j]) - base[j]
        count[j] += one if abs(delta) > abs(total[j] - delta) * threshold else zero


@compiled
def _mark_enough(count, least, mask):  # type: ignore[no-untyped-def]
    for j in range(mask.size):
        mask[j] = np.uint8(255) if count[j] >= least else np.uint8(0)


@compiled
def mark_agreed(address, threshold, agreement, offset, begin, end, sample, byte):  # type: ignore[no-untyped-def]
    """255 where at least `agreement` (T,) experts change more than `threshold` (T, K) times what the others do, else 0.

    `address` (K + 2, T): base, experts, and the masks, of bytes (`byte`: an array of these).
    """
    experts = address.shape[0] - 2
    base, total, count = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for t in range(address.shape[1]):
        start, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        for i in range(start, stop, BLOCK):
            last = min(i + BLOCK, stop)
            _load(carray(_at(address[0, t], sample), last)[i:last], base)
            total[:] = 0
            count[:] = 0
            for k in range(experts):
                _add_change(carray(_at(address[k + 1, t], sample), last)[i:last], base, total)
            for k in range(experts):
                x = carray(_at(address[k + 1, t], sample), last)[i:last]
                _count_use(x, base, total, threshold[t, k], count)
            _mark_enough(count, agreement[t], carray(_at(address[experts + 1, t], byte), last)[i:last])


@compiled
def _mark_from(x, base, factor, least, mask):  # type: ignore[no-untyped-def]
    for j in range(mask.size):
        product = abs(_widen(x[j]) - _widen(base[j])) * factor
        mask[j] = np.uint8(1) if product >= least else np.uint8(0)


@compiled
def mark_products(address, factors, length, least, offset, begin, end, sample, wide, byte):  # type: ignore[no-untyped-def]
    """1 where |x - base| times the factor of its row is at least `least` (T,), else 0.

    `address` (3, T): base, expert, and the masks, of bytes. `factors` (T,): addresses of a float32 for each row of
    `length` (T,) entries. `wide`, `byte`: arrays of float32 and of bytes.
    """
    for t in range(address.shape[1]):
        i, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        while i < stop:
            row = i // length[t]
            last = min((row + 1) * length[t], stop)
            base, x = carray(_at(address[0, t], sample), last)[i:last], carray(_at(address[1, t], sample), last)[i:last]
            factor, mask = carray(_at(factors[t], wide), row + 1)[row], carray(_at(address[2, t], byte), last)[i:last]
            _mark_from(x, base, factor, least[t], mask)
            i = last
