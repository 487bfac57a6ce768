"""Links: the scale on which a loss is fitted by a quadratic, chosen by the metric's range and by what fits it best.

Bounded metrics take the link of their range (`surrogate.linked`, after MAP, arXiv:2406.07529). A loss without bounds
may still be flat far from its optimum: then z = -log(1 - u), u the loss between the best seen and a ceiling above the
worst, is tried too (ours), and taken where it lowers the leave-one-out error of the losses themselves.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergesearch.strategies.surrogates.linked_quadratic import linked, loss_range, unlinked
from mergesearch.types import Objective, Vector

CEILINGS = (0.3, 0.05)  # how far above the worst loss seen, in ranges of the losses
_FLOOR = 1e-9


@dataclass(frozen=True)
class Link:
    """The scale of one objective. `ceiling` 0.0: that of its range; else z = -log(1 - u), u from `low` over `span`."""

    objective: Objective
    ceiling: float = 0.0
    low: float = 0.0
    span: float = 1.0

    @classmethod
    def of(cls, objective: Objective, ceiling: float, losses: Vector) -> "Link":
        """The link with its ends taken from losses (k,)."""
        span = max(float(np.ptp(losses)) * (1.0 + ceiling), 1e-300)
        return cls(objective, ceiling, float(losses.min()), span)

    def forward(self, losses: Vector, n: Vector) -> tuple[Vector, Vector]:
        """Linked losses (k,), and the squared slope (k,) by which the link magnifies noise."""
        if self.ceiling > 0.0:
            rest = 1.0 - np.clip((losses - self.low) / self.span, 0.0, 1.0 - _FLOOR)
            return -np.log(rest), np.square(1.0 / rest)
        z, weight = linked(self.objective, losses, n)
        return z, 1.0 / np.maximum(weight / max(float(weight.max()), 1e-300), _FLOOR)

    def back(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Losses of linked values, any shape."""
        if self.ceiling > 0.0:
            return self.low - self.span * np.expm1(-np.maximum(z, -50.0))
        return unlinked(self.objective, z)

    def slope(self, z: float) -> float:
        """Change of the loss with its linked value."""
        if self.ceiling > 0.0:
            return self.span * float(np.exp(-max(z, -50.0)))
        low, high = loss_range(self.objective)
        if low is None and high is None:
            return 1.0
        share = 1.0 / (1.0 + float(np.exp(-np.clip(z, -500.0, 500.0))))
        if low is not None and high is not None:
            return (high - low) * share * (1.0 - share)
        return share if low is not None else 1.0 - share


def candidates(objective: Objective) -> tuple[float, ...]:
    """Ceilings to try for an objective: that of its range alone where it has bounds."""
    return (0.0,) if loss_range(objective) != (None, None) else (0.0, *CEILINGS)
