"""Streaming passes that treat every entry by its own size, and the sum of changes that are nonzero in few entries.

Plain torch here, the same bits in `compiled_entrywise.py`; see `chunked.py` for how such a pass is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.base import Tensors
from mergesearch.operators.passes.chunked import chunks, wide
from mergesearch.operators.passes.stream import Stream, Weights, offsets, row_weights

_INT32, _FLOAT32 = np.zeros(0, np.int32), np.zeros(0, np.float32)


@dataclass(frozen=True)
class Few:
    """The nonzero entries of a change of one tensor: where they are, int32 (n,) ascending, and what they are (n,)."""

    where: torch.Tensor
    value: torch.Tensor  # float32, or float64 for a float64 tensor


def largest_change(
    stream: Stream, names: Sequence[str], weights: Weights, scale: NDArray[np.float64], into: Tensors
) -> None:
    """out = base + scale · δ, in each entry the δ = w (x - base) of largest magnitude; of equal ones the last.

    Model 0 is the base. `weights` (len(names), experts), `scale` (len(names),). A weight of 0 is not read.
    """
    weights32, scale32 = weights.astype(np.float32), scale.astype(np.float32)
    outs = [stream.out(name, into) for name in names]

    def torch_pass(i: int) -> None:
        models = [stream.flat(m, names[i]) for m in range(weights.shape[1] + 1)]
        weight, factor = row_weights(outs[i], weights, weights32, i), row_weights(outs[i], scale, scale32, i)
        _largest_change(models[0], models[1:], weight, factor, outs[i])

    def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
        from mergesearch.operators.passes import compiled_entrywise

        address = stream.addresses([names[i] for i in rows], [outs[i] for i in rows])
        offset, weight, factor = offsets([outs[i] for i in rows]), weights32[rows], scale32[rows]
        work = compiled_entrywise.largest_change
        stream.split(offset, lambda a, b: work(address, weight, factor, offset, a, b, sample))

    stream.run(outs, torch_pass, compiled_pass)
    stream.copy_back(names, outs, into)


def limited_change(
    stream: Stream, names: Sequence[str], limit: NDArray[np.float64], scale: NDArray[np.float64], into: Tensors
) -> None:
    """out = base + scale · min(max(x - base, -limit), limit); model 0 is the base, model 1 is x.

    `limit` and `scale` (len(names),); `limit` at least 0.
    """
    limit32, scale32 = limit.astype(np.float32), scale.astype(np.float32)
    outs = [stream.out(name, into) for name in names]

    def torch_pass(i: int) -> None:
        most, factor = row_weights(outs[i], limit, limit32, i), row_weights(outs[i], scale, scale32, i)
        base, x, dtype = stream.flat(0, names[i]), stream.flat(1, names[i]), wide(outs[i].dtype)
        for part in chunks(base.numel(), base.device):
            centre = base[part].to(dtype)
            delta = x[part].to(dtype, copy=True).sub_(centre).clamp_(-most, most)
            outs[i][part].copy_(delta.mul_(factor).add_(centre))

    def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
        from mergesearch.operators.passes import compiled_entrywise

        address = stream.addresses([names[i] for i in rows], [outs[i] for i in rows])
        offset, most, factor = offsets([outs[i] for i in rows]), limit32[rows], scale32[rows]
        work = compiled_entrywise.limited_change
        stream.split(offset, lambda a, b: work(address, most, factor, offset, a, b, sample))

    stream.run(outs, torch_pass, compiled_pass)
    stream.copy_back(names, outs, into)


def few_sum(
    stream: Stream, names: Sequence[str], changes: Mapping[str, Sequence[Few]], weights: Weights, into: Tensors
) -> None:
    """out = base + Σ w · change; model 0 is the base.

    `changes[name]`: one for each column of `weights` (len(names), changes). A weight of 0 is not read.
    """
    weights32 = weights.astype(np.float32)
    outs = [stream.out(name, into) for name in names]

    def torch_pass(i: int) -> None:
        weight = row_weights(outs[i], weights, weights32, i)
        _few_sum(stream.flat(0, names[i]), changes[names[i]], weight, outs[i])

    def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
        from mergesearch.operators.passes import compiled_entrywise

        address = stream.addresses([names[i] for i in rows], [outs[i] for i in rows])[[0, -1]]
        table = [[(c.where.data_ptr(), c.value.data_ptr(), c.where.numel()) for c in changes[names[i]]] for i in rows]
        few = np.array(table, dtype=np.int64).reshape(len(rows), -1, 3)
        offset, weight = offsets([outs[i] for i in rows]), weights32[rows]
        work = compiled_entrywise.few_sum
        stream.split(offset, lambda a, b: work(address, few, weight, offset, a, b, sample, _INT32, _FLOAT32))

    stream.run(outs, torch_pass, compiled_pass)
    stream.copy_back(names, outs, into)


def _largest_change(
    base: torch.Tensor, experts: Sequence[torch.Tensor], weights: Sequence[float], scale: float, out: torch.Tensor
) -> None:
    dtype = wide(out.dtype)
    for part in chunks(out.numel(), out.device):
        centre = base[part].to(dtype)
        best = torch.zeros_like(centre)
        for x, weight in zip(experts, weights, strict=True):
            if weight != 0:
                delta = x[part].to(dtype, copy=True).sub_(centre).mul_(weight)
                best = torch.where(delta.abs() >= best.abs(), delta, best)
        out[part].copy_(best.mul_(scale).add_(centre))


def _few_sum(base: torch.Tensor, changes: Sequence[Few], weights: Sequence[float], out: torch.Tensor) -> None:
    dtype = wide(out.dtype)
    parts = list(chunks(out.numel(), out.device))
    starts = torch.tensor([part.start for part in parts] + [out.numel()], dtype=torch.int32, device=out.device)
    bounds = [torch.searchsorted(change.where, starts).tolist() for change in changes]
    for i, part in enumerate(parts):
        centre = base[part].to(dtype)
        total = torch.zeros_like(centre)
        for change, weight, bound in zip(changes, weights, bounds, strict=True):
            if weight != 0:
                some = slice(bound[i], bound[i + 1])  # no place twice, so the order of adding is fixed on a GPU too
                total.index_add_(0, change.where[some] - part.start, change.value[some] * weight)
        out[part].copy_(total.add_(centre))
