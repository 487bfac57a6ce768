"""The streaming passes of `_chunked.py` as compiled loops over bfloat16 and float32 tensors in CPU memory.

Plain torch needs about a dozen sweeps over a chunk where these loops need one per model, so they run at the speed of
memory (see benchmarks/build.py). They take the same steps in the same order, each rounded to float32 and never fused
into a multiply-add, so that they give the same bits as `_chunked.py`. Imported only when a large model is built:
loading numba and compiling take seconds, which a small model does not earn back.

Tensors are passed as addresses: `address[m, t]` of tensor t in model m, 0 where it is not read. A loop covers elements
`begin` to `end` of all tensors laid end to end, `offset[t]` being where tensor t begins.
"""

from contextlib import suppress
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

BLOCK = 512
"""Elements per step. Six float32 scratch rows of it stay in the first-level cache of any CPU (12 kB of 32)."""


def _compiled(function: Any) -> Any:
    """`function` compiled to run without the interpreter lock; kept on disk where a cache can be written."""
    dispatcher = njit(nogil=True, error_model="numpy", boundscheck=False)(function)
    with suppress(RuntimeError):  # no writable place for the cache: compile anew in each process
        dispatcher.enable_caching()
    return dispatcher


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def _at(_context: Any, address: Any, sample: Any) -> Any:
    """The pointer at an integer address, to elements of the dtype of `sample`."""
    signature = types.CPointer(sample.dtype)(address, sample)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def _widen(_context: Any, value: Any) -> Any:
    """float32 of a stored element: uint16 holds the bits of a bfloat16, the upper half of a float32."""
    signature = types.float32(value)

    def generate(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        if value == types.float32:
            return args[0]
        word = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(args[0], word), ir.Constant(word, 16)), ir.FloatType())

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def _narrow(_context: Any, value: Any, sample: Any) -> Any:
    """A float32 as an element of the dtype of `sample`; bfloat16 rounds to nearest even, NaN becomes 0x7FC0."""
    signature = sample.dtype(value, sample)

    def generate(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        if sample.dtype == types.float32:
            return args[0]
        word = ir.IntType(32)
        bits = builder.bitcast(args[0], word)
        odd = builder.and_(builder.lshr(bits, ir.Constant(word, 16)), ir.Constant(word, 1))
        rounded = builder.lshr(builder.add(builder.add(bits, ir.Constant(word, 0x7FFF)), odd), ir.Constant(word, 16))
        is_nan = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.trunc(builder.select(is_nan, ir.Constant(word, 0x7FC0), rounded), ir.IntType(16))

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def _magnitude(_context: Any, value: Any) -> Any:
    """Bits of the magnitude of a float32, as int32; they order like the magnitudes."""
    signature = types.int32(value)

    def generate(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        word = ir.IntType(32)
        return builder.and_(builder.bitcast(args[0], word), ir.Constant(word, 0x7FFFFFFF))

    return signature, generate


# Short loops in functions of their own: the vectoriser then knows that their arrays do not overlap.


@_compiled
def _load(x, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] = _widen(x[j])


@_compiled
def _store(row, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] = _narrow(row[j], out)


@_compiled
def _store_sum(base, row, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] = _narrow(base[j] + row[j], out)


@_compiled
def _scaled(x, weight, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] = weight * _widen(x[j])


@_compiled
def _add_scaled(x, weight, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] += weight * _widen(x[j])


@_compiled
def _scaled_delta(x, base, weight, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] = weight * (_widen(x[j]) - base[j])


@_compiled
def _add_scaled_delta(x, base, weight, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] += weight * (_widen(x[j]) - base[j])


@_compiled
def _vote(x, base, mask, bit, weight, balance, above, above_weight, below, below_weight):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for j in range(x.size):
        delta = weight * (_widen(x[j]) - base[j])
        kept = (mask[j] & bit) != 0
        up = kept and delta > zero
        down = kept and delta < zero
        balance[j] += delta if kept else zero
        above[j] += delta if up else zero
        above_weight[j] += weight if up else zero
        below[j] += delta if down else zero
        below_weight[j] += weight if down else zero


@_compiled
def _elected(balance, above, above_weight, below, below_weight, scale, normalize):  # type: ignore[no-untyped-def]
    """Leave the merged task vector in `balance`."""
    one, zero = np.float32(1), np.float32(0)
    for j in range(balance.size):
        up = balance[j] >= zero
        total = above[j] if up else below[j]
        divisor = above_weight[j] if up else below_weight[j]
        divisor = divisor if (normalize and divisor != zero) else one
        balance[j] = scale * (total / divisor)


@_compiled
def weighted_sum(address, weight, offset, begin, end, centred, sample):  # type: ignore[no-untyped-def]
    """out = Σ w x, or base + Σ w (x - base) if `centred`; a weight of 0 is not read.

    `address` (M + 1, T): the models, base first if centred, then the output. `weight` (T, M), of which a centred base's
    is ignored. `sample`: an array of the stored dtype, uint16 for bfloat16.
    """
    models, tensors = address.shape[0] - 1, address.shape[1]
    base, row = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    first = 1 if centred else 0
    for t in range(tensors):
        start, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        for i in range(start, stop, BLOCK):
            n = min(BLOCK, stop - i)
            out = carray(_at(address[models, t], sample), stop)[i : i + n]
            if centred:
                _load(carray(_at(address[0, t], sample), stop)[i : i + n], base)
            empty = True
            for m in range(first, models):
                w = weight[t, m]
                if w == 0:
                    continue
                x = carray(_at(address[m, t], sample), stop)[i : i + n]
                if centred and empty:
                    _scaled_delta(x, base, w, row)
                elif centred:
                    _add_scaled_delta(x, base, w, row)
                elif empty:
                    _scaled(x, w, row)
                else:
                    _add_scaled(x, w, row)
                empty = False
            if empty and not centred:
                row[:n] = 0
            if empty and centred:
                _store(base, out)
            elif centred:
                _store_sum(base, row, out)
            else:
                _store(row, out)


@_compiled
def elect(address, masks, weight, scale, offset, begin, end, normalize, sample, byte):  # type: ignore[no-untyped-def]
    """out = base + scale · Σ δ / Σ w over the experts whose kept δ = w (x - base) has the sign of Σ δ.

    `address` (K + 2, T): base, experts, output. `masks` (P, T): addresses of planes of bytes, bit k % 8 of plane k // 8
    set where expert k's entry is kept, 0 where all are. `weight` (T, K), `scale` (T,). `byte`: an array of uint8.
    """
    experts, tensors = address.shape[0] - 2, address.shape[1]
    rows = np.empty((6, BLOCK), np.float32)
    all_kept = np.full(BLOCK, 255, np.uint8)
    for t in range(tensors):
        start, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        for i in range(start, stop, BLOCK):
            n = min(BLOCK, stop - i)
            base = rows[0]
            _load(carray(_at(address[0, t], sample), stop)[i : i + n], base)
            rows[1:] = 0
            for k in range(experts):
                w = weight[t, k]
                if w == 0:
                    continue
                plane = masks[k // 8, t]
                mask = all_kept if plane == 0 else carray(_at(plane, byte), stop)[i : i + n]
                x = carray(_at(address[k + 1, t], sample), stop)[i : i + n]
                _vote(x, base, mask, np.uint8(1 << (k % 8)), w, rows[1], rows[2], rows[3], rows[4], rows[5])
            _elected(rows[1], rows[2], rows[3], rows[4], rows[5], scale[t], normalize)
            _store_sum(base, rows[1], carray(_at(address[experts + 1, t], sample), stop)[i : i + n])


@_compiled
def count(base, expert, upper, counts):  # type: ignore[no-untyped-def]
    """Add to `counts` (65536,) the upper 16 bits of each |expert - base|; or, where these are `upper`, the lower 16."""
    for j in range(base.size):
        bits = _magnitude(_widen(expert[j]) - _widen(base[j]))
        if upper < 0:
            counts[bits >> 16] += 1
        elif bits >> 16 == upper:
            counts[bits & 0xFFFF] += 1


@_compiled
def mark(base, expert, threshold, ties, bit, plane):  # type: ignore[no-untyped-def]
    """Write `bit` of `plane`: |expert - base| above `threshold`, or one of the first `ties` that equal it."""
    one, rest = np.uint8(1 << bit), np.uint8(255 ^ (1 << bit))
    for j in range(base.size):
        bits = _magnitude(_widen(expert[j]) - _widen(base[j]))
        kept = bits > threshold
        if bits == threshold and ties > 0:
            kept = True
            ties -= 1
        plane[j] = (plane[j] & rest) | (one if kept else np.uint8(0))
