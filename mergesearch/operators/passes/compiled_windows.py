"""What the compiled loops of TIES, SCE and breadcrumbs share: windows of magnitudes, and the variance of the changes.

Magnitudes are compared as the bits of a float32, which order like them. For a missing expert the base stands in: its
change is 0, which no sum feels.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from mergesearch.operators.passes.compiled_sums import _at, _widen
from mergesearch.operators.passes.compiling import compiled

OPEN = 0x7FFFFFFF
"""Above the bits of every magnitude."""


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def _inside(_context: Any, value: Any, first: Any, span: Any) -> Any:
    """Whether the bits of |value| (float32) are among the `span` (int32, read as unsigned) numbers from `first` on."""
    signature = types.boolean(value, first, span)

    def generate(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        word = ir.IntType(32)
        bits = builder.and_(builder.bitcast(args[0], word), ir.Constant(word, 0x7FFFFFFF))
        return builder.icmp_unsigned("<", builder.sub(bits, args[1]), args[2])

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def _turned(_context: Any, value: Any, up: Any) -> Any:
    """A float32, or its negative unless `up`. Written as a choice it becomes a branch, and that many more masks."""
    signature = types.float32(value, up)

    def generate(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        word = ir.IntType(32)
        sign = builder.select(args[1], ir.Constant(word, 0), ir.Constant(word, 0x80000000))
        return builder.bitcast(builder.xor(builder.bitcast(args[0], word), sign), ir.FloatType())

    return signature, generate


@compiled
def _read(address, m, t, first, stop, sample):  # type: ignore[no-untyped-def]
    """Entries `first` to `stop` of tensor t of model m."""
    return carray(_at(address[m, t], sample), stop)[first:stop]


@compiled
def next_edge(window, first, stop):  # type: ignore[no-untyped-def]
    """The end of the run of entries from `first` on, `stop` at most, for which `inside` is the same."""
    for column in range(window.shape[1]):
        for row in (1, 3):
            edge = window[row, column] + 1
            if first < edge < stop:
                stop = edge
    return stop


@compiled
def inside(window, column, first):  # type: ignore[no-untyped-def]
    """(first bits, how many) of the magnitudes that are kept at entry `first`; see `Window` in `chunked.py`."""
    low = window[0, column] - (1 if first <= window[1, column] else 0)
    high = window[2, column] - (1 if first <= window[3, column] else 0)
    return np.int32(low + 1 if low < OPEN else 0), np.int32(max(high - low, 0) if low < OPEN else 0)


@compiled
def _spread_four(x0, x1, x2, x3, base, experts, row):  # type: ignore[no-untyped-def]
    """The whole spread where there are at most four experts."""
    zero, number = np.float32(0), np.float32(experts)
    for j in range(x0.size):
        centre = _widen(base[j])
        d0, d1, d2, d3 = _widen(x0[j]) - centre, _widen(x1[j]) - centre, _widen(x2[j]) - centre, _widen(x3[j]) - centre
        mean = (zero + d0 + d1 + d2 + d3) / number
        e0, e1, e2, e3 = d0 - mean, d1 - mean, d2 - mean, d3 - mean
        spread = zero + e0 * e0
        spread = spread + e1 * e1 if experts > 1 else spread
        spread = spread + e2 * e2 if experts > 2 else spread
        spread = spread + e3 * e3 if experts > 3 else spread
        row[j] = spread


@compiled
def _spread_eight(x0, x1, x2, x3, x4, x5, x6, x7, base, experts, row):  # type: ignore[no-untyped-def]
    """The whole spread where there are at most eight experts."""
    zero, number = np.float32(0), np.float32(experts)
    for j in range(x0.size):
        centre = _widen(base[j])
        d0, d1, d2, d3 = _widen(x0[j]) - centre, _widen(x1[j]) - centre, _widen(x2[j]) - centre, _widen(x3[j]) - centre
        d4, d5, d6, d7 = _widen(x4[j]) - centre, _widen(x5[j]) - centre, _widen(x6[j]) - centre, _widen(x7[j]) - centre
        mean = (zero + d0 + d1 + d2 + d3 + d4 + d5 + d6 + d7) / number
        e0, e1, e2, e3, e4, e5, e6, e7 = (
            d0 - mean,
            d1 - mean,
            d2 - mean,
            d3 - mean,
            d4 - mean,
            d5 - mean,
            d6 - mean,
            d7 - mean,
        )
        spread = zero + e0 * e0 + e1 * e1 + e2 * e2 + e3 * e3 + e4 * e4
        spread = spread + e5 * e5 if experts > 5 else spread
        spread = spread + e6 * e6 if experts > 6 else spread
        spread = spread + e7 * e7 if experts > 7 else spread
        row[j] = spread


@compiled
def _add_change(x, base, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] += _widen(x[j]) - _widen(base[j])


@compiled
def _add_squared_distance(x, base, mean, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        distance = (_widen(x[j]) - _widen(base[j])) - mean[j]
        row[j] += distance * distance


@compiled
def _divide(row, divisor):  # type: ignore[no-untyped-def]
    for j in range(row.size):
        row[j] /= divisor


@compiled
def spread(address, t, first, stop, sample, mean, row):  # type: ignore[no-untyped-def]
    """Leave in `row` K times the variance of the changes of entries `first` to `stop`.

    `address` (K + 2, T): base, experts, and one more. `mean` and `row`: float32, of so many entries or more.
    """
    n, experts = stop - first, address.shape[0] - 2
    base = _read(address, 0, t, first, stop, sample)
    if experts <= 8:
        x0 = _read(address, 1, t, first, stop, sample)
        x1 = _read(address, 2 if experts > 1 else 0, t, first, stop, sample)
        x2 = _read(address, 3 if experts > 2 else 0, t, first, stop, sample)
        x3 = _read(address, 4 if experts > 3 else 0, t, first, stop, sample)
        if experts <= 4:
            _spread_four(x0, x1, x2, x3, base, experts, row)
            return
        x4 = _read(address, 5, t, first, stop, sample)
        x5 = _read(address, 6 if experts > 5 else 0, t, first, stop, sample)
        x6 = _read(address, 7 if experts > 6 else 0, t, first, stop, sample)
        x7 = _read(address, 8 if experts > 7 else 0, t, first, stop, sample)
        _spread_eight(x0, x1, x2, x3, x4, x5, x6, x7, base, experts, row)
        return
    mean[:n] = 0
    row[:n] = 0
    for k in range(experts):
        _add_change(_read(address, k + 1, t, first, stop, sample), base, mean)
    _divide(mean[:n], np.float32(experts))
    for k in range(experts):
        _add_squared_distance(_read(address, k + 1, t, first, stop, sample), base, mean, row)
