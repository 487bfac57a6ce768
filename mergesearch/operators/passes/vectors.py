"""A weighted sum whose weights differ between the rows, or the columns, of each tensor.

In row-major order entry e of a tensor belongs to vector (e // inner) % V. In plain torch, or for large CPU models in
the compiled loops of `compiled_vectors.py`; both give the same bits.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.base import Tensors
from mergesearch.operators.passes.chunked import CHUNK, wide
from mergesearch.operators.passes.stream import Stream, offsets


@dataclass(frozen=True)
class Vectors:
    """A flat tensor seen as (rows, cols), of which each row or each column is a vector."""

    rows: int
    cols: int
    by_row: bool

    @property
    def count(self) -> int:
        """Number of vectors V."""
        return self.rows if self.by_row else self.cols

    @property
    def inner(self) -> int:
        """Neighbouring entries that belong to one vector."""
        return self.cols if self.by_row else 1


def vectors_of(shape: Sequence[int], axis: Literal["last", "first"]) -> Vectors:
    """The vectors that run along the last axis, W[i, :], or along the first, W[:, j]. A 1-D tensor is one vector."""
    numel = math.prod(shape)
    if len(shape) < 2:
        return Vectors(1, numel, by_row=True)
    if axis == "last":
        return Vectors(numel // shape[-1] if shape[-1] else 0, shape[-1], by_row=True)
    return Vectors(shape[0], numel // shape[0] if shape[0] else 0, by_row=False)


def entries_of(numel: int) -> Vectors:
    """Each entry is a vector of its own."""
    return Vectors(1, numel, by_row=False)


def blocks(rows: int, cols: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Slices of rows and columns that cover a (rows, cols) matrix in blocks of at most `size` entries."""
    width = max(1, min(cols, size))
    height = max(1, size // width)
    for row in range(0, rows, height):
        for col in range(0, cols, width):
            yield slice(row, min(row + height, rows)), slice(col, min(col + width, cols))


def vector_sum(
    stream: Stream,
    names: Sequence[str],
    vectors: Mapping[str, Vectors],
    weights: Sequence[torch.Tensor],
    into: Tensors,
    *,
    centred: bool,
) -> None:
    """out = Σ w x over all models, or base + Σ w (x - base) if `centred` (model 0 is the base, its weight unused).

    `weights[i]` (models, V): the weight of each of the V vectors of `names[i]`, float64, on its device. A model whose
    weights are all 0 in a tensor is not read there.
    """
    outs = [stream.out(name, into) for name in names]
    rounded = [w.to(wide(out.dtype)).contiguous() for w, out in zip(weights, outs, strict=True)]
    used = np.array([(w != 0).any(dim=1).tolist() for w in rounded], dtype=np.bool_).reshape(len(names), -1)
    if centred and len(names):
        used[:, 0] = False

    def torch_pass(i: int) -> None:
        models = [stream.flat(m, names[i]) for m in range(rounded[i].shape[0])]
        _torch_sum(models, vectors[names[i]], rounded[i], used[i].tolist(), outs[i], centred)

    def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
        from mergesearch.operators.passes import compiled_vectors

        shown = [outs[i] for i in rows]
        address, offset = stream.addresses([names[i] for i in rows], shown), offsets(shown)
        places = np.array([rounded[i].data_ptr() for i in rows], dtype=np.int64)
        form = np.array([(vectors[names[i]].inner, vectors[names[i]].count) for i in rows], dtype=np.int64)
        real, read = np.zeros(0, np.float32), used[rows]
        stream.split(
            offset,
            lambda a, b: compiled_vectors.vector_sum(address, places, form, read, offset, a, b, centred, sample, real),
        )

    stream.run(outs, torch_pass, compiled_pass)
    stream.copy_back(names, outs, into)


def _torch_sum(
    models: Sequence[torch.Tensor],
    vectors: Vectors,
    weights: torch.Tensor,
    used: Sequence[bool],
    out: torch.Tensor,
    centred: bool,
) -> None:
    """`vector_sum` of one tensor, all flat."""
    form, dtype = (vectors.rows, vectors.cols), wide(out.dtype)
    size = CHUNK.get(out.device.type, CHUNK["cuda"])
    for block in blocks(*form, size):
        base = models[0].view(form)[block].to(dtype) if centred else None
        place, shape = (block[0], (-1, 1)) if vectors.by_row else (block[1], (1, -1))
        total: torch.Tensor | None = None
        for x, weight, read in zip(models, weights, used, strict=True):
            if not read:
                continue
            term = x.view(form)[block].to(dtype, copy=True)
            if base is not None:
                term.sub_(base)
            term.mul_(weight[place].view(shape))
            total = term if total is None else total.add_(term)
        if total is None:
            out.view(form)[block] = 0 if base is None else base
        else:
            out.view(form)[block] = total if base is None else total.add_(base)
