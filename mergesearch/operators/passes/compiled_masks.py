"""`chunked.masked_sum` as compiled loops, with the same bits; see `compiled_sums.py`.

Four experts are read at a time, so that nothing but the result is stored where there are no more. For one that is not
read the base stands in, and its change is replaced by 0.
"""

from typing import Any

import numpy as np
from numba import carray
from numba.extending import intrinsic

from mergesearch.operators.passes.compiled_sums import BLOCK, _at, _load, _narrow, _store_sum, _widen
from mergesearch.operators.passes.compiling import compiled


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def ones(_context: Any, byte: Any) -> Any:
    """How many bits of a byte are set, as a byte."""
    signature = byte(byte)

    def generate(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return signature, generate


@compiled
def _sum_four(x0, x1, x2, x3, base, mask, b, read, w, out):  # type: ignore[no-untyped-def]
    """The whole sum where there are at most four experts. `b`, `read`, `w`: bit, whether it is read, weight."""
    one, zero = np.float32(1), np.float32(0)
    b0, b1, b2, b3 = b[0], b[1], b[2], b[3]
    r0, r1, r2, r3 = read[0], read[1], read[2], read[3]
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    for j in range(out.size):
        centre, m = _widen(base[j]), mask[j]
        d0, d1, d2, d3 = _widen(x0[j]) - centre, _widen(x1[j]) - centre, _widen(x2[j]) - centre, _widen(x3[j]) - centre
        k0, k1 = one if (m & b0) != 0 else zero, one if (m & b1) != 0 else zero
        k2, k3 = one if (m & b2) != 0 else zero, one if (m & b3) != 0 else zero
        total = zero + (d0 if r0 else zero) * w0 * k0
        total += (d1 if r1 else zero) * w1 * k1
        total += (d2 if r2 else zero) * w2 * k2
        total += (d3 if r3 else zero) * w3 * k3
        out[j] = _narrow(centre + total, out)


@compiled
def _sum_two(x0, x1, base, mask, b, read, w, out):  # type: ignore[no-untyped-def]
    """The same where there are at most two, which the other two would slow down."""
    one, zero = np.float32(1), np.float32(0)
    b0, b1 = b[0], b[1]
    r0, r1 = read[0], read[1]
    w0, w1 = w[0], w[1]
    for j in range(out.size):
        centre, m = _widen(base[j]), mask[j]
        d0, d1 = _widen(x0[j]) - centre, _widen(x1[j]) - centre
        k0, k1 = one if (m & b0) != 0 else zero, one if (m & b1) != 0 else zero
        total = zero + (d0 if r0 else zero) * w0 * k0
        total += (d1 if r1 else zero) * w1 * k1
        out[j] = _narrow(centre + total, out)


@compiled
def _average_four(x0, x1, x2, x3, base, mask, among, b, read, w, s, most, out):  # type: ignore[no-untyped-def]
    """The same where it matters how many keep an entry, of the bits `among`.

    `s`: the weights where one alone does; `most`: the largest divisor, 1 or infinity.
    """
    one, zero = np.float32(1), np.float32(0)
    b0, b1, b2, b3 = b[0], b[1], b[2], b[3]
    r0, r1, r2, r3 = read[0], read[1], read[2], read[3]
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    s0, s1, s2, s3 = s[0], s[1], s[2], s[3]
    for j in range(out.size):
        centre, m = _widen(base[j]), mask[j]
        d0, d1, d2, d3 = _widen(x0[j]) - centre, _widen(x1[j]) - centre, _widen(x2[j]) - centre, _widen(x3[j]) - centre
        k0, k1 = one if (m & b0) != 0 else zero, one if (m & b1) != 0 else zero
        k2, k3 = one if (m & b2) != 0 else zero, one if (m & b3) != 0 else zero
        count = np.float32(ones(np.uint8(m & among)))
        alone = count == one
        total = zero + (d0 if r0 else zero) * (s0 if alone else w0) * k0
        total += (d1 if r1 else zero) * (s1 if alone else w1) * k1
        total += (d2 if r2 else zero) * (s2 if alone else w2) * k2
        total += (d3 if r3 else zero) * (s3 if alone else w3) * k3
        out[j] = _narrow(centre + total / min(max(count, one), most), out)


@compiled
def _count_keepers(mask, among, count):  # type: ignore[no-untyped-def]
    for j in range(count.size):
        count[j] += np.float32(ones(np.uint8(mask[j] & among)))


@compiled
def _add_four(x0, x1, x2, x3, base, mask, b, read, w, s, count, row):  # type: ignore[no-untyped-def]
    """Add the kept changes of four experts to `row`."""
    one, zero = np.float32(1), np.float32(0)
    b0, b1, b2, b3 = b[0], b[1], b[2], b[3]
    r0, r1, r2, r3 = read[0], read[1], read[2], read[3]
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    s0, s1, s2, s3 = s[0], s[1], s[2], s[3]
    for j in range(x0.size):
        centre, m, alone = base[j], mask[j], count[j] == one
        d0, d1, d2, d3 = _widen(x0[j]) - centre, _widen(x1[j]) - centre, _widen(x2[j]) - centre, _widen(x3[j]) - centre
        k0, k1 = one if (m & b0) != 0 else zero, one if (m & b1) != 0 else zero
        k2, k3 = one if (m & b2) != 0 else zero, one if (m & b3) != 0 else zero
        total = row[j] + (d0 if r0 else zero) * (s0 if alone else w0) * k0
        total += (d1 if r1 else zero) * (s1 if alone else w1) * k1
        total += (d2 if r2 else zero) * (s2 if alone else w2) * k2
        row[j] = total + (d3 if r3 else zero) * (s3 if alone else w3) * k3


@compiled
def _store_average(base, row, count, out):  # type: ignore[no-untyped-def]
    one = np.float32(1)
    for j in range(out.size):
        out[j] = _narrow(base[j] + row[j] / max(count[j], one), out)


@compiled
def masked_sum(address, masks, weight, alone, offset, begin, end, average, sample, byte):  # type: ignore[no-untyped-def]
    """out = base + Σ w (x - base) over the experts that keep an entry; where one alone does, its weight is in `alone`.

    `address` (K + 2, T): base, experts, output. `masks` (P, T): addresses of planes of bytes, bit k % 8 of plane k // 8
    set where expert k keeps the entry, 0 where all do (`byte`: an array of uint8). `weight`, `alone` (T, K). `average`:
    divided by how many keep it.
    """
    experts, tensors = address.shape[0] - 2, address.shape[1]
    groups = -(-experts // 4)
    most = np.float32(np.inf if average else 1)
    base, row, count = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    all_kept = np.full(BLOCK, 255, np.uint8)
    bits, among = np.zeros((groups, 4), np.uint8), np.zeros(masks.shape[0], np.uint8)
    models, read = np.zeros((groups, 4), np.int64), np.zeros((groups, 4), np.bool_)
    weights, singles = np.zeros((groups, 4), np.float32), np.zeros((groups, 4), np.float32)
    for t in range(tensors):
        counted = average
        for k in range(experts):
            g, c = k // 4, k % 4
            read[g, c] = weight[t, k] != 0 or alone[t, k] != 0
            counted |= weight[t, k] != alone[t, k]
            models[g, c] = k + 1 if read[g, c] else 0
            bits[g, c] = 1 << (k % 8)
            among[k // 8] |= bits[g, c]
            weights[g, c], singles[g, c] = weight[t, k], alone[t, k]
        start, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        for i in range(start, stop, BLOCK):
            last = min(i + BLOCK, stop)
            plain = carray(_at(address[0, t], sample), last)[i:last]
            out = carray(_at(address[experts + 1, t], sample), last)[i:last]
            if groups > 1:
                _load(plain, base)
                row[:] = 0
                count[:] = 0
                if counted:
                    for p in range(among.size):
                        mask = all_kept if masks[p, t] == 0 else carray(_at(masks[p, t], byte), last)[i:last]
                        _count_keepers(mask, among[p], count[: last - i])
            for g in range(groups):
                x0 = carray(_at(address[models[g, 0], t], sample), last)[i:last]
                x1 = carray(_at(address[models[g, 1], t], sample), last)[i:last]
                x2 = carray(_at(address[models[g, 2], t], sample), last)[i:last]
                x3 = carray(_at(address[models[g, 3], t], sample), last)[i:last]
                plane = masks[g // 2, t]
                mask = all_kept if plane == 0 else carray(_at(plane, byte), last)[i:last]
                b, r, w, s = bits[g], read[g], weights[g], singles[g]
                if groups > 1:
                    _add_four(x0, x1, x2, x3, base, mask, b, r, w, s, count, row)
                elif counted:
                    _average_four(x0, x1, x2, x3, plain, mask, among[0], b, r, w, s, most, out)
                elif experts <= 2:
                    _sum_two(x0, x1, plain, mask, b, r, w, out)
                else:
                    _sum_four(x0, x1, x2, x3, plain, mask, b, r, w, out)
            if groups > 1 and average:
                _store_average(base, row, count, out)
            elif groups > 1:
                _store_sum(base, row, out)
