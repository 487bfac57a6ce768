"""The compiled loop of `row_ranks.py`; see `compiled_sums.py` for how it is written."""

import numpy as np

from mergesearch.operators.passes.compiled_sums import _widen
from mergesearch.operators.passes.compiling import compiled


@compiled
def rank_rows(base, expert, width, ranks):  # type: ignore[no-untyped-def]
    """Write the rank of each |expert - base| in its row of `width`, from 0, ascending, of equals the first first.

    A radix sort of the bits of the magnitudes, a byte at a time.
    """
    bits, other = np.empty(width, np.uint32), np.empty(width, np.uint32)
    order, spare = np.empty(width, np.int32), np.empty(width, np.int32)
    where = np.empty((4, 257), np.int64)
    delta = np.empty(1, np.float32)
    word = delta.view(np.uint32)
    for start in range(0, base.size, width):
        where[:] = 0
        for i in range(width):
            delta[0] = abs(_widen(expert[start + i]) - _widen(base[start + i]))
            bits[i], order[i] = word[0], i
            for digit in range(4):
                where[digit, (word[0] >> np.uint32(8 * digit) & np.uint32(255)) + 1] += 1
        for digit in range(4):
            shift, table = np.uint32(8 * digit), where[digit]
            if table.max() == width:  # one digit for all
                continue
            for value in range(256):
                table[value + 1] += table[value]
            for i in range(width):
                value = bits[i] >> shift & np.uint32(255)
                place = table[value]
                table[value] = place + 1
                other[place], spare[place] = bits[i], order[i]
            bits, other, order, spare = other, bits, spare, order
        for i in range(width):
            ranks[start + order[i]] = i
