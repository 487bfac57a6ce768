"""The passes of `entrywise.py` as compiled loops, with the same bits; see `compiled_sums.py`."""

import numpy as np
from numba import carray

from mergesearch.operators.passes.compiled_sums import BLOCK, _at, _load, _narrow, _store_sum, _widen
from mergesearch.operators.passes.compiling import compiled


@compiled
def _keep_larger(x, base, weight, best):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        delta = weight * (_widen(x[j]) - base[j])
        best[j] = delta if abs(delta) >= abs(best[j]) else best[j]


@compiled
def _store_scaled(base, row, scale, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] = _narrow(base[j] + scale * row[j], out)


@compiled
def _store_limited(x, base, limit, scale, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        centre = _widen(base[j])
        delta = _widen(x[j]) - centre
        delta = -limit if delta < -limit else delta
        delta = limit if delta > limit else delta
        out[j] = _narrow(centre + scale * delta, out)


@compiled
def _add_few(where, value, first, begin, end, weight, row):  # type: ignore[no-untyped-def]
    """Add the entries in `begin` to `end` to `row`, from place `first` of `where`; returns the next place."""
    while first < where.size and where[first] < end:
        row[where[first] - begin] += weight * value[first]
        first += 1
    return first


@compiled
def _mark_above(x, base, threshold, one, plane):  # type: ignore[no-untyped-def]
    rest = np.uint8(255) ^ one
    for j in range(x.size):
        above = abs(_widen(x[j]) - _widen(base[j])) > threshold
        plane[j] = (plane[j] & rest) | (one if above else np.uint8(0))


@compiled
def mark_above(base, expert, plane, threshold, bit, begin, end, sample, byte):  # type: ignore[no-untyped-def]
    """Write `bit` of `plane` in entries `begin` to `end`: |expert - base| above `threshold`.

    The first three are addresses, of elements as in `sample` and of bytes (`byte`: an array of these).
    """
    if begin < end:
        plain = carray(_at(base, sample), end)[begin:end]
        x = carray(_at(expert, sample), end)[begin:end]
        _mark_above(x, plain, threshold, np.uint8(1 << bit), carray(_at(plane, byte), end)[begin:end])


@compiled
def largest_change(address, weight, scale, offset, begin, end, sample):  # type: ignore[no-untyped-def]
    """out = base + scale · δ, in each entry the δ = w (x - base) of largest magnitude; of equal ones the last.

    `address` (K + 2, T): base, experts, output. `weight` (T, K), `scale` (T,).
    """
    experts, tensors = address.shape[0] - 2, address.shape[1]
    base, best = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for t in range(tensors):
        start, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        for i in range(start, stop, BLOCK):
            n = min(BLOCK, stop - i)
            _load(carray(_at(address[0, t], sample), stop)[i : i + n], base)
            best[:] = 0
            for k in range(experts):
                if weight[t, k] != 0:
                    x = carray(_at(address[k + 1, t], sample), stop)[i : i + n]
                    _keep_larger(x, base, weight[t, k], best)
            _store_scaled(base, best, scale[t], carray(_at(address[experts + 1, t], sample), stop)[i : i + n])


@compiled
def limited_change(address, limit, scale, offset, begin, end, sample):  # type: ignore[no-untyped-def]
    """out = base + scale · (x - base), no further from the base than `limit`.

    `address` (3, T): base, expert, output. `limit` and `scale` (T,).
    """
    for t in range(address.shape[1]):
        start, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        if start < stop:
            base = carray(_at(address[0, t], sample), stop)[start:stop]
            x = carray(_at(address[1, t], sample), stop)[start:stop]
            _store_limited(x, base, limit[t], scale[t], carray(_at(address[2, t], sample), stop)[start:stop])


@compiled
def few_sum(address, few, weight, offset, begin, end, sample, int32, float32):  # type: ignore[no-untyped-def]
    """out = base + Σ w · change, of changes that are nonzero in few entries; a weight of 0 is not read.

    `address` (2, T): base, output. `few` (T, C, 3): addresses of a change's places (ascending) and values, and how many
    they are. `weight` (T, C). `int32`, `float32`: arrays of these.
    """
    base, row = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    count = few.shape[1]
    following = np.zeros(count, np.int64)
    for t in range(address.shape[1]):
        start, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        for c in range(count):
            if start < stop and few[t, c, 2] > 0:
                following[c] = np.searchsorted(carray(_at(few[t, c, 0], int32), few[t, c, 2]), start)
        for i in range(start, stop, BLOCK):
            n = min(BLOCK, stop - i)
            _load(carray(_at(address[0, t], sample), stop)[i : i + n], base)
            row[:] = 0
            for c in range(count):
                if weight[t, c] != 0 and few[t, c, 2] > 0:
                    where = carray(_at(few[t, c, 0], int32), few[t, c, 2])
                    value = carray(_at(few[t, c, 1], float32), few[t, c, 2])
                    following[c] = _add_few(where, value, following[c], i, i + n, weight[t, c], row)
            _store_sum(base, row, carray(_at(address[1, t], sample), stop)[i : i + n])
