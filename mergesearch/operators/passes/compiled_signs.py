"""The pass of `sign_pass.py` as compiled loops, with the same bits; see `compiled_sums.py` for how they are written.

Where torch looks a sum up in a table, these loops add up four experts at a time: the choice between two or three levels
per expert is vectorised, a look-up is not.
"""

import numpy as np
from numba import carray

from mergesearch.operators.passes.compiled_sums import BLOCK, _at, _narrow, _widen
from mergesearch.operators.passes.compiling import compiled


@compiled
def _two_levels(code, bit, low, high, row):  # type: ignore[no-untyped-def]
    b0, b1, b2, b3 = bit
    l0, l1, l2, l3 = low
    h0, h1, h2, h3 = high
    for j in range(code.size):
        c = code[j]
        pair = (h0 if (c & b0) != 0 else l0) + (h1 if (c & b1) != 0 else l1)
        row[j] = (pair + (h2 if (c & b2) != 0 else l2)) + (h3 if (c & b3) != 0 else l3)


@compiled
def _add_two_levels(code, bit, low, high, row):  # type: ignore[no-untyped-def]
    b0, b1, b2, b3 = bit
    l0, l1, l2, l3 = low
    h0, h1, h2, h3 = high
    for j in range(code.size):
        c = code[j]
        pair = (row[j] + (h0 if (c & b0) != 0 else l0)) + (h1 if (c & b1) != 0 else l1)
        row[j] = (pair + (h2 if (c & b2) != 0 else l2)) + (h3 if (c & b3) != 0 else l3)


@compiled
def _three_levels(code, bit, sign, low, high, row):  # type: ignore[no-untyped-def]
    b0, b1, b2, b3 = bit
    s0, s1, s2, s3 = sign
    l0, l1, l2, l3 = low
    h0, h1, h2, h3 = high
    none = np.float32(-0.0)
    for j in range(code.size):
        c = code[j]
        pair = ((l0 if (c & s0) != 0 else h0) if (c & b0) != 0 else none) + (
            (l1 if (c & s1) != 0 else h1) if (c & b1) != 0 else none
        )
        three = pair + ((l2 if (c & s2) != 0 else h2) if (c & b2) != 0 else none)
        row[j] = three + ((l3 if (c & s3) != 0 else h3) if (c & b3) != 0 else none)


@compiled
def _add_row(other, row):  # type: ignore[no-untyped-def]
    for j in range(other.size):
        row[j] += other[j]


@compiled
def _store_change(base, row, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] = _narrow(row[j] + _widen(base[j]), out)


@compiled
def _four(values, first):  # type: ignore[no-untyped-def]
    return values[first], values[first + 1], values[first + 2], values[first + 3]


@compiled
def _sum_four(code, k, bits, low, high, row):  # type: ignore[no-untyped-def]
    """Put the sum of experts k to k + 3, whose codes lie in one byte, in `row`, or add them if they are its second."""
    lows, highs = _four(low, k), _four(high, k)
    at = bits * (k % (8 // bits))
    bit = (
        np.uint8(1 << at),
        np.uint8(1 << (at + bits)),
        np.uint8(1 << (at + 2 * bits)),
        np.uint8(1 << (at + 3 * bits)),
    )
    if bits == 2:
        sign = (np.uint8(bit[0] << 1), np.uint8(bit[1] << 1), np.uint8(bit[2] << 1), np.uint8(bit[3] << 1))
        _three_levels(code, bit, sign, lows, highs, row)
    elif at == 0:
        _two_levels(code, bit, lows, highs, row)
    else:
        _add_two_levels(code, bit, lows, highs, row)


@compiled
def coded_sum(address, code, bits, low, high, offset, begin, end, sample, byte):  # type: ignore[no-untyped-def]
    """out = base + Σ_k level of expert k's code.

    `address` (2, T): base, output. `code` (T, P): addresses of planes of bytes, 8 / `bits` codes in each byte. `low`
    and `high` (T, K), K a multiple of 4: the level where an expert's bit is clear and where it is set; with two bits,
    where the upper one is set and where it is clear, none where the lower one is. `byte`: an array of uint8.
    """
    row, other = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    per, experts = 8 // bits, low.shape[1]
    for t in range(address.shape[1]):
        start, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        for i in range(start, stop, BLOCK):
            n = min(BLOCK, stop - i)
            for p in range(code.shape[1]):  # each byte is summed by itself, as the tables of the torch pass are
                part = carray(_at(code[t, p], byte), stop)[i : i + n]
                for k in range(p * per, min((p + 1) * per, experts), 4):
                    _sum_four(part, k, bits, low[t], high[t], row if p == 0 else other)
                if p > 0:
                    _add_row(other, row)
            base = carray(_at(address[0, t], sample), stop)[i : i + n]
            _store_change(base, row, carray(_at(address[1, t], sample), stop)[i : i + n])
