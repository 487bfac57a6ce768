"""The streaming pass of compressed changes: a sum of signs, of which a byte per entry holds those of 4 or 8 experts.

Plain torch here, the same bits in `compiled_signs.py`; see `chunked.py` for how such a pass is written.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.base import Tensors
from mergesearch.operators.passes.chunked import chunks, wide
from mergesearch.operators.passes.stream import Stream, Weights, offsets, row_weights

_BYTE = np.zeros(0, np.uint8)


def level_table(weights: Sequence[float], bits: int, dtype: torch.dtype) -> torch.Tensor:
    """(planes, 256): for each byte Σ_k of the levels that it holds, a level of nothing being -0.0.

    With 1 bit the levels of expert k are -w_k and w_k; with 2 the lower bit says whether there is a change, the upper
    whether it is -w_k or w_k. Expert k is in plane k // per at bit `bits` · (k % per), per = 8 / bits. -0.0 leaves any
    number as it is, to the bit.
    """
    per = 8 // bits
    table = torch.full((-(-len(weights) // per), 256), -0.0, dtype=dtype)
    byte = torch.arange(256)
    for k, weight in enumerate(weights):
        if weight != 0:
            code = byte >> (bits * (k % per))
            level = torch.full((256,), weight, dtype=dtype)
            if bits == 1:
                table[k // per] += torch.where((code & 1) != 0, level, -level)
            else:
                signed = torch.where((code & 2) != 0, -level, level)
                table[k // per] += signed.masked_fill_((code & 1) == 0, -0.0)
    return table


def coded_sum(
    stream: Stream,
    names: Sequence[str],
    codes: Mapping[str, torch.Tensor],
    weights: Weights,
    bits: int,
    into: Tensors,
) -> None:
    """out = base + Σ_k w_k · (what the code of expert k stands for); model 0 is the base.

    `codes[name]`: uint8 (planes, N), as in `level_table`. `weights` (len(names), experts). `bits`: 1 or 2.
    """
    weights32 = weights.astype(np.float32)
    outs = [stream.out(name, into) for name in names]

    def torch_pass(i: int) -> None:
        table = level_table(row_weights(outs[i], weights, weights32, i), bits, wide(outs[i].dtype))
        _coded_sum(stream.flat(0, names[i]), codes[names[i]], table.to(outs[i].device), outs[i])

    def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
        from mergesearch.operators.passes import compiled_signs

        address = stream.addresses([names[i] for i in rows], [outs[i] for i in rows])[[0, -1]]
        code = np.array([[plane.data_ptr() for plane in codes[names[i]]] for i in rows], dtype=np.int64)
        high = np.full((len(rows), -(-weights.shape[1] // 4) * 4), -0.0, dtype=np.float32)  # of nothing: -0.0
        low = high.copy()
        used = np.nonzero(weights32[rows])
        high[used], low[used] = weights32[rows][used], -weights32[rows][used]
        offset, work = offsets([outs[i] for i in rows]), compiled_signs.coded_sum
        stream.split(offset, lambda a, b: work(address, code, bits, low, high, offset, a, b, sample, _BYTE))

    stream.run(outs, torch_pass, compiled_pass)
    stream.copy_back(names, outs, into)


def _coded_sum(base: torch.Tensor, codes: torch.Tensor, table: torch.Tensor, out: torch.Tensor) -> None:
    dtype = wide(out.dtype)
    for part in chunks(out.numel(), out.device):
        total = table[0][codes[0, part].int()]
        for plane in range(1, len(table)):  # not more than one sum per plane: those of its experts are in the table
            total.add_(table[plane][codes[plane, part].int()])
        out[part].copy_(total.add_(base[part].to(dtype)))
