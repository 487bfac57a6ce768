"""The pass of `vectors.py` as a compiled loop; see `compiled_sums.py`, whose conventions hold here."""

import numpy as np
from numba import carray

from mergesearch.operators.passes.compiled_sums import (
    _add_scaled,
    _add_scaled_delta,
    _at,
    _load,
    _narrow,
    _scaled,
    _scaled_delta,
    _store,
    _store_sum,
    _widen,
)
from mergesearch.operators.passes.compiling import compiled

_BLOCK = 1024
"""Entries per step at most: a row of most hidden sizes in one or two."""
_LONG = 64
"""Runs of equal weights, or of single ones, from which they need not be spread over the entries of a block."""


@compiled
def _spread(weight, first, inner, row):  # type: ignore[no-untyped-def]
    """row[j] = weight of the vector that entry `first` + j belongs to: ((first + j) // inner) % V."""
    j = 0
    while j < row.size:
        v = ((first + j) // inner) % weight.size
        if inner == 1:
            length = min(row.size - j, weight.size - v)
            row[j : j + length] = weight[v : v + length]
        else:
            length = min(row.size - j, inner - (first + j) % inner)
            row[j : j + length] = weight[v]
        j += length


@compiled
def _add_each(x, weight, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] += weight[j] * _widen(x[j])


@compiled
def _each(x, weight, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] = weight[j] * _widen(x[j])


@compiled
def _add_each_delta(x, base, weight, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] += weight[j] * (_widen(x[j]) - base[j])


@compiled
def _each_delta(x, base, weight, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] = weight[j] * (_widen(x[j]) - base[j])


@compiled
def _write_zero(out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] = _narrow(np.float32(0), out)


@compiled
def _weighted(x, base, weight, centred, empty, row):  # type: ignore[no-untyped-def]
    """Add a model's part to `row`, or begin it: `weight` holds one for each entry."""
    if centred and empty:
        _each_delta(x, base, weight, row)
    elif centred:
        _add_each_delta(x, base, weight, row)
    elif empty:
        _each(x, weight, row)
    else:
        _add_each(x, weight, row)


@compiled
def _weighted_alike(x, base, weight, centred, empty, row):  # type: ignore[no-untyped-def]
    """`_weighted` with one weight for all entries."""
    if centred and empty:
        _scaled_delta(x, base, weight, row)
    elif centred:
        _add_scaled_delta(x, base, weight, row)
    elif empty:
        _scaled(x, weight, row)
    else:
        _add_scaled(x, weight, row)


@compiled
def _step(i, stop, inner, count):  # type: ignore[no-untyped-def]
    """How many entries from i on to take at once: to the end of the vector, or of all vectors, where these are long."""
    n = min(_BLOCK, stop - i)
    if inner >= _LONG:
        return min(n, inner - i % inner)
    if inner == 1 and count >= _LONG:
        return min(n, count - i % count)
    return n


@compiled
def vector_sum(address, weight, form, used, offset, begin, end, centred, sample, real):  # type: ignore[no-untyped-def]
    """out = Σ w x, or base + Σ w (x - base) if `centred`, with a weight for each vector of a tensor.

    `address` (M + 1, T): the models, base first if centred, then the output. `weight` (T,): addresses of (M, V) tables
    of float32; `form` (T, 2): inner and V of each tensor; `used` (T, M): whether a model is read. `real`: an array of
    float32.
    """
    models, tensors = address.shape[0] - 1, address.shape[1]
    base, row, each = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for t in range(tensors):
        i, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        inner, count = form[t, 0], form[t, 1]
        while i < stop:
            n = _step(i, stop, inner, count)
            out = carray(_at(address[models, t], sample), stop)[i : i + n]
            if centred:
                _load(carray(_at(address[0, t], sample), stop)[i : i + n], base)
            empty = True
            for m in range(models):
                if not used[t, m]:
                    continue
                x = carray(_at(address[m, t], sample), stop)[i : i + n]
                table = carray(_at(weight[t], real), models * count)[m * count : (m + 1) * count]
                if inner >= _LONG:
                    _weighted_alike(x, base, table[(i // inner) % count], centred, empty, row)
                elif inner == 1 and count >= _LONG:
                    _weighted(x, base, table[i % count : i % count + n], centred, empty, row)
                else:
                    _spread(table, i, inner, each[:n])
                    _weighted(x, base, each, centred, empty, row)
                empty = False
            if empty and centred:
                _store(base, out)
            elif empty:
                _write_zero(out)
            elif centred:
                _store_sum(base, row, out)
            else:
                _store(row, out)
            i += n
