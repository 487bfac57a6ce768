"""The streaming passes in plain torch, one tensor at a time: any device, any float dtype.

The reference for `_compiled.py`, which gives the same bits faster for large CPU tensors. A chunk is up-cast to float32
(float64 for float64 tensors), combined, and rounded once. Products and sums are separate steps: a fused multiply-add
would round differently on different machines.
"""

from collections.abc import Iterator, Sequence

import torch

CHUNK = {"cpu": 1 << 16, "cuda": 1 << 24}
"""Elements per step: on a CPU a few float32 rows of it fit the second-level cache, on a GPU a launch is worth it."""


def chunks(numel: int, device: torch.device, size: int | None = None) -> Iterator[slice]:
    """Consecutive slices that cover `numel` elements, of `size` elements or of what suits the device."""
    size = size or CHUNK.get(device.type, CHUNK["cuda"])
    for start in range(0, numel, size):
        yield slice(start, min(start + size, numel))


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def weighted_sum(models: Sequence[torch.Tensor], weights: Sequence[float], out: torch.Tensor, centred: bool) -> None:
    """out = Σ w x, or base + Σ w (x - base) if `centred`, for flat tensors of one shape (N,).

    `models` begins with the base if centred, whose weight is then ignored. A weight of 0 is not read: the result is
    that of the other models, to the bit.
    """
    first = 1 if centred else 0
    used = [(x, w) for x, w in zip(models[first:], weights[first:], strict=True) if w != 0]
    dtype = wide(out.dtype)
    for part in chunks(out.numel(), out.device):
        base = models[0][part].to(dtype) if centred else None
        total: torch.Tensor | None = None
        for x, weight in used:
            term = x[part].to(dtype, copy=True)
            if base is not None:
                term.sub_(base)
            term.mul_(weight)
            total = term if total is None else total.add_(term)
        if total is None:
            out[part] = 0 if base is None else base
        else:
            out[part].copy_(total if base is None else total.add_(base))


def elect(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    weights: Sequence[float],
    scale: float,
    masks: torch.Tensor | None,
    normalize: bool,
    out: torch.Tensor,
) -> None:
    """out = base + scale · Σ δ / Σ w over the experts whose kept δ = w (x - base) has the sign of Σ δ; (N,) tensors.

    Σ δ of exactly 0 counts as positive. `masks`: uint8 (P, N), bit k % 8 of row k // 8 set where expert k's entry is
    kept; None: all are. Without `normalize`, or where Σ w is 0, the divisor is 1.
    """
    dtype = wide(out.dtype)
    for part in chunks(out.numel(), out.device):
        centre = base[part].to(dtype)
        balance, above, above_weight, below, below_weight = (torch.zeros_like(centre) for _ in range(5))
        for k, (x, weight) in enumerate(zip(experts, weights, strict=True)):
            if weight == 0:
                continue
            delta = x[part].to(dtype, copy=True).sub_(centre).mul_(weight)
            if masks is not None:
                delta.masked_fill_(masks[k // 8, part].bitwise_and(1 << (k % 8)) == 0, 0)
            balance.add_(delta)  # in the order of the experts: opposite changes must cancel to exactly 0
            for sign, total, total_weight in ((delta > 0, above, above_weight), (delta < 0, below, below_weight)):
                total.add_(delta * sign)
                total_weight.add_(sign.to(dtype).mul_(weight))
        up = balance >= 0
        total = torch.where(up, above, below)
        if normalize:
            divisor = torch.where(up, above_weight, below_weight)
            total.div_(divisor.masked_fill_(divisor == 0, 1))
        out[part].copy_(total.mul_(scale).add_(centre))


def masked_sum(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    weights: Sequence[float],
    alone: Sequence[float],
    masks: torch.Tensor | None,
    average: bool,
    out: torch.Tensor,
) -> None:
    """out = base + Σ w (x - base) over the experts that keep an entry; (N,) tensors, masks as in `elect`.

    Where one expert alone keeps it, its weight is that of `alone`. `average`: the sum is divided by how many keep it.
    """
    dtype = wide(out.dtype)
    for part in chunks(out.numel(), out.device):
        centre = base[part].to(dtype)
        kept = [
            torch.ones_like(centre) if masks is None else (masks[k // 8, part] >> (k % 8)).bitwise_and(1).to(dtype)
            for k in range(len(experts))
        ]
        count = torch.stack(kept).sum(dim=0)
        total = torch.zeros_like(centre)
        for x, weight, single, keep in zip(experts, weights, alone, kept, strict=True):
            if weight == 0 and single == 0:
                continue
            delta = x[part].to(dtype, copy=True).sub_(centre)
            factor = torch.where(count == 1, torch.full_like(centre, single), torch.full_like(centre, weight))
            total.add_(delta.mul_(factor).mul_(keep))
        if average:
            total.div_(count.clamp_(min=1))
        out[part].copy_(total.add_(centre))


def component_sum(
    base: torch.Tensor, components: Sequence[torch.Tensor], weights: Sequence[float], out: torch.Tensor
) -> None:
    """out = base + Σ w c for flat tensors (N,); a weight of 0 is not read."""
    dtype = wide(out.dtype)
    for part in chunks(out.numel(), out.device):
        total = base[part].to(dtype)
        for component, weight in zip(components, weights, strict=True):
            if weight != 0:
                total = total + component[part].to(dtype) * weight
        out[part].copy_(total)
