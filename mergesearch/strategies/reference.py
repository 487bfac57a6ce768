"""What base and experts score, learned from told baselines: the corner beyond which a front is worth nothing."""

from dataclasses import dataclass

import numpy as np

from mergesearch.results import BASE, EXPERT, MARGIN, SMALLEST_HEADROOM
from mergesearch.strategies.base import Observation
from mergesearch.types import Candidate, Vector


@dataclass(frozen=True, eq=False)
class Reference:
    """Losses (M,) of the base and of every expert told so far. A value: `after` returns the next one."""

    base: Vector | None = None
    experts: tuple[Vector, ...] = ()

    def after(self, candidate: Candidate, observation: Observation | None) -> "Reference":
        """With one more baseline; anything else leaves it as it is."""
        if observation is None or not np.isfinite(observation.losses).all():
            return self
        if candidate.origin == BASE:
            return Reference(observation.losses, self.experts)
        if candidate.origin.startswith(EXPERT):
            return Reference(self.base, (*self.experts, observation.losses))
        return self

    @property
    def corner(self) -> Vector | None:
        """Losses (M,) a tenth of the way from base to best expert worse than the base, as hypervolumes are measured;
        None until the base and an expert are told. An objective in which no expert beats the base has the base's."""
        if self.base is None or not self.experts:
            return None
        gain = np.maximum(self.base - np.min(self.experts, axis=0), SMALLEST_HEADROOM)
        corner: Vector = self.base + MARGIN * gain
        return corner
