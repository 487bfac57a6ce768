"""Streaming passes over the entries that random masks keep: plain torch, or the loops of `compiled_random.py`.

An entry of expert k is kept where its number u (`counter_random.py`) is below p = low + step · rank, computed in
float32; `rank` counts from 0 and is 0 where a tensor has no ranks. Each pass computes the masks anew; one that must be
followed by another (`sizes`) can leave them for it in scratch memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.base import Tensors
from mergesearch.operators.passes import counter_random
from mergesearch.operators.passes.chunked import chunks, wide
from mergesearch.operators.passes.slopes import Parts
from mergesearch.operators.passes.stream import Stream, Weights, offsets, row_weights

Odds: TypeAlias = NDArray[np.float32]
"""(T, K, 2): `low` and `step` of each tensor and expert."""

Planes: TypeAlias = Mapping[str, torch.Tensor]
"""Masks by name: uint8 (planes, N), bit k % 8 of row k // 8 set where expert k keeps the entry."""

_NO_PLANES: Planes = {}
_BYTE = np.zeros(0, np.uint8)
_RANKS: dict[torch.dtype, NDArray[Any]] = {torch.uint16: np.zeros(0, np.uint16), torch.int32: np.zeros(0, np.int32)}


@final
class RandomPass:
    """Passes over base (model 0 of `stream`) and experts.

    `ranks[name]`: uint16 or int32 (K, N), or absent. `recorded`: masks that another program drew, used instead of
    drawing.
    """

    def __init__(
        self,
        stream: Stream,
        experts: Sequence[str],
        seed: int,
        ranks: Mapping[str, torch.Tensor],
        recorded: Planes | None = None,
    ) -> None:
        self._stream, self._ranks, self._recorded = stream, ranks, recorded
        self._experts = len(experts)
        self._keys = {name: counter_random.keys(seed, experts, name) for name in stream.names}

    def compiles(self, name: str) -> bool:
        """Whether a tensor goes through the compiled loops."""
        dtype = self._stream.flat(0, name).dtype
        return self._stream.compiled and self._recorded is None and dtype in (torch.bfloat16, torch.float32)

    def sum(
        self,
        names: Sequence[str],
        weights: Weights,
        odds: Odds,
        into: Tensors,
        *,
        inverse: bool,
        masks: Planes = _NO_PLANES,
    ) -> None:
        """out = base + Σ w (x - base) over the entries that an expert keeps; `inverse`: each is divided by its p.

        `weights` (len(names), K); an expert of weight 0 is not read. `masks`: what `sizes` left at these odds.
        """
        stream, weights32 = self._stream, weights.astype(np.float32)
        outs = [stream.out(name, into) for name in names]

        def torch_pass(i: int) -> None:
            weight = row_weights(outs[i], weights, weights32, i)
            for part, centre, changes in self._chunks(names[i], weight, odds[i], inverse):
                total = torch.zeros_like(centre)
                for _, change in changes:
                    total.add_(change)
                outs[i][part].copy_(total.add_(centre))

        def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
            from mergesearch.operators.passes import compiled_random

            def work(chosen: list[int], tables: Any, span: Any, ranked: Any) -> None:
                compiled_random.kept_sum(tables, weights32[chosen], span, inverse, (sample, ranked, _BYTE))

            self._loops(names, outs, odds, masks, rows, work)

        self._run(outs, torch_pass, compiled_pass)
        stream.copy_back(names, outs, into)

    def elect(
        self,
        names: Sequence[str],
        weights: Weights,
        shares: Weights,
        scale: NDArray[np.float64],
        odds: Odds,
        into: Tensors,
        *,
        normalize: bool,
        inverse: bool,
        masks: Planes = _NO_PLANES,
    ) -> None:
        """out = base + scale · Σ δ / Σ share over the experts whose kept δ = w (x - base) has the sign of Σ δ.

        Σ δ of exactly 0 counts as positive. Without `normalize`, or where Σ share is 0, the divisor is 1. `shares` has
        the shape of `weights`, `scale` (len(names),).
        """
        stream = self._stream
        weights32, shares32, scale32 = (x.astype(np.float32) for x in (weights, shares, scale))
        outs = [stream.out(name, into) for name in names]

        def torch_pass(i: int) -> None:
            weight, share = (row_weights(outs[i], *x, i) for x in ((weights, weights32), (shares, shares32)))
            factor = row_weights(outs[i], scale, scale32, i)
            for part, centre, changes in self._chunks(names[i], weight, odds[i], inverse):
                outs[i][part].copy_(_elected(centre, changes, share, normalize).mul_(factor).add_(centre))

        def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
            from mergesearch.operators.passes import compiled_random

            def work(chosen: list[int], tables: Any, span: Any, ranked: Any) -> None:
                votes = (weights32[chosen], shares32[chosen], scale32[chosen])
                compiled_random.kept_elect(tables, *votes, span, inverse, normalize, (sample, ranked, _BYTE))

            self._loops(names, outs, odds, masks, rows, work)

        self._run(outs, torch_pass, compiled_pass)
        stream.copy_back(names, outs, into)

    def sizes(
        self,
        names: Sequence[str],
        odds: Odds,
        units: NDArray[np.float32],
        wanted: NDArray[np.bool_],
        masks: Planes = _NO_PLANES,
    ) -> NDArray[np.int64]:
        """(len(names), K): Σ |x - base| over kept entries in whole units: each rounds |x - base| · unit to an integer.

        So the sum is the same on any number of threads, and on both paths. 0 where not `wanted` (len(names), K).
        `units` are powers of two, at which no |x - base| · unit exceeds 2^30. `masks`: zeros, in which the entries that
        change and are kept are set; for tensors that the compiled loops take (`compiles`), with all experts wanted.
        """
        stream = self._stream
        found = np.zeros(wanted.shape, dtype=np.int64)
        bases = [stream.flat(0, name) for name in names]

        def torch_pass(i: int) -> None:
            for _, _, changes in self._chunks(names[i], wanted[i].astype(float).tolist(), odds[i], False):
                for k, change in changes:
                    found[i, k] += int(change.abs_().mul_(float(units[i, k])).add_(0.5).to(torch.int64).sum())

        def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
            from mergesearch.operators.passes import compiled_random

            parts: list[tuple[list[int], NDArray[np.int64]]] = []

            def work(chosen: list[int], tables: Any, span: Any, ranked: Any) -> None:
                part = np.zeros((len(chosen), self._experts), dtype=np.int64)
                samples = (sample, ranked, _BYTE)
                compiled_random.kept_sizes(tables, units[chosen], wanted[chosen], span, samples, part)
                parts.append((chosen, part))

            # The place of the output in the table of addresses is not written to.
            self._loops(names, bases, odds, masks, rows, work)
            for chosen, part in parts:
                found[chosen] += part

        self._run(bases, torch_pass, compiled_pass)
        return found

    def largest(self, names: Sequence[str]) -> NDArray[np.float64]:
        """(len(names), K): the largest |x - base| of each tensor and expert, 0 where it is empty."""
        stream = self._stream
        found = np.zeros((len(names), self._experts))
        bases = [stream.flat(0, name) for name in names]

        def torch_pass(i: int) -> None:
            for part in chunks(bases[i].numel(), bases[i].device):
                centre = bases[i][part].to(wide(bases[i].dtype))
                for k in range(self._experts):
                    change = stream.flat(k + 1, names[i])[part].to(centre.dtype, copy=True).sub_(centre)
                    found[i, k] = max(found[i, k], float(change.abs_().max()))

        def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
            from mergesearch.operators.passes import compiled_random

            chosen, outs = [names[i] for i in rows], [bases[i] for i in rows]
            address, offset = stream.addresses(chosen, outs), offsets(outs)
            parts = [np.zeros((len(rows), self._experts), dtype=np.int32)]

            def work(a: int, b: int) -> None:
                bits = np.zeros_like(parts[0])
                compiled_random.largest(address, offset, a, b, sample, bits)
                parts.append(bits)

            stream.split(offset, work)
            found[rows] = np.max(parts, axis=0).view(np.float32)

        stream.run(bases, torch_pass, compiled_pass)
        return found

    def changes(self, name: str, odds: NDArray[np.float32], inverse: bool) -> Parts:
        """Each expert's kept change of a tensor, chunk by chunk, 0 elsewhere; `odds` (K, 2)."""
        for part, _, kept in self._chunks(name, [1.0] * self._experts, odds, inverse):
            yield part, kept

    def probabilities(self, name: str, k: int, odds: NDArray[np.float32], part: slice = slice(None)) -> torch.Tensor:
        """p of expert k's entries in a chunk of a tensor, float32; `odds` (2,). A scalar where there are no ranks."""
        low, step = (float(x) for x in odds)
        if name not in self._ranks:
            return torch.tensor(low, dtype=torch.float32, device=self._stream.flat(0, name).device)
        return self._ranks[name][k, part].to(torch.float32).mul_(step).add_(low)

    def _chunks(
        self, name: str, weights: Sequence[float], odds: NDArray[np.float32], inverse: bool
    ) -> Iterator[tuple[slice, torch.Tensor, Iterator[tuple[int, torch.Tensor]]]]:
        """For each chunk of a tensor: its slice, the base, and (k, the kept change) of each expert of weight not 0."""
        base = self._stream.flat(0, name)
        for part in chunks(base.numel(), base.device):
            centre = base[part].to(wide(base.dtype))
            yield part, centre, self._changes(name, part, centre, weights, odds, inverse)

    def _changes(
        self,
        name: str,
        part: slice,
        centre: torch.Tensor,
        weights: Sequence[float],
        odds: NDArray[np.float32],
        inverse: bool,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        for k, weight in enumerate(weights):
            if weight == 0:
                continue
            change = self._stream.flat(k + 1, name)[part].to(centre.dtype, copy=True).sub_(centre).mul_(weight)
            p = self.probabilities(name, k, odds[k], part)
            if inverse:
                change.div_(p.to(centre.dtype))
            if self._recorded is not None:
                dropped = self._recorded[name][k // 8, part].bitwise_and(1 << (k % 8)) == 0
            else:
                dropped = counter_random.uniforms(self._keys[name][k], part.start, part.stop, centre.device) >= p
            yield k, change.masked_fill_(dropped, 0)

    def _run(self, outs: Sequence[torch.Tensor], torch_pass: Any, compiled_pass: Any) -> None:
        if self._recorded is None:
            self._stream.run(outs, torch_pass, compiled_pass)
            return
        for i in range(len(outs)):
            torch_pass(i)

    def _loops(
        self,
        names: Sequence[str],
        outs: Sequence[torch.Tensor],
        odds: Odds,
        masks: Planes,
        rows: list[int],
        work: Callable[[list[int], Any, Any, NDArray[Any]], None],
    ) -> None:
        """`work(chosen rows, tables, span, sample of their ranks)` on all threads, once for each dtype of ranks.

        `tables` (of the chosen rows) and `span` are as the compiled loops take them. Rows without ranks go with the
        first dtype.
        """
        kinds = {i: self._ranks[names[i]].dtype if names[i] in self._ranks else torch.uint16 for i in rows}
        for dtype, sample in _RANKS.items():
            chosen = [i for i in rows if kinds[i] == dtype]
            if not chosen:
                continue
            keys = np.stack([self._keys[names[i]] for i in chosen])
            ranks = np.zeros((self._experts, len(chosen)), dtype=np.int64)
            for column, i in enumerate(chosen):
                if names[i] in self._ranks:
                    ranks[:, column] = [row.data_ptr() for row in self._ranks[names[i]]]
            address = self._stream.addresses([names[i] for i in chosen], [outs[i] for i in chosen])
            offset = offsets([outs[i] for i in chosen])
            planes = np.zeros((-(-self._experts // 8), len(chosen)), dtype=np.int64)
            for column, i in enumerate(chosen):
                if names[i] in masks:
                    planes[:, column] = [plane.data_ptr() for plane in masks[names[i]]]
            call = partial(work, chosen, (address, ranks, keys, odds[chosen], planes))
            self._stream.split(offset, lambda a, b, c=call, o=offset, s=sample: c((o, a, b), s))  # type: ignore[misc]


def _elected(
    centre: torch.Tensor, changes: Iterator[tuple[int, torch.Tensor]], shares: Sequence[float], normalize: bool
) -> torch.Tensor:
    """Σ δ, or Σ δ / Σ share, over the changes with the sign of their sum."""
    balance, above, above_share, below, below_share = (torch.zeros_like(centre) for _ in range(5))
    for k, change in changes:
        balance.add_(change)  # in the order of the experts: opposite changes must cancel to exactly 0
        for sign, total, total_share in ((change > 0, above, above_share), (change < 0, below, below_share)):
            total.add_(change * sign)
            total_share.add_(sign.to(centre.dtype).mul_(shares[k]))
    up = balance >= 0
    total = torch.where(up, above, below)
    if normalize:
        divisor = torch.where(up, above_share, below_share)
        total.div_(divisor.masked_fill_(divisor == 0, 1))
    return total
