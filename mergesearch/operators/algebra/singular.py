"""The leading singular directions of every expert, set beside each other and made orthogonal: what TSV-M begins with.

Source: Gargiulo et al., arXiv:2412.00081. τ_i = U_i diag(S_i) V_iᵀ, cut to k triples; U⊥ and V⊥ are the polar factors
of [U_1 .. U_n] and [V_1 .. V_n]; the component of expert i is U⊥,i diag(S_i) V⊥,iᵀ.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch

from mergesearch.operators.algebra.matrices import task_matrix
from mergesearch.operators.algebra.spectral import Svd, for_each, polar, svd
from mergesearch.operators.base import Tensors
from mergesearch.operators.passes.chunked import wide


@final
class Directions:
    """The first `limit(name)` singular triples of every expert's change of each matrix, in float32; with `keep` false
    found again whenever they are asked for."""

    def __init__(
        self,
        base: Tensors,
        experts: Sequence[Tensors],
        names: Sequence[str],
        limit: Callable[[str], int],
        keep: bool = True,
    ) -> None:
        def found(name: str) -> list[Svd]:
            dtype = wide(base[name].dtype)
            return [svd(task_matrix(base, expert, name)).leading(limit(name), dtype) for expert in experts]

        self._find = found
        self._of: Mapping[str, list[Svd]] = dict(zip(names, for_each(names, found), strict=True)) if keep else {}

    def leading(self, name: str, rank: int) -> list[Svd]:
        """For each expert its first `rank` triples, fewer where its change has a lower rank, as views."""
        return [Svd(x.u[:, :rank], x.s[:rank], x.v[:, :rank]) for x in self._of.get(name) or self._find(name)]

    def components(self, name: str, rank: int) -> list[torch.Tensor]:
        """U⊥,i diag(S_i) V⊥,iᵀ (out, in) of each expert, from its first `rank` triples."""
        parts = self.leading(name, rank)
        sizes = [len(part.s) for part in parts]
        u = torch.split(polar(torch.cat([part.u for part in parts], dim=1)), sizes, dim=1)
        v = torch.split(polar(torch.cat([part.v for part in parts], dim=1)), sizes, dim=1)
        return [Svd(u[i], part.s, v[i]).sum() for i, part in enumerate(parts)]


def stored_entries(shape: tuple[int, int], experts: int, rank: int) -> int:
    """Numbers that `Directions` remembers of one matrix (out, in)."""
    return experts * rank * (shape[0] + shape[1] + 1)
