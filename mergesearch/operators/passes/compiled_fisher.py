"""The pass of `fisher.py` as a compiled loop; see `compiled_sums.py`, whose conventions hold here."""

import numpy as np
from numba import carray

from mergesearch.operators.passes.compiled_sums import BLOCK, _at, _load, _store_sum, _widen
from mergesearch.operators.passes.compiling import compiled


@compiled
def _weigh(x, fisher, base, weight, inverse, epsilon, change, mass):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        each = (fisher[j] * inverse + epsilon) * weight
        mass[j] += each
        change[j] += each * (_widen(x[j]) - base[j])


@compiled
def _divide(change, mass, scale):  # type: ignore[no-untyped-def]
    for j in range(change.size):
        change[j] = change[j] / mass[j] * scale


@compiled
def fisher_sum(address, fisher, numbers, epsilon, offset, begin, end, sample, real):  # type: ignore[no-untyped-def]
    """out = base + scale · Σ e (x - base) / Σ e with e = w (F · inverse + ε).

    `address` (K + 2, T): base, experts, output. `fisher` (K, T): addresses of float32. `numbers` (T, K + 2): the
    weights, of which one of 0 is not read, then inverse and scale. `real`: an array of float32.
    """
    experts, tensors = fisher.shape
    base, change, mass = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for t in range(tensors):
        start, stop = max(begin, offset[t]) - offset[t], min(end, offset[t + 1]) - offset[t]
        for i in range(start, stop, BLOCK):
            n = min(BLOCK, stop - i)
            _load(carray(_at(address[0, t], sample), stop)[i : i + n], base)
            change[:n] = 0
            mass[:n] = 0
            for k in range(experts):
                if numbers[t, k] == 0:
                    continue
                x = carray(_at(address[k + 1, t], sample), stop)[i : i + n]
                given = carray(_at(fisher[k, t], real), stop)[i : i + n]
                _weigh(x, given, base, numbers[t, k], numbers[t, experts], epsilon, change, mass)
            _divide(change[:n], mass, numbers[t, experts + 1])
            _store_sum(base, change, carray(_at(address[experts + 1, t], sample), stop)[i : i + n])
