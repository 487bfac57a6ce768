"""The rank of each change among those of its row, by magnitude: 0 for the smallest, of equals the first first.

A row runs over a tensor's last dimension; a vector is one row. Equal magnitudes are common in bfloat16, so the order is
that of a stable sort, on any device.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.passes.chunked import CHUNK, wide
from mergesearch.operators.passes.stream import Stream

_UINT16 = 1 << 16
"""Rows up to this long have ranks that fit 16 bits."""
_PART = 1 << 20
"""Entries that a thread ranks in one go, in whole rows."""


def row_length(shape: Sequence[int]) -> int:
    """Entries in a row of a tensor of that shape."""
    return int(shape[-1]) if len(shape) else 1


def rank_bytes(shape: Sequence[int]) -> int:
    """Bytes of the rank of one entry."""
    return 2 if row_length(shape) <= _UINT16 else 4


def row_ranks(stream: Stream, shapes: Mapping[str, Sequence[int]], experts: int) -> dict[str, torch.Tensor]:
    """Ranks (K, N) of the changes of each expert from model 0 of `stream`, uint16 where rows allow it, else int32."""
    found: dict[str, torch.Tensor] = {}
    parts = []
    for name in stream.names:
        base, width = stream.flat(0, name), row_length(shapes[name])
        dtype = torch.uint16 if rank_bytes(shapes[name]) == 2 else torch.int32
        found[name] = torch.empty((experts, base.numel()), dtype=dtype, device=base.device)
        if base.numel() == 0:
            continue
        compiled = stream.compiled and base.dtype in (torch.bfloat16, torch.float32)
        size = max(1, (_PART if compiled else CHUNK.get(base.device.type, CHUNK["cuda"])) // width) * width
        for begin in range(0, base.numel(), size):
            part = slice(begin, begin + size)
            parts += [(base[part], stream.flat(k + 1, name)[part], width, found[name][k, part], compiled)
                      for k in range(experts)]  # fmt: skip
    with ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="mergesearch-rank") as threads:
        list(threads.map(lambda part: _rank(*part), parts))
    return found


def _rank(base: torch.Tensor, expert: torch.Tensor, width: int, ranks: torch.Tensor, compiled: bool) -> None:
    """Write the ranks of whole rows."""
    if compiled:
        from mergesearch.operators.passes import compiled_row_ranks

        compiled_row_ranks.rank_rows(_array(base), _array(expert), width, _array(ranks))
        return
    dtype = wide(base.dtype)
    size = expert.to(dtype, copy=True).sub_(base.to(dtype)).abs_().view(-1, width)  # (rows, width)
    order = size.argsort(dim=1, stable=True)
    place = torch.arange(width, device=base.device).expand_as(order)
    ranks.view(-1, width).copy_(torch.empty_like(order).scatter_(1, order, place))


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    """A CPU tensor as the compiled loops take it: bfloat16 as its bits."""
    array: NDArray[Any] = np.asarray((tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy())
    return array
