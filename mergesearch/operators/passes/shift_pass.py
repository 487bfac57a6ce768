"""The streaming pass of DOGE: a sum of kept changes, each shifted by one common correction.

Plain torch here, the same bits in `compiled_shift.py`; see `chunked.py` for how such a pass is written.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.base import Tensors
from mergesearch.operators.passes.chunked import chunks, wide
from mergesearch.operators.passes.stream import Stream, Weights, offsets, plane_addresses, row_weights

_BYTE, _FLOAT32 = np.zeros(0, np.uint8), np.zeros(0, np.float32)


def shifted_sum(
    stream: Stream,
    names: Sequence[str],
    weights: Weights,
    masks: Mapping[str, torch.Tensor],
    shifts: Mapping[str, torch.Tensor],
    into: Tensors,
) -> None:
    """out = base + Σ w m (x - base + shift); model 0 is the base. A weight of 0 is not read.

    `weights` (len(names), experts). `masks[name]`: uint8 (planes, N), bit k % 8 of plane k // 8 set where expert k
    keeps the entry. `shifts[name]`: (N,), float32 (float64 for a float64 tensor).
    """
    weights32 = weights.astype(np.float32)
    outs = [stream.out(name, into) for name in names]

    def torch_pass(i: int) -> None:
        models = [stream.flat(m, names[i]) for m in range(weights.shape[1] + 1)]
        _shifted_sum(models, row_weights(outs[i], weights, weights32, i), masks[names[i]], shifts[names[i]], outs[i])

    def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
        from mergesearch.operators.passes import compiled_shift

        address = stream.addresses([names[i] for i in rows], [outs[i] for i in rows])
        planes = plane_addresses([masks[names[i]] for i in rows], weights.shape[1])
        shift = np.array([shifts[names[i]].data_ptr() for i in rows], dtype=np.int64)
        offset, weight, work = offsets([outs[i] for i in rows]), weights32[rows], compiled_shift.shifted_sum
        stream.split(offset, lambda a, b: work(address, planes, shift, weight, offset, a, b, sample, _BYTE, _FLOAT32))

    stream.run(outs, torch_pass, compiled_pass)
    stream.copy_back(names, outs, into)


def _shifted_sum(
    models: Sequence[torch.Tensor], weights: Sequence[float], mask: torch.Tensor, shift: torch.Tensor, out: torch.Tensor
) -> None:
    dtype = wide(out.dtype)
    for part in chunks(out.numel(), out.device):
        centre = models[0][part].to(dtype)
        total: torch.Tensor | None = None
        for k, (x, weight) in enumerate(zip(models[1:], weights, strict=True)):
            if weight == 0:
                continue
            change = x[part].to(dtype, copy=True).sub_(centre).add_(shift[part]).mul_(weight)
            change.masked_fill_((mask[k // 8, part] & (1 << (k % 8))) == 0, 0)
            total = change if total is None else total.add_(change)
        out[part].copy_(centre if total is None else total.add_(centre))
