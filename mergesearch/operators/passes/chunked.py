"""The streaming passes in plain torch, one tensor at a time: any device, any float dtype.

The reference for `compiled_sums.py`, which gives the same bits faster for large CPU tensors. A chunk is up-cast to
float32 (float64 for float64 tensors), combined, and rounded once. Products and sums are separate steps: a fused
multiply-add would round differently on different machines.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Window: TypeAlias = NDArray[np.int64]
"""(4, K): for each expert the lower edge (bits, last) and the upper one. An entry is kept if it is above the lower and
not above the upper: above an edge are greater magnitudes, and of those equal to it the entries up to `last`."""

CHUNK = {"cpu": 1 << 16, "cuda": 1 << 24}
"""Elements per step: on a CPU a few float32 rows of it fit the second-level cache, on a GPU a launch is worth it."""


@dataclass(frozen=True)
class Rule:
    """How an election goes. `zero_is_positive`: a balance of exactly 0 elects +, not -. `floor`: a sum of the agreeing
    weights up to it (in magnitude) counts as 1; infinity: no division. `spreads`: the window has one column, for the
    variance of the changes, and keeps an entry of all experts or of none."""

    zero_is_positive: bool = True
    floor: float = 0.0
    spreads: bool = False


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
    votes: Sequence[float],
    weights: Sequence[float],
    scale: float,
    window: Window | None,
    rule: Rule,
    out: torch.Tensor,
) -> None:
    """out = base + scale · Σ δ / Σ w over the experts whose kept δ = w (x - base) has the sign of Σ vote (x - base).

    (N,) tensors. `window`: which magnitudes are kept, None: all. A Σ w that is not above `rule.floor` counts as 1.
    """
    dtype = wide(out.dtype)
    for part in chunks(out.numel(), out.device):
        centre = base[part].to(dtype)
        marked = None
        if rule.spreads and window is not None:
            marked = inside(spread_bits(base[part], [x[part] for x in experts]), window, 0, part)
        balance, total, divisor = (torch.zeros_like(centre) for _ in range(3))
        changes = []
        for k, (x, vote, weight) in enumerate(zip(experts, votes, weights, strict=True)):
            if weight == 0 and vote == 0:
                continue
            delta = x[part].to(dtype, copy=True).sub_(centre)
            if marked is not None:
                delta.masked_fill_(~marked, 0)
            elif window is not None:
                delta.masked_fill_(~inside(magnitude_bits(base[part], x[part]), window, k, part), 0)
            balance.add_(delta * vote)  # in the order of the experts: opposite changes must cancel to exactly 0
            changes.append((delta.mul_(weight), weight))
        up = balance >= 0 if rule.zero_is_positive else balance > 0
        for delta, weight in changes:
            agree = torch.where(up, delta > 0, delta < 0)
            total.add_(delta.masked_fill_(~agree, 0))
            divisor.add_(agree.to(dtype).mul_(weight))
        total.div_(divisor.masked_fill_(divisor.abs() <= rule.floor, 1))
        out[part].copy_(total.mul_(scale).add_(centre))


def open_window(columns: int) -> Window:
    """A window that keeps every magnitude."""
    return np.array([[-1], [-1], [0x7FFFFFFF], [-1]], dtype=np.int64).repeat(columns, axis=1)


def inside(bits: torch.Tensor, window: Window, column: int, part: slice) -> torch.Tensor:
    """Which entries of a chunk are in a column of the window."""
    low, low_last, high, high_last = window[:, column].tolist()
    return above(bits, low, low_last, part) & ~above(bits, high, high_last, part)


def above(bits: torch.Tensor, edge: int, last: int, part: slice) -> torch.Tensor:
    """Which entries are above an edge: greater, or equal and not after the entry `last`."""
    if part.stop <= last + 1:
        return bits >= edge
    found = bits > edge
    if part.start <= last:
        found[: last + 1 - part.start] |= bits[: last + 1 - part.start] == edge
    return found


def magnitude_bits(base: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
    """Bits of |expert - base| in float32, as int32: they order like the magnitudes."""
    return (expert.float() - base.float()).abs_().view(torch.int32)


def spread_bits(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Bits of the variance of the experts' changes, times their number, in float32, as int32."""
    dtype = wide(base.dtype)
    centre = base.to(dtype)
    mean, total = torch.zeros_like(centre), torch.zeros_like(centre)
    for x in experts:
        mean.add_(x.to(dtype, copy=True).sub_(centre))
    mean.div_(len(experts))
    for x in experts:
        distance = x.to(dtype, copy=True).sub_(centre).sub_(mean)
        total.add_(distance.mul_(distance))
    return total.float().abs_().view(torch.int32)  # of NaN, too, the sign says nothing


def masked_sum(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    weights: Sequence[float],
    alone: Sequence[float],
    masks: torch.Tensor | None,
    average: bool,
    out: torch.Tensor,
) -> None:
    """out = base + Σ w (x - base) over the experts that keep an entry; (N,) tensors.

    `masks`: uint8 (P, N), bit k % 8 of row k // 8 set where expert k keeps an entry; None: all do. Where one expert
    alone does, its weight is that of `alone`. `average`: the sum is divided by how many do.
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


def windowed_sum(
    base: torch.Tensor, experts: Sequence[torch.Tensor], weights: Sequence[float], window: Window, out: torch.Tensor
) -> None:
    """out = base + Σ w (x - base) over the experts whose change is in the window; (N,) tensors."""
    dtype = wide(out.dtype)
    for part in chunks(out.numel(), out.device):
        centre = base[part].to(dtype)
        total = torch.zeros_like(centre)
        for delta, weight in zip(trimmed(base, experts, weights, window, part), weights, strict=True):
            if delta is not None:
                total.add_(delta.mul_(weight))
        out[part].copy_(total.add_(centre))


def majority(base: torch.Tensor, experts: Sequence[torch.Tensor], window: Window) -> int:
    """Of how many entries the kept changes have a sum above 0, less of how many they have one below."""
    found = 0
    for part in chunks(base.numel(), base.device):
        total = torch.zeros_like(base[part], dtype=wide(base.dtype))
        for delta in trimmed(base, experts, [1.0] * len(experts), window, part):
            assert delta is not None
            total.add_(delta)
        found += int((total > 0).sum()) - int((total < 0).sum())
    return found


def trimmed(
    base: torch.Tensor, experts: Sequence[torch.Tensor], weights: Sequence[float], window: Window, part: slice
) -> Iterator[torch.Tensor | None]:
    """Each expert's change of a chunk, 0 where it is not in the window; None where its weight is 0."""
    centre = base[part].to(wide(base.dtype))
    for k, (x, weight) in enumerate(zip(experts, weights, strict=True)):
        if weight == 0:
            yield None
            continue
        delta = x[part].to(centre.dtype, copy=True).sub_(centre)
        yield delta.masked_fill_(~inside(magnitude_bits(base[part], x[part]), window, k, part), 0)


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
