"""Sums of squared changes over the entries that a window keeps, the same to the bit on every path.

Squares are added in blocks of 512 entries by halves (entry j and j + 256, then j and j + 128, ...), and the sums of the
blocks in float64, in order.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.passes import chunked
from mergesearch.operators.passes.chunked import Window, chunks, inside, open_window, spread_bits, wide
from mergesearch.operators.passes.stream import Stream, offsets

_BLOCK = 512  # as in the compiled loops


def squares(stream: Stream, names: Sequence[str], windows: Mapping[str, Window]) -> NDArray[np.float64]:
    """(len(names), K): each expert's Σ τ² over the entries whose variance of the changes is in the window (4, 1).

    A tensor without a window is summed as a whole.
    """
    found = np.zeros((len(names), stream.models - 1))
    bases = [stream.flat(0, name) for name in names]

    def torch_pass(i: int) -> None:
        found[i] = _torch_squares([stream.flat(m, names[i]) for m in range(stream.models)], windows.get(names[i]))

    def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
        from mergesearch.operators.passes import compiled_sce

        chosen, outs = [names[i] for i in rows], [bases[i] for i in rows]
        address, offset = stream.addresses(chosen, outs), offsets(outs)
        window = np.stack([windows.get(name, open_window(1)) for name in chosen])
        selects = np.array([name in windows for name in chosen])
        first = np.cumsum([0, *(-(-out.numel() // _BLOCK) for out in outs)], dtype=np.int64)
        sums = np.zeros((int(first[-1]), found.shape[1]), np.float32)
        stream.split(
            offset,
            lambda a, b: compiled_sce.squares(address, window, selects, first, offset, a, b, sample, sums),
        )
        for t, i in enumerate(rows):
            found[i] = _total(sums[first[t] : first[t + 1]])

    stream.run(bases, torch_pass, compiled_pass)
    return found


def _torch_squares(models: Sequence[torch.Tensor], window: Window | None) -> NDArray[np.float64]:
    """(K,): as `squares`, for one tensor; models base first."""
    base, *experts = models
    dtype = wide(base.dtype)
    size = max(chunked.CHUNK.get(base.device.type, chunked.CHUNK["cuda"]) // _BLOCK, 1) * _BLOCK
    parts = [np.zeros((0, len(experts)), np.float64 if dtype == torch.float64 else np.float32)]
    for part in chunks(base.numel(), base.device, size):
        dropped = None
        if window is not None:
            dropped = ~inside(spread_bits(base[part], [x[part] for x in experts]), window, 0, part)
        columns = []
        for x in experts:
            delta = x[part].to(dtype) - base[part].to(dtype)
            square = delta.mul_(delta)
            if dropped is not None:
                square.masked_fill_(dropped, 0)
            rows = torch.nn.functional.pad(square, (0, -len(square) % _BLOCK)).view(-1, _BLOCK)
            half = _BLOCK // 2
            while half > 0:
                rows = rows[:, :half] + rows[:, half : 2 * half]
                half //= 2
            columns.append(rows[:, 0])
        parts.append(torch.stack(columns, dim=1).cpu().numpy())
    return _total(np.concatenate(parts))


def _total(sums: NDArray[Any]) -> NDArray[np.float64]:
    """(K,): over the blocks (blocks, K)."""
    total: NDArray[np.float64] = np.ascontiguousarray(sums.T).astype(np.float64).sum(axis=1)
    return total
