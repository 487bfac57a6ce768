"""The scores of PCB-Merging (arXiv:2410.02396) for tensors that are ranked together, without a sort.

With τ (n, d) the changes of n experts in d entries, row by row:
    |C| = |τ| limited to its order statistics int(1e-4 d) and int(d (1 - 1e-4) - 1),  C = sign(τ) |C|
    B   = exp(n · minmax(|C|)²) · tanh(τ · Σ_k τ_k)
    S   = minmax(B limited from below to its order statistic int(d (1 - r)))
    merged = Σ_k λ_k C_k S_k / max(Σ_k S_k, 1e-12)
B in float32, whose 7 digits are enough at any size: tanh of LLM-sized changes is near 1e-8, and only the order and the
proportions of B matter. A sum of S and a share of it in float64.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias, final

import numpy as np
import torch

from mergesearch.operators.passes.chunked import chunks, wide
from mergesearch.operators.passes.entrywise import Few
from mergesearch.operators.passes.largest import kth_largest
from mergesearch.operators.passes.ranks import Ranked
from mergesearch.operators.passes.stream import Stream

_ENDS = 0.0001  # share of the smallest and of the largest sizes that are limited
_LEAST_SUM = 1e-12

Limits: TypeAlias = Sequence[tuple[float, float]]
"""For each expert the values of B at which S begins and at which it is 1."""


@final
class Balance:
    """What a density does not change: the limits of |τ|, and the first pass over the order of B.

    `names`: tensors with entries; they are ranked as one.
    """

    def __init__(self, stream: Stream, names: Sequence[str], experts: int) -> None:
        self.names = tuple(names)
        self._stream, self._experts = stream, experts
        self._entries = sum(stream.flat(0, name).numel() for name in names)
        self._sizes = [self._size_limits(k) for k in range(experts)]
        self._ranked = Ranked(
            lambda: ([b for _, b in scored] for name in self.names for _, scored in self._scored(name)), experts
        )

    def limits(self, densities: Sequence[float]) -> Limits:
        """Where S begins and ends for each expert's density; one pass over the model."""
        last = self._entries - 1
        starts = [min(max(int(self._entries * (1 - density)), 0), last) for density in densities]
        return [(low, high) for low, high in self._ranked.values([[start, last] for start in starts])]

    def changes(self, name: str, limits: Limits) -> list[Few]:
        """Each expert's C_k S_k / max(Σ S, 1e-12) in one tensor, where it is not 0."""
        found: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = [([], []) for _ in limits]
        for part, scored in self._scored(name):
            scores = [_scores(b, *limit) for (_, b), limit in zip(scored, limits, strict=True)]
            total = sum(scores[1:], scores[0]).clamp(min=_LEAST_SUM)  # a copy, for one expert too
            for (places, values), (change, _), score in zip(found, scored, scores, strict=True):
                where = score.nonzero().view(-1)
                places.append((where + part.start).to(torch.int32))
                values.append((change[where] * (score[where] / total[where])).to(change.dtype))
        return [Few(torch.cat(places), torch.cat(values)) for places, values in found]

    def scores(self, name: str, limits: Limits) -> torch.Tensor:
        """S of one tensor, float64 (experts, N)."""
        parts = [
            [_scores(b, *limit) for (_, b), limit in zip(row, limits, strict=True)] for _, row in self._scored(name)
        ]
        return torch.cat([torch.stack(part) for part in parts], dim=1)

    def _size_limits(self, k: int) -> tuple[float, float]:
        """The two order statistics that |τ_k| is limited to."""
        pairs = [(self._stream.flat(0, name), self._stream.flat(k + 1, name)) for name in self.names]
        low, high = int(self._entries * _ENDS), max(int(self._entries * (1 - _ENDS) - 1), 0)  # ranks from the smallest
        bits = [kth_largest(pairs, self._entries - rank, self._stream.compiled)[0] for rank in (low, high)]
        least, most = (float(np.array(b, dtype=np.int32).view(np.float32)) for b in bits)
        return least, most

    def _scored(self, name: str) -> Iterator[tuple[slice, list[tuple[torch.Tensor, torch.Tensor]]]]:
        """For each chunk: its slice, and of each expert C (float32 or wider) and B (float32)."""
        base = self._stream.flat(0, name)
        for part in chunks(base.numel(), base.device):
            centre = base[part].to(wide(base.dtype))
            taus = [self._stream.flat(k + 1, name)[part].to(centre.dtype) - centre for k in range(self._experts)]
            total = sum(taus[1:], taus[0])
            yield part, [self._balanced(tau, total, *limit) for tau, limit in zip(taus, self._sizes, strict=True)]

    def _balanced(
        self, tau: torch.Tensor, total: torch.Tensor, least: float, most: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """C and B of one expert."""
        size = tau.abs().clamp_(least, most)
        change = tau.sign() * size
        intra = size.sub_(least).div_(most - least if most > least else 1.0)  # minmax; 0 where all sizes are equal
        inter = (tau * total).tanh_()
        return change, intra.square_().mul_(self._experts).exp_().mul_(inter).float()


def _scores(b: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """S in float64, 0 to 1. Where all limited values of a row are equal: 1 at those above 0, else 0."""
    if low == high:
        return ((b >= high) & (b > 0)).double()
    return b.double().clamp_(low, high).sub_(low).div_(high - low)
