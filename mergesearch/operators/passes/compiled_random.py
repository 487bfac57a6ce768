"""The passes of `random_pass.py` as compiled loops, with the same bits; see `compiled_sums.py`.

What all take: `tables`, of the addresses (K + 2, T) of base, experts and output; those of ranks (K, T), 0: no ranks;
the keys (T, K, 2) uint32; the odds (T, K, 2), with p = low + step · rank; the addresses (P, T) of bit planes, 0: none.
`span`: offsets, begin, end. `samples`: arrays of the dtypes of weights, ranks and planes.

For each block of entries and each expert, one loop writes the change of the entries that the expert keeps (0 for the
rest) to a scratch row, computing the words of `counter_random.py` as it goes; a second loop adds that row to what is
gathered.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from mergesearch.operators.passes.compiled_sums import BLOCK, _at, _load, _magnitude, _narrow, _store_sum, _widen
from mergesearch.operators.passes.compiled_windows import _read, _turned
from mergesearch.operators.passes.compiling import compiled
from mergesearch.operators.passes.counter_random import FACTORS, SEGMENT, SHIFTS

_WHOLE = np.float32(1 << 24)
"""u is a whole number of 1 / 2^24; scaling by a power of two is exact."""


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def _number(_context: Any, i: Any, first: Any, key1: Any) -> Any:
    """2^24 u of the entry for which j + key0 is i + first, float32. In 32-bit words, which numba alone would widen."""
    signature = types.float32(i, first, key1)

    def generate(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        word = ir.IntType(32)
        x = builder.add(builder.trunc(args[0], word), args[1])
        for i, (shift, factor) in enumerate(zip(SHIFTS[:3], FACTORS, strict=True)):
            x = builder.xor(x, builder.lshr(x, ir.Constant(word, shift)))
            if i == 1:
                x = builder.xor(x, args[2])
            x = builder.mul(x, ir.Constant(word, factor))
        x = builder.xor(x, builder.lshr(x, ir.Constant(word, SHIFTS[3])))
        return builder.sitofp(builder.lshr(x, ir.Constant(word, 8)), ir.FloatType())

    return signature, generate


@compiled
def _kept(x, base, weight, first, key1, p, row):  # type: ignore[no-untyped-def]
    zero, bound = np.float32(0), p * _WHOLE
    for i in range(x.size):
        delta = weight * (_widen(x[i]) - base[i])
        row[i] = delta if _number(i, first, key1) < bound else zero


@compiled
def _kept_ranked(x, base, weight, first, key1, rank, low, step, row):  # type: ignore[no-untyped-def]
    zero, low, step = np.float32(0), low * _WHOLE, step * _WHOLE
    for i in range(x.size):
        delta = weight * (_widen(x[i]) - base[i])
        row[i] = delta if _number(i, first, key1) < low + step * np.float32(rank[i]) else zero


@compiled
def _kept_inverse(x, base, weight, first, key1, rank, low, step, row):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for i in range(x.size):
        delta = weight * (_widen(x[i]) - base[i])
        p = low + step * np.float32(rank[i])
        row[i] = delta / p if _number(i, first, key1) < p * _WHOLE else zero


@compiled
def _masked(x, base, weight, mask, bit, row):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for i in range(x.size):
        delta = weight * (_widen(x[i]) - base[i])
        row[i] = delta if (mask[i] & bit) != 0 else zero


@compiled
def _note(row, bit, mask):  # type: ignore[no-untyped-def]
    for i in range(mask.size):
        mask[i] |= bit if row[i] != np.float32(0) else np.uint8(0)


@compiled
def _add(row, total):  # type: ignore[no-untyped-def]
    for i in range(total.size):
        total[i] += row[i]


@compiled
def _vote(row, share, balance, above, above_share, below, below_share):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for i in range(row.size):
        delta = row[i]
        up, down = delta > zero, delta < zero
        balance[i] += delta
        above[i] += delta if up else zero
        above_share[i] += share if up else zero
        below[i] += delta if down else zero
        below_share[i] += share if down else zero


@compiled
def _vote_unshared(row, balance, above, below):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for i in range(row.size):
        delta = row[i]
        balance[i] += delta
        above[i] += delta if delta > zero else zero
        below[i] += delta if delta < zero else zero


@compiled
def _elected(balance, above, above_share, below, below_share, scale):  # type: ignore[no-untyped-def]
    """Leave the merged change in `balance`. Both sides are read before one is chosen, or it would not be vectorised."""
    one, zero = np.float32(1), np.float32(0)
    for i in range(balance.size):
        up, high, low = balance[i] >= zero, above[i], below[i]
        high_share, low_share = above_share[i], below_share[i]
        share = high_share if up else low_share
        balance[i] = scale * ((high if up else low) / (share if share != zero else one))


@compiled
def _elected_unshared(balance, above, below, scale):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for i in range(balance.size):
        up, high, low = balance[i] >= zero, above[i], below[i]
        balance[i] = scale * (high if up else low)


@compiled
def _elect_four(x0, x1, x2, x3, base, mask, w, h, scale, out):  # type: ignore[no-untyped-def]
    """The whole election among at most four experts where bits say what they keep; weights `w`, shares `h`, four each.

    For an expert that is not read the base stands in: its change is 0. A change that does not count leaves a sum as it
    is, which has the bits of adding 0: no sum here is ever -0.
    """
    zero, one = np.float32(0), np.float32(1)
    w0, w1, w2, w3, h0, h1, h2, h3 = w[0], w[1], w[2], w[3], h[0], h[1], h[2], h[3]
    for i in range(out.size):
        centre, m = _widen(base[i]), mask[i]
        d0, d1 = w0 * (_widen(x0[i]) - centre), w1 * (_widen(x1[i]) - centre)
        d2, d3 = w2 * (_widen(x2[i]) - centre), w3 * (_widen(x3[i]) - centre)
        k0, k1, k2, k3 = (m & np.uint8(1)) != 0, (m & np.uint8(2)) != 0, (m & np.uint8(4)) != 0, (m & np.uint8(8)) != 0
        balance = zero + d0 if k0 else zero
        balance = balance + d1 if k1 else balance
        balance = balance + d2 if k2 else balance
        balance = balance + d3 if k3 else balance
        up = balance >= zero
        a0, a1 = k0 and _turned(d0, up) > zero, k1 and _turned(d1, up) > zero
        a2, a3 = k2 and _turned(d2, up) > zero, k3 and _turned(d3, up) > zero
        total, share = d0 if a0 else zero, zero + h0 if a0 else zero
        total, share = total + d1 if a1 else total, share + h1 if a1 else share
        total, share = total + d2 if a2 else total, share + h2 if a2 else share
        total, share = total + d3 if a3 else total, share + h3 if a3 else share
        out[i] = _narrow(centre + scale * (total / (share if share != zero else one)), out)


@compiled
def _quantised(row, unit):  # type: ignore[no-untyped-def]
    total = np.int64(0)
    for i in range(row.size):
        total += np.int32(abs(row[i]) * unit + np.float32(0.5))
    return total


@compiled
def _largest(x, base):  # type: ignore[no-untyped-def]
    found = np.int32(0)
    for i in range(x.size):
        found = max(found, _magnitude(_widen(x[i]) - base[i]))
    return found


@compiled
def _change(tables, plane, weight, t, k, i, n, base, inverse, samples, row):  # type: ignore[no-untyped-def]
    """Write to `row` the change of expert k in entries i to i + n of tensor t, 0 where it does not keep them.

    `plane`: the address of bits that say what it keeps, 0: it is drawn.
    """
    address, ranks, keys, odds, _ = tables
    x = carray(_at(address[k + 1, t], samples[0]), i + n)[i : i + n]
    if plane != 0:
        _masked(x, base, weight, carray(_at(plane, samples[2]), i + n)[i : i + n], np.uint8(1 << (k % 8)), row)
        return
    first = np.uint32(keys[t, k, 0] + i)
    key1 = np.uint32(keys[t, k, 1] + SEGMENT * (i >> 32))
    low, step = odds[t, k, 0], odds[t, k, 1]
    if ranks[k, t] == 0:
        _kept(x, base, weight, first, key1, low, row)
        return
    rank = carray(_at(ranks[k, t], samples[1]), i + n)[i : i + n]
    if inverse:
        _kept_inverse(x, base, weight, first, key1, rank, low, step, row)
    else:
        _kept_ranked(x, base, weight, first, key1, rank, low, step, row)


@compiled
def _length(i, stop):  # type: ignore[no-untyped-def]
    """Entries of the block at i: at most BLOCK, none beyond `stop` or in the next segment of 2^32."""
    return min(BLOCK, stop - i, ((i >> 32) + 1 << 32) - i)


@compiled
def kept_sum(tables, weight, span, inverse, samples):  # type: ignore[no-untyped-def]
    """out = base + Σ w (x - base) over the entries that an expert keeps; `weight` (T, K). `inverse`: each over its p.

    What is kept is read from bit planes where there are any, else drawn.
    """
    (address, _, _, _, masks), (offset, begin, end) = tables, span
    experts, tensors = address.shape[0] - 2, address.shape[1]
    rows = np.empty((3, BLOCK), np.float32)
    base, row, total = rows[0], rows[1], rows[2]
    for t in range(tensors):
        i, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        while i < stop:
            n = _length(i, stop)
            _load(carray(_at(address[0, t], samples[0]), stop)[i : i + n], base)
            total[:] = 0
            for k in range(experts):
                if weight[t, k] != 0:
                    _change(tables, masks[k // 8, t], weight[t, k], t, k, i, n, base, inverse, samples, row)
                    _add(row, total)
            _store_sum(base, total, carray(_at(address[experts + 1, t], samples[0]), stop)[i : i + n])
            i += n


@compiled
def kept_elect(tables, weight, share, scale, span, inverse, normalize, samples):  # type: ignore[no-untyped-def]
    """out = base + scale · Σ δ / Σ share over the experts whose kept δ = w (x - base) has the sign of Σ δ.

    Σ δ of exactly 0 counts as positive. Without `normalize`, or where Σ share is 0, the divisor is 1. `share` (T, K),
    `scale` (T,); the rest as in `kept_sum`.
    """
    (address, _, _, _, masks), (offset, begin, end) = tables, span
    experts, tensors = address.shape[0] - 2, address.shape[1]
    rows = np.empty((7, BLOCK), np.float32)
    base, row = rows[0], rows[6]
    weights, shares, models = np.zeros(4, np.float32), np.zeros(4, np.float32), np.zeros(4, np.int64)
    for t in range(tensors):
        i, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        if experts <= 4 and masks[0, t] != 0:
            for k in range(experts):
                models[k] = k + 1 if weight[t, k] != 0 else 0
                weights[k], shares[k] = weight[t, k], share[t, k] if normalize else np.float32(0)
            if i < stop:
                x0 = _read(address, models[0], t, i, stop, samples[0])
                x1 = _read(address, models[1], t, i, stop, samples[0])
                x2 = _read(address, models[2], t, i, stop, samples[0])
                x3 = _read(address, models[3], t, i, stop, samples[0])
                centre = _read(address, 0, t, i, stop, samples[0])
                mask = carray(_at(masks[0, t], samples[2]), stop)[i:stop]
                out = _read(address, experts + 1, t, i, stop, samples[0])
                _elect_four(x0, x1, x2, x3, centre, mask, weights, shares, scale[t], out)
            continue
        while i < stop:
            n = _length(i, stop)
            _load(carray(_at(address[0, t], samples[0]), stop)[i : i + n], base)
            rows[1:6] = 0
            for k in range(experts):
                if weight[t, k] != 0:
                    _change(tables, masks[k // 8, t], weight[t, k], t, k, i, n, base, inverse, samples, row)
                    if normalize:
                        _vote(row, share[t, k], rows[1], rows[2], rows[3], rows[4], rows[5])
                    else:
                        _vote_unshared(row, rows[1], rows[2], rows[4])
            if normalize:
                _elected(rows[1], rows[2], rows[3], rows[4], rows[5], scale[t])
            else:
                _elected_unshared(rows[1], rows[2], rows[4], scale[t])
            _store_sum(base, rows[1], carray(_at(address[experts + 1, t], samples[0]), stop)[i : i + n])
            i += n


@compiled
def kept_sizes(tables, unit, wanted, span, samples, sums):  # type: ignore[no-untyped-def]
    """Add to `sums` (T, K) the kept |x - base| of experts `wanted` (T, K), in whole units of 1 / `unit` (T, K).

    Where there are bit planes, the bits of the entries that change and are kept are set in them.
    """
    (address, _, _, _, masks), (offset, begin, end) = tables, span
    experts, tensors = address.shape[0] - 2, address.shape[1]
    rows = np.empty((2, BLOCK), np.float32)
    base, row, one = rows[0], rows[1], np.float32(1)
    for t in range(tensors):
        i, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        while i < stop:
            n = _length(i, stop)
            _load(carray(_at(address[0, t], samples[0]), stop)[i : i + n], base)
            for k in range(experts):
                if wanted[t, k]:
                    _change(tables, 0, one, t, k, i, n, base, False, samples, row)
                    sums[t, k] += _quantised(row[:n], unit[t, k])
                    if masks[k // 8, t] != 0:
                        mask = carray(_at(masks[k // 8, t], samples[2]), stop)[i : i + n]
                        _note(row, np.uint8(1 << (k % 8)), mask)
            i += n


@compiled
def largest(address, offset, begin, end, sample, bits):  # type: ignore[no-untyped-def]
    """Raise `bits` (T, K), int32, to those of the largest |x - base| of each tensor and expert, as float32."""
    experts, tensors = address.shape[0] - 2, address.shape[1]
    base = np.empty(BLOCK, np.float32)
    for t in range(tensors):
        start, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        for i in range(start, stop, BLOCK):
            n = min(BLOCK, stop - i)
            _load(carray(_at(address[0, t], sample), stop)[i : i + n], base)
            for k in range(experts):
                x = carray(_at(address[k + 1, t], sample), stop)[i : i + n]
                bits[t, k] = max(bits[t, k], _largest(x, base))
