"""Passes over the changes that a window keeps (`chunked.Window`): weighted sum, and the majority of the signs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.base import Tensors
from mergesearch.operators.passes import chunked
from mergesearch.operators.passes.chunked import Window, chunks
from mergesearch.operators.passes.slopes import Parts
from mergesearch.operators.passes.stream import Stream, Weights, offsets, row_weights


def windowed_sum(
    stream: Stream, names: Sequence[str], weights: Weights, windows: Mapping[str, Window], into: Tensors
) -> None:
    """out = base + Σ w (x - base) over the experts whose change is in the window; model 0 of the stream is the base.

    `weights` (len(names), experts); every name has a window.
    """
    weights32 = weights.astype(np.float32)
    outs = [stream.out(name, into) for name in names]

    def torch_pass(i: int) -> None:
        base, *experts = _models(stream, names[i])
        chunked.windowed_sum(base, experts, row_weights(outs[i], weights, weights32, i), windows[names[i]], outs[i])

    def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
        from mergesearch.operators.passes import compiled_trim

        address = stream.addresses([names[i] for i in rows], [outs[i] for i in rows])
        window, weight = np.stack([windows[names[i]] for i in rows]), weights32[rows]
        offset = offsets([outs[i] for i in rows])
        stream.split(offset, lambda a, b: compiled_trim.windowed_sum(address, window, weight, offset, a, b, sample))

    stream.run(outs, torch_pass, compiled_pass)
    stream.copy_back(names, outs, into)


def majority(stream: Stream, windows: Mapping[str, Window]) -> int:
    """Of how many entries of all tensors the kept changes have a sum above 0, less of how many they have one below."""
    found: list[int] = []
    bases = [stream.flat(0, name) for name in stream.names]

    def torch_pass(i: int) -> None:
        base, *experts = _models(stream, stream.names[i])
        found.append(chunked.majority(base, experts, windows[stream.names[i]]))

    def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
        from mergesearch.operators.passes import compiled_trim

        address = stream.addresses([stream.names[i] for i in rows], [bases[i] for i in rows])
        window, offset = np.stack([windows[stream.names[i]] for i in rows]), offsets([bases[i] for i in rows])

        def count(a: int, b: int) -> None:
            found.append(compiled_trim.majority(address, window, offset, a, b, sample))

        stream.split(offset, count)

    stream.run(bases, torch_pass, compiled_pass)
    return sum(found)


def window_changes(stream: Stream, name: str, window: Window) -> Parts:
    """Each expert's change of a tensor, chunk by chunk, 0 where it is not in the window."""
    base, *experts = _models(stream, name)
    every = [1.0] * len(experts)
    for part in chunks(base.numel(), base.device):
        kept = chunked.trimmed(base, experts, every, window, part)
        yield part, enumerate(cast("Iterator[torch.Tensor]", kept))  # none is left out: no weight is 0


def _models(stream: Stream, name: str) -> list[torch.Tensor]:
    return [stream.flat(m, name) for m in range(stream.models)]
