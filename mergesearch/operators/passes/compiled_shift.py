"""The pass of `shift_pass.py` as compiled loops, with the same bits; see `compiled_sums.py`."""

import numpy as np
from numba import carray

from mergesearch.operators.passes.compiled_sums import BLOCK, _at, _load, _store, _store_sum, _widen
from mergesearch.operators.passes.compiling import compiled


@compiled
def _shifted(x, base, shift, mask, bit, weight, row):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for j in range(x.size):
        change = weight * ((_widen(x[j]) - base[j]) + shift[j])
        row[j] = change if (mask[j] & bit) != 0 else zero


@compiled
def _add_shifted(x, base, shift, mask, bit, weight, row):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for j in range(x.size):
        change = weight * ((_widen(x[j]) - base[j]) + shift[j])
        row[j] += change if (mask[j] & bit) != 0 else zero


@compiled
def shifted_sum(address, masks, shift, weight, offset, begin, end, sample, byte, float32):  # type: ignore[no-untyped-def]
    """out = base + Σ w m (x - base + shift); a weight of 0 is not read.

    `address` (K + 2, T): base, experts, output. `masks` (P, T) and `shift` (T,): addresses of planes of bytes (bit
    k % 8 of plane k // 8 set where expert k's entry is kept) and of float32. `weight` (T, K). `byte`, `float32`: arrays
    of these.
    """
    experts, tensors = address.shape[0] - 2, address.shape[1]
    base, row = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for t in range(tensors):
        start, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        for i in range(start, stop, BLOCK):
            n = min(BLOCK, stop - i)
            _load(carray(_at(address[0, t], sample), stop)[i : i + n], base)
            moved = carray(_at(shift[t], float32), stop)[i : i + n]
            empty = True
            for k in range(experts):
                if weight[t, k] == 0:
                    continue
                x = carray(_at(address[k + 1, t], sample), stop)[i : i + n]
                mask, bit = carray(_at(masks[k // 8, t], byte), stop)[i : i + n], np.uint8(1 << (k % 8))
                if empty:
                    _shifted(x, base, moved, mask, bit, weight[t, k], row)
                else:
                    _add_shifted(x, base, moved, mask, bit, weight[t, k], row)
                empty = False
            out = carray(_at(address[experts + 1, t], sample), stop)[i : i + n]
            if empty:
                _store(base, out)
            else:
                _store_sum(base, row, out)
