"""Products of two thin factors, added to the base: what all operators on adapters share.

A float sum depends on the order of adding, and a matrix product on many threads has no fixed one. So the factors are
first rounded to a grid, each row of the left and each column of the right one to its own: a power of two under its
largest entry, fine enough that a sum of R products is exact in float64. Any order of adding then gives the same bits.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias, final

import torch

from mergesearch.checkpoints.adapter import Adapter, LowRank
from mergesearch.errors import EvaluationError, SpecError
from mergesearch.operators.algebra.one_thread import one_thread
from mergesearch.operators.base import Layout, Tensors
from mergesearch.operators.passes import chunked
from mergesearch.operators.passes.chunked import wide
from mergesearch.space import Settings

Pair: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Left (out, R) and right (R, in) factor of a change, float64."""
Factors: TypeAlias = Callable[[Settings, int, str], Pair | None]
"""(settings, row of the group, tensor name) -> the change of that tensor; None: it keeps the base's values."""

_MANTISSA = 53
_SMALLEST = -900  # exponent of the finest grid: what is smaller still is 0 beside any weight
_ROWS = 8
"""Elements of a product at once, in `CHUNK`s: a matrix product wants more of them than a weighted sum."""


@final
class Products:
    """Prepared; see `operators/base.py`. Every candidate is base + left · right, tensor by tensor, in row-chunks."""

    def __init__(self, base: Tensors, layout: Layout, factors: Factors) -> None:
        self._base, self._layout, self._factors = base, layout, factors

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        for name in names:
            write(self._base, name, self._factors(settings, self._layout.group_of[name], name), into)


def adapted(base: Tensors, adapters: Sequence[Adapter], layout: Layout) -> dict[str, list[LowRank | None]]:
    """For each tensor of the layout that some adapter names: what each of them does to it (None: nothing).

    Raises:
        SpecError: an adapter's matrix does not have the shape of the base's tensor.
    """
    found = {}
    for name in layout.group_of:
        changes = [adapter.get(name) for adapter in adapters]
        for who, change in zip(layout.experts, changes, strict=True):
            if change is not None and change.shape != tuple(base[name].shape):
                raise SpecError(
                    f"expert {who!r} changes {name!r} as a matrix {change.shape}, "
                    f"in the base it is {tuple(base[name].shape)}"
                )
        if any(change is not None for change in changes):
            found[name] = changes
    return found


def write(base: Tensors, name: str, pair: Pair | None, into: Tensors) -> None:
    """into[name] = base + left · right, rounded once; the base's own bits where `pair` is None or has no column."""
    live, centre = into[name].detach(), base[name].detach()
    check_live(name, live, centre)
    if pair is None or pair[0].shape[1] == 0 or centre.numel() == 0:
        live.copy_(centre)
        return
    left, right = pair
    exact = centre.dtype == torch.float64
    for rows in row_chunks(centre):
        change = product(left[rows], right, exact).to(wide(centre.dtype))
        live[rows].copy_(change.add_(centre[rows].to(change.dtype)))


def check_live(name: str, live: torch.Tensor, base: torch.Tensor) -> None:
    """Raises EvaluationError where a live tensor has not the base's form."""
    if live.shape != base.shape or live.dtype != base.dtype or live.device != base.device:
        raise EvaluationError(
            f"tensor {name!r} of the live model is {tuple(live.shape)} {live.dtype} on {live.device}, "
            f"its base is {tuple(base.shape)} {base.dtype} on {base.device}; load both alike"
        )


def row_chunks(like: torch.Tensor, rows: bool = True) -> list[slice]:
    """Slices of the rows (or columns) of a matrix, each of a few chunks of elements."""
    count, length = like.shape if rows else reversed(like.shape)
    size = chunked.CHUNK.get(like.device.type, chunked.CHUNK["cuda"]) * (_ROWS if like.device.type == "cpu" else 1)
    step = max(1, min(size, 1 << 22) // max(length, 1))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def product(left: torch.Tensor, right: torch.Tensor, exact: bool = False) -> torch.Tensor:
    """left (m, R) · right (R, n) in float64, the same bits on any number of threads and in any chunks of rows.

    Correct to about 2⁻²³ of each row's and column's largest entry (less beyond R = 128); `exact`: to twice the bits.
    """
    bits = (_MANTISSA - math.ceil(math.log2(max(left.shape[1], 1)))) // 2
    high_left, high_right = _on_grid(left, 1, bits), _on_grid(right, 0, bits)
    total = high_left @ high_right
    if exact:
        low_left, low_right = _on_grid(left - high_left, 1, bits), _on_grid(right - high_right, 0, bits)
        total = total + (high_left @ low_right + low_left @ high_right)
    return total


def _on_grid(x: torch.Tensor, dim: int, bits: int) -> torch.Tensor:
    """Each row (dim 1) or column (dim 0) rounded to multiples of 2^(e - bits), where its entries are below 2^e."""
    exponent = torch.frexp(x.abs().amax(dim=dim, keepdim=True)).exponent.clamp_(min=_SMALLEST)
    step = torch.ldexp(torch.ones_like(exponent, dtype=torch.float64), exponent - bits)
    return torch.round(x / step).mul_(step)


def stacked(changes: Sequence[LowRank | None], weights: Sequence[float]) -> Pair | None:
    """Σ w s B A as one product of rank Σ r; a weight of 0 is not read. None if nothing is left."""
    used = [(c, float(w)) for c, w in zip(changes, weights, strict=True) if c is not None and w != 0 and c.scale != 0]
    if not used:
        return None
    left = torch.cat([c.up.double() * (w * c.scale) for c, w in used], dim=1)
    return left, torch.cat([c.down.double() for c, _ in used], dim=0)


def thin_svd(left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U (out, m), S (m,), Vᵀ (m, in) of left · right in float64, without the product: from a QR of each factor."""
    with one_thread():
        q_left, r_left = torch.linalg.qr(left)
        q_right, r_right = torch.linalg.qr(right.t())
        u, s, v = torch.linalg.svd(r_left @ r_right.t(), full_matrices=False)
        return q_left @ u, s, v @ q_right.t()
