"""The compiled loops of `trim.py`, over large CPU tensors; see `compiled_sums.py` for how they are written.

A question (row of `asked`) is (tensor, expert, first bits, span, rank): which is the rank-th largest of the magnitudes
whose bits are among the `span` numbers from the first on? Expert -1 stands for the variance of all experts' changes.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from mergesearch.operators.passes.compiled_sums import BLOCK, _at, _load, _magnitude, _store_sum, _widen
from mergesearch.operators.passes.compiled_windows import _inside, _read, inside, next_edge, spread
from mergesearch.operators.passes.compiling import compiled

PART = 256
"""Entries that are counted together. Those of a part that holds an answer are looked at one by one."""
assert PART <= BLOCK


@compiled
def _changes(x, base, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] = _widen(x[j]) - _widen(base[j])


@compiled
def _magnitudes(row, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] = _magnitude(row[j])


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def _next(_context: Any, found: Any, more: Any) -> Any:
    """A count (int32) and one more if `more`. Numba alone would widen it, and count at half the speed."""
    signature = types.int32(found, more)

    def generate(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return builder.add(args[0], builder.zext(args[1], ir.IntType(32)))

    return signature, generate


@compiled
def _count(row, first, span):  # type: ignore[no-untyped-def]
    found = np.int32(0)
    for j in range(row.size):
        found = _next(found, _inside(row[j], first, span))
    return found


@compiled
def _count_changes(x, base, first, span):  # type: ignore[no-untyped-def]
    found = np.int32(0)
    for j in range(x.size):
        found = _next(found, _inside(_widen(x[j]) - _widen(base[j]), first, span))
    return found


@compiled
def _ranked(address, t, expert, first, stop, sample, mean, row):  # type: ignore[no-untyped-def]
    """Leave in `row` what entries `first` to `stop` are ranked by."""
    if expert < 0:
        spread(address, t, first, stop, sample, mean, row)
    else:
        _changes(_read(address, expert + 1, t, first, stop, sample), _read(address, 0, t, first, stop, sample), row)


@compiled
def magnitudes(address, t, expert, begin, sample, out):  # type: ignore[no-untyped-def]
    """The magnitudes' bits of entries `begin` and on, as many as the int32 array `out` holds."""
    mean, row = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for i in range(0, out.size, BLOCK):
        n = min(BLOCK, out.size - i)
        _ranked(address, t, expert, begin + i, begin + i + n, sample, mean, row)
        _magnitudes(row, out[i : i + n])


@compiled
def count(address, asked, place, counts, offset, begin, end, sample):  # type: ignore[no-untyped-def]
    """For every question, how many entries of each part of its tensor are in its span: `counts[place[q] + part]`.

    `asked` is ordered by tensor. Elements `begin` to `end` of all tensors laid end to end: the parts that begin there.
    """
    mean, row = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    q = 0
    while q < asked.shape[0]:
        t, following = asked[q, 0], q
        while following < asked.shape[0] and asked[following, 0] == t:
            following += 1
        size = offset[t + 1] - offset[t]
        start = -(-max(begin - offset[t], 0) // PART) * PART
        for i in range(start, min(end - offset[t], size), PART):
            stop = min(i + PART, size)
            base = _read(address, 0, t, i, stop, sample)
            for other in range(q, following):
                expert, lowest, span = asked[other, 1], np.int32(asked[other, 2]), np.int32(asked[other, 3])
                if expert < 0:
                    spread(address, t, i, stop, sample, mean, row)
                    found = _count(row[: stop - i], lowest, span)
                else:
                    found = _count_changes(_read(address, expert + 1, t, i, stop, sample), base, lowest, span)
                counts[place[other] + i // PART] = found
        q = following


@compiled
def _collect(address, question, counts, size, sample, bits, where):  # type: ignore[no-untyped-def]
    """The bits and positions of the entries in a question's span, in order."""
    mean, row = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    first, span, found = np.int32(question[2]), np.int32(question[3]), 0
    for part in range(counts.size):
        if counts[part] > 0:
            i = part * PART
            stop = min(i + PART, size)
            _ranked(address, question[0], question[1], i, stop, sample, mean, row)
            for j in range(stop - i):
                if _inside(row[j], first, span):
                    bits[found] = _magnitude(row[j])
                    where[found] = i + j
                    found += 1


@compiled
def _tie(address, question, counts, size, rank, sample):  # type: ignore[no-untyped-def]
    """The position of the rank-th entry in a question's span."""
    mean, row = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    first, span = np.int32(question[2]), np.int32(question[3])
    for part in range(counts.size):
        if rank <= counts[part]:
            i = part * PART
            stop = min(i + PART, size)
            _ranked(address, question[0], question[1], i, stop, sample, mean, row)
            for j in range(stop - i):
                if _inside(row[j], first, span):
                    rank -= 1
                    if rank == 0:
                        return i + j
        rank -= counts[part]
    return size


@compiled
def answer(address, asked, place, counts, offset, begin, end, sample, edges):  # type: ignore[no-untyped-def]
    """Write the answers to questions `begin` to `end` into `edges` (Q, 2): the bits, and the last of the entries equal
    to them that is among the largest."""
    for q in range(begin, end):
        question, rank = asked[q], asked[q, 4]
        size = offset[asked[q, 0] + 1] - offset[asked[q, 0]]
        counted = counts[place[q] : place[q] - (-size // PART)]
        if asked[q, 3] == 1:
            edges[q, 0] = asked[q, 2]
            edges[q, 1] = _tie(address, question, counted, size, rank, sample)
            continue
        total = counted.sum()
        bits, where = np.empty(total, np.int32), np.empty(total, np.int64)
        _collect(address, question, counted, size, sample, bits, where)
        found = np.sort(bits)[total - rank]
        equal = rank
        for i in range(total):
            equal -= 1 if bits[i] > found else 0
        edges[q, 0] = found
        for i in range(total):
            if bits[i] == found:
                equal -= 1
                if equal == 0:
                    edges[q, 1] = where[i]


@compiled
def _add_inside(x, base, first, span, weight, row):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for j in range(x.size):
        delta = _widen(x[j]) - base[j]
        row[j] += delta * weight if _inside(delta, first, span) else zero


@compiled
def windowed_sum(address, window, weight, offset, begin, end, sample):  # type: ignore[no-untyped-def]
    """out = base + Σ w (x - base) over the experts whose change is in the window (T, 4, K); else as `masked_sum`."""
    experts, tensors = address.shape[0] - 2, address.shape[1]
    base, row = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for t in range(tensors):
        i, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        while i < stop:
            last = next_edge(window[t], i, min(i + BLOCK, stop))
            _load(carray(_at(address[0, t], sample), last)[i:last], base)
            row[:] = 0
            for k in range(experts):
                if weight[t, k] != 0:
                    first, span = inside(window[t], k, i)
                    x = carray(_at(address[k + 1, t], sample), last)[i:last]
                    _add_inside(x, base, first, span, weight[t, k], row)
            _store_sum(base, row, carray(_at(address[experts + 1, t], sample), last)[i:last])
            i = last


@compiled
def _signs(row):  # type: ignore[no-untyped-def]
    zero, found = np.float32(0), 0
    for j in range(row.size):
        found += 1 if row[j] > zero else 0
        found -= 1 if row[j] < zero else 0
    return found


@compiled
def majority(address, window, offset, begin, end, sample):  # type: ignore[no-untyped-def]
    """Of how many entries the kept changes have a sum above 0, less of how many they have one below."""
    experts, tensors = address.shape[0] - 2, address.shape[1]
    base, row = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    found = 0
    for t in range(tensors):
        i, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        while i < stop:
            last = next_edge(window[t], i, min(i + BLOCK, stop))
            _load(carray(_at(address[0, t], sample), last)[i:last], base)
            row[:] = 0
            for k in range(experts):
                first, span = inside(window[t], k, i)
                x = carray(_at(address[k + 1, t], sample), last)[i:last]
                _add_inside(x, base, first, span, np.float32(1), row)
            found += _signs(row[: last - i])
            i = last
    return found
