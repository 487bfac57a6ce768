"""Operators whose candidate is base + Σ w_c · component_c with dear components: they are made once and remembered.

What all matrix methods share (TSV-M, isotropic merging, WUDI, ...): each merged matrix has components that depend on
*structural* knobs alone (a rank, a threshold) and are made anew only when these change; every other tensor gets the
mean of the experts' changes, Σ w_k τ_k / K.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import torch

from mergesearch.operators._chunked import wide
from mergesearch.operators._stream import Stream
from mergesearch.operators.base import Layout, Tensors
from mergesearch.space import Settings

Key: TypeAlias = tuple[float, ...]
"""Values of the structural knobs that a tensor's components depend on."""


@dataclass(frozen=True)
class Plan:
    """What one group's settings ask of each of its matrices: components for `key`, added with `weights`, one each."""

    key: Key
    weights: tuple[float, ...]


Make: TypeAlias = Callable[[str, Key], Sequence[torch.Tensor]]
"""(tensor name, key) -> its components, each of the tensor's number of entries, any float dtype."""


@final
class Components:
    """Prepared; see `operators/base.py`. Remembers the components of every matrix at the last key it was asked for.

    `stream` holds the base and the experts. `plan(settings, row)` gives the plan of a group. `mean`: (settings, row) ->
    a weight w_k for each expert's change in tensors that are not `matrices`, which get base + Σ w_k τ_k / K; None
    leaves these at the base.
    """

    def __init__(
        self,
        stream: Stream,
        layout: Layout,
        matrices: Sequence[str],
        make: Make,
        plan: Callable[[Settings, int], Plan],
        mean: Callable[[Settings, int], Sequence[float]] | None,
    ) -> None:
        self._stream, self._layout, self._matrices = stream, layout, frozenset(matrices)
        self._make, self._plan, self._mean = make, plan, mean
        self._made: dict[str, tuple[Key, Sequence[torch.Tensor]]] = {}

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        group_of = self._layout.group_of
        plans = {row: self._plan(settings, row) for row in {group_of[n] for n in names if n in self._matrices}}
        matrices = [name for name in names if name in self._matrices]
        found = {name: self._components(name, plans[group_of[name]].key) for name in matrices}
        self._stream.component_sum(matrices, found, [plans[group_of[name]].weights for name in matrices], into)
        rest = [name for name in names if name not in self._matrices]
        experts = len(self._layout.experts)
        weights = np.zeros((len(rest), 1 + experts))
        if self._mean is not None:
            for i, name in enumerate(rest):
                weights[i, 1:] = np.asarray(self._mean(settings, group_of[name]), dtype=np.float64) / experts
        self._stream.weighted_sum(rest, weights, into, centred=True)

    def _components(self, name: str, key: Key) -> Sequence[torch.Tensor]:
        if name not in self._made or self._made[name][0] != key:
            self._made.pop(name, None)  # frees the old ones before the new ones are made
            like = self._stream.flat(0, name)
            dtype = wide(like.dtype)
            self._made[name] = (key, [c.to(dtype).reshape(-1).contiguous() for c in self._make(name, key)])
        return self._made[name][1]
