"""The elections of `chunked.elect` as compiled loops, with the same bits; see `compiled_sums.py`.

Up to eight experts are read side by side, so that nothing but the result is stored; more are read one after the other.
A change that does not count leaves a sum as it is, which has the bits of adding 0: no sum here is ever -0.
"""

import numpy as np

from mergesearch.operators.passes.compiled_sums import BLOCK, _narrow, _widen
from mergesearch.operators.passes.compiled_windows import OPEN, _inside, _read, _turned, inside, next_edge, spread
from mergesearch.operators.passes.compiling import compiled


@compiled
def _elect_four(x0, x1, x2, x3, base, f, s, v, w, lowest, floor, scale, out):  # type: ignore[no-untyped-def]
    """The whole election where there are at most four experts. `f`, `s`, `v`, `w`: four numbers each."""
    zero, one = np.float32(0), np.float32(1)
    f0, f1, f2, f3 = f[0], f[1], f[2], f[3]
    s0, s1, s2, s3 = s[0], s[1], s[2], s[3]
    v0, v1, v2, v3 = v[0], v[1], v[2], v[3]
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    for j in range(out.size):
        centre = _widen(base[j])
        d0, d1, d2, d3 = _widen(x0[j]) - centre, _widen(x1[j]) - centre, _widen(x2[j]) - centre, _widen(x3[j]) - centre
        k0, k1, k2, k3 = _inside(d0, f0, s0), _inside(d1, f1, s1), _inside(d2, f2, s2), _inside(d3, f3, s3)
        balance = zero + d0 * v0 if k0 else zero
        balance = balance + d1 * v1 if k1 else balance
        balance = balance + d2 * v2 if k2 else balance
        balance = balance + d3 * v3 if k3 else balance
        up = balance >= lowest
        d0, d1, d2, d3 = d0 * w0, d1 * w1, d2 * w2, d3 * w3
        a0, a1 = k0 and _turned(d0, up) > zero, k1 and _turned(d1, up) > zero
        a2, a3 = k2 and _turned(d2, up) > zero, k3 and _turned(d3, up) > zero
        total, weight = d0 if a0 else zero, w0 if a0 else zero
        total, weight = total + d1 if a1 else total, weight + w1 if a1 else weight
        total, weight = total + d2 if a2 else total, weight + w2 if a2 else weight
        total, weight = total + d3 if a3 else total, weight + w3 if a3 else weight
        divisor = weight if abs(weight) > floor else one
        out[j] = _narrow(centre + scale * (total / divisor), out)


@compiled
def _elect_eight(  # type: ignore[no-untyped-def]
    x0, x1, x2, x3, x4, x5, x6, x7, base, f, s, v, w, lowest, floor, scale, out
):
    """The whole election where there are at most eight experts. `f`, `s`, `v`, `w`: eight numbers each."""
    zero, one = np.float32(0), np.float32(1)
    f0, f1, f2, f3, f4, f5, f6, f7 = f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7]
    s0, s1, s2, s3, s4, s5, s6, s7 = s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]
    v0, v1, v2, v3, v4, v5, v6, v7 = v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]
    w0, w1, w2, w3, w4, w5, w6, w7 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
    for j in range(out.size):
        centre = _widen(base[j])
        d0, d1, d2, d3 = _widen(x0[j]) - centre, _widen(x1[j]) - centre, _widen(x2[j]) - centre, _widen(x3[j]) - centre
        d4, d5, d6, d7 = _widen(x4[j]) - centre, _widen(x5[j]) - centre, _widen(x6[j]) - centre, _widen(x7[j]) - centre
        k0, k1, k2, k3 = _inside(d0, f0, s0), _inside(d1, f1, s1), _inside(d2, f2, s2), _inside(d3, f3, s3)
        k4, k5, k6, k7 = _inside(d4, f4, s4), _inside(d5, f5, s5), _inside(d6, f6, s6), _inside(d7, f7, s7)
        balance = zero + d0 * v0 if k0 else zero
        balance = balance + d1 * v1 if k1 else balance
        balance = balance + d2 * v2 if k2 else balance
        balance = balance + d3 * v3 if k3 else balance
        balance = balance + d4 * v4 if k4 else balance
        balance = balance + d5 * v5 if k5 else balance
        balance = balance + d6 * v6 if k6 else balance
        balance = balance + d7 * v7 if k7 else balance
        up = balance >= lowest
        d0, d1, d2, d3, d4, d5, d6, d7 = d0 * w0, d1 * w1, d2 * w2, d3 * w3, d4 * w4, d5 * w5, d6 * w6, d7 * w7
        a0, a1 = k0 and _turned(d0, up) > zero, k1 and _turned(d1, up) > zero
        a2, a3 = k2 and _turned(d2, up) > zero, k3 and _turned(d3, up) > zero
        a4, a5 = k4 and _turned(d4, up) > zero, k5 and _turned(d5, up) > zero
        a6, a7 = k6 and _turned(d6, up) > zero, k7 and _turned(d7, up) > zero
        total, weight = d0 if a0 else zero, w0 if a0 else zero
        total, weight = total + d1 if a1 else total, weight + w1 if a1 else weight
        total, weight = total + d2 if a2 else total, weight + w2 if a2 else weight
        total, weight = total + d3 if a3 else total, weight + w3 if a3 else weight
        total, weight = total + d4 if a4 else total, weight + w4 if a4 else weight
        total, weight = total + d5 if a5 else total, weight + w5 if a5 else weight
        total, weight = total + d6 if a6 else total, weight + w6 if a6 else weight
        total, weight = total + d7 if a7 else total, weight + w7 if a7 else weight
        divisor = weight if abs(weight) > floor else one
        out[j] = _narrow(centre + scale * (total / divisor), out)


@compiled
def _select_four(  # type: ignore[no-untyped-def]
    x0, x1, x2, x3, base, first, span, experts, v, w, lowest, floor, scale, out
):
    """As `_elect_four`, where the variance of the changes of so many experts decides which entries are kept."""
    zero, one, number = np.float32(0), np.float32(1), np.float32(experts)
    v0, v1, v2, v3 = v[0], v[1], v[2], v[3]
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    for j in range(out.size):
        centre = _widen(base[j])
        d0, d1, d2, d3 = _widen(x0[j]) - centre, _widen(x1[j]) - centre, _widen(x2[j]) - centre, _widen(x3[j]) - centre
        mean = (zero + d0 + d1 + d2 + d3) / number
        e0, e1, e2, e3 = d0 - mean, d1 - mean, d2 - mean, d3 - mean
        spread = zero + e0 * e0
        spread = spread + e1 * e1 if experts > 1 else spread
        spread = spread + e2 * e2 if experts > 2 else spread
        spread = spread + e3 * e3 if experts > 3 else spread
        kept = _inside(spread, first, span)
        balance = zero + d0 * v0 + d1 * v1 + d2 * v2 + d3 * v3
        up = balance >= lowest
        d0, d1, d2, d3 = d0 * w0, d1 * w1, d2 * w2, d3 * w3
        a0, a1, a2, a3 = (
            _turned(d0, up) > zero,
            _turned(d1, up) > zero,
            _turned(d2, up) > zero,
            _turned(d3, up) > zero,
        )
        total, weight = d0 if a0 else zero, w0 if a0 else zero
        total, weight = total + d1 if a1 else total, weight + w1 if a1 else weight
        total, weight = total + d2 if a2 else total, weight + w2 if a2 else weight
        total, weight = total + d3 if a3 else total, weight + w3 if a3 else weight
        divisor = weight if abs(weight) > floor else one
        merged = scale * (total / divisor)
        out[j] = _narrow(centre + (merged if kept else scale * zero), out)


@compiled
def _select_eight(  # type: ignore[no-untyped-def]
    x0, x1, x2, x3, x4, x5, x6, x7, base, first, span, experts, v, w, lowest, floor, scale, out
):
    """As `_elect_eight`, where the variance of the changes of so many experts decides which entries are kept."""
    zero, one, number = np.float32(0), np.float32(1), np.float32(experts)
    v0, v1, v2, v3, v4, v5, v6, v7 = v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]
    w0, w1, w2, w3, w4, w5, w6, w7 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
    for j in range(out.size):
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
        kept = _inside(spread, first, span)
        balance = zero + d0 * v0 + d1 * v1 + d2 * v2 + d3 * v3 + d4 * v4 + d5 * v5 + d6 * v6 + d7 * v7
        up = balance >= lowest
        d0, d1, d2, d3, d4, d5, d6, d7 = d0 * w0, d1 * w1, d2 * w2, d3 * w3, d4 * w4, d5 * w5, d6 * w6, d7 * w7
        a0, a1, a2, a3 = (
            _turned(d0, up) > zero,
            _turned(d1, up) > zero,
            _turned(d2, up) > zero,
            _turned(d3, up) > zero,
        )
        a4, a5, a6, a7 = (
            _turned(d4, up) > zero,
            _turned(d5, up) > zero,
            _turned(d6, up) > zero,
            _turned(d7, up) > zero,
        )
        total, weight = d0 if a0 else zero, w0 if a0 else zero
        total, weight = total + d1 if a1 else total, weight + w1 if a1 else weight
        total, weight = total + d2 if a2 else total, weight + w2 if a2 else weight
        total, weight = total + d3 if a3 else total, weight + w3 if a3 else weight
        total, weight = total + d4 if a4 else total, weight + w4 if a4 else weight
        total, weight = total + d5 if a5 else total, weight + w5 if a5 else weight
        total, weight = total + d6 if a6 else total, weight + w6 if a6 else weight
        total, weight = total + d7 if a7 else total, weight + w7 if a7 else weight
        divisor = weight if abs(weight) > floor else one
        merged = scale * (total / divisor)
        out[j] = _narrow(centre + (merged if kept else scale * zero), out)


@compiled
def _add_vote(x, base, first, span, vote, balance):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for j in range(x.size):
        delta = _widen(x[j]) - _widen(base[j])
        balance[j] += delta * vote if _inside(delta, first, span) else zero


@compiled
def _add_agreeing(x, base, first, span, w, lowest, balance, total, weight):  # type: ignore[no-untyped-def]
    """Add a change that has the elected sign, and its weight."""
    zero = np.float32(0)
    for j in range(x.size):
        delta = _widen(x[j]) - _widen(base[j])
        kept, delta = _inside(delta, first, span), delta * w
        agrees = kept and _turned(delta, balance[j] >= lowest) > zero
        total[j] += delta if agrees else zero
        weight[j] += w if agrees else zero


@compiled
def _drop_outside(row, first, span, total, weight):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for j in range(total.size):
        kept, one_total, one_weight = _inside(row[j], first, span), total[j], weight[j]
        total[j] = one_total if kept else zero
        weight[j] = one_weight if kept else zero


@compiled
def _store_elected(base, total, weight, floor, scale, out):  # type: ignore[no-untyped-def]
    one = np.float32(1)
    for j in range(out.size):
        share = weight[j]
        divisor = share if abs(share) > floor else one
        out[j] = _narrow(_widen(base[j]) + scale * (total[j] / divisor), out)


@compiled
def _elect_side_by_side(  # type: ignore[no-untyped-def]
    address, models, t, i, last, sample, spreads, f, s, v, w, lowest, floor, scale
):
    """Entries `i` to `last` of a tensor, of at most eight experts; `models`: where they are, 0 for those not read."""
    experts = address.shape[0] - 2
    base, out = _read(address, 0, t, i, last, sample), _read(address, experts + 1, t, i, last, sample)
    x0, x1 = _read(address, models[0], t, i, last, sample), _read(address, models[1], t, i, last, sample)
    x2, x3 = _read(address, models[2], t, i, last, sample), _read(address, models[3], t, i, last, sample)
    if experts <= 4 and spreads:
        _select_four(x0, x1, x2, x3, base, f[0], s[0], experts, v, w, lowest, floor, scale, out)
        return
    if experts <= 4:
        _elect_four(x0, x1, x2, x3, base, f, s, v, w, lowest, floor, scale, out)
        return
    x4, x5 = _read(address, models[4], t, i, last, sample), _read(address, models[5], t, i, last, sample)
    x6, x7 = _read(address, models[6], t, i, last, sample), _read(address, models[7], t, i, last, sample)
    if spreads:
        _select_eight(x0, x1, x2, x3, x4, x5, x6, x7, base, f[0], s[0], experts, v, w, lowest, floor, scale, out)
    else:
        _elect_eight(x0, x1, x2, x3, x4, x5, x6, x7, base, f, s, v, w, lowest, floor, scale, out)


@compiled
def _elect_in_turn(  # type: ignore[no-untyped-def]
    address, models, t, i, last, sample, spreads, f, s, v, w, lowest, floor, scale, rows
):
    """As `_elect_side_by_side`, of any number of experts; `rows` (5, n): scratch memory."""
    experts = address.shape[0] - 2
    base, out = _read(address, 0, t, i, last, sample), _read(address, experts + 1, t, i, last, sample)
    balance, total, weight = rows[0], rows[1], rows[2]
    rows[:3] = 0
    for k in range(experts):
        if models[k] > 0:
            first, span = (np.int32(0), np.int32(OPEN)) if spreads else (f[k], s[k])
            _add_vote(_read(address, k + 1, t, i, last, sample), base, first, span, v[k], balance)
    for k in range(experts):
        if models[k] > 0:
            x = _read(address, k + 1, t, i, last, sample)
            first, span = (np.int32(0), np.int32(OPEN)) if spreads else (f[k], s[k])
            _add_agreeing(x, base, first, span, w[k], lowest, balance, total, weight)
    if spreads:
        spread(address, t, i, last, sample, rows[3], rows[4])
        _drop_outside(rows[4], f[0], s[0], total, weight)
    _store_elected(base, total, weight, floor, scale, out)


@compiled
def elect(  # type: ignore[no-untyped-def]
    address, window, spreads, vote, weight, scale, lowest, floor, offset, begin, end, sample
):
    """out = base + scale · Σ δ / Σ w over the experts whose kept δ = w (x - base) has the sign of Σ vote (x - base).

    `address` (K + 2, T): base, experts, output. `window` (T, 4, K), also int64: see `chunked.py`; `spreads`: it has one
    column, for the variance of the changes. `vote`, `weight` (T, K), `scale` (T,). The sign is + from `lowest` on. A
    Σ w that is not above `floor` counts as 1.
    """
    experts, tensors = address.shape[0] - 2, address.shape[1]
    places = 4 if experts <= 4 else max(experts, 8)
    rows = np.empty((5, BLOCK), np.float32)
    firsts, spans = np.zeros(places, np.int32), np.zeros(places, np.int32)
    votes, weights = np.zeros(places, np.float32), np.zeros(places, np.float32)
    models = np.zeros(places, np.int64)
    for t in range(tensors):
        for k in range(experts):
            models[k] = k + 1 if weight[t, k] != 0 or vote[t, k] != 0 else 0
            votes[k], weights[k] = vote[t, k], weight[t, k]
        i, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        while i < stop:
            last = next_edge(window[t], i, min(i + BLOCK, stop))
            for column in range(window.shape[2]):
                firsts[column], spans[column] = inside(window[t], column, i)
            if experts <= 8:
                _elect_side_by_side(
                    address, models, t, i, last, sample, spreads, firsts, spans, votes, weights, lowest, floor, scale[t]
                )
            else:
                _elect_in_turn(
                    address, models, t, i, last, sample, spreads, firsts, spans, votes, weights, lowest, floor,
                    scale[t], rows,
                )  # fmt: skip
            i = last
