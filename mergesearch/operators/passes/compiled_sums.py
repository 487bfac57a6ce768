"""The streaming passes of `chunked.py` as compiled loops over bfloat16 and float32 tensors in CPU memory.

Plain torch needs about a dozen sweeps over a chunk where these loops need one per model, so they run at the speed of
memory (see benchmarks/operators.py). They take the same steps in the same order, each rounded to float32 and never
fused into a multiply-add, so that they give the same bits as `chunked.py`. Imported only when a large model is built:
loading numba and compiling take seconds, which a small model does not earn back.

Tensors are passed as addresses: `address[m, t]` of tensor t in model m, 0 where it is not read. A loop covers elements
`begin` to `end` of all tensors laid end to end, `offset[t]` being where tensor t begins.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from mergesearch.operators.passes.compiling import compiled

BLOCK = 512
"""Elements per step. Six float32 scratch rows of it stay in the first-level cache of any CPU (12 kB of 32)."""


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


@compiled
def _load(x, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] = _widen(x[j])


@compiled
def _store(row, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] = _narrow(row[j], out)


@compiled
def _store_sum(base, row, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] = _narrow(base[j] + row[j], out)


@compiled
def _scaled(x, weight, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] = weight * _widen(x[j])


@compiled
def _add_scaled(x, weight, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] += weight * _widen(x[j])


@compiled
def _scaled_delta(x, base, weight, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] = weight * (_widen(x[j]) - base[j])


@compiled
def _add_scaled_delta(x, base, weight, row):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        row[j] += weight * (_widen(x[j]) - base[j])


@compiled
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


@compiled
def count(base, expert, upper, counts):  # type: ignore[no-untyped-def]
    """Add to `counts` (65536,) the upper 16 bits of each |expert - base|; or, where these are `upper`, the lower 16."""
    for j in range(base.size):
        bits = _magnitude(_widen(expert[j]) - _widen(base[j]))
        if upper < 0:
            counts[bits >> 16] += 1
        elif bits >> 16 == upper:
            counts[bits & 0xFFFF] += 1


@compiled
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


@compiled
def component_sum(address, first, component, weight, offset, begin, end, sample, wide):  # type: ignore[no-untyped-def]
    """out = base + Σ w c; a weight of 0 is not read.

    `address` (2, T): base, output. Tensor t has the components `first[t]` to `first[t + 1]` of `component`, addresses
    of float32 (`wide`: an array of these), and of `weight`.
    """
    tensors = address.shape[1]
    row = np.empty(BLOCK, np.float32)
    for t in range(tensors):
        start, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        for i in range(start, stop, BLOCK):
            n = min(BLOCK, stop - i)
            _load(carray(_at(address[0, t], sample), stop)[i : i + n], row)
            for c in range(first[t], first[t + 1]):
                if weight[c] != 0:
                    _add_scaled(carray(_at(component[c], wide), stop)[i : i + n], weight[c], row)
            _store(row, carray(_at(address[1, t], sample), stop)[i : i + n])
