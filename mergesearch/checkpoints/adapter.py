"""LoRA adapters as low-rank task vectors: factors, never the dense product, until someone asks for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch


@dataclass(frozen=True, eq=False)
class LowRank:
    """A task vector τ = scale · up @ down of one matrix: `up` (out, r), `down` (r, in)."""

    up: torch.Tensor
    down: torch.Tensor
    scale: float

    @property
    def rank(self) -> int:
        """Inner dimension r of the factors."""
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the matrix that it changes."""
        return self.up.shape[0], self.down.shape[1]

    def dense(self) -> torch.Tensor:
        """τ (out, in) in float32, or float64 for float64 factors."""
        wide = torch.float64 if self.up.dtype == torch.float64 else torch.float32
        return (self.up.to(wide) @ self.down.to(wide)) * self.scale


Adapter: TypeAlias = Mapping[str, LowRank]
"""The base's tensor name -> how an adapter changes it. A tensor that it does not name it leaves alone."""
