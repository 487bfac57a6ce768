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

from mergesearch.operators.algebra.spectral import for_each
from mergesearch.operators.base import Layout, Tensors
from mergesearch.operators.passes.chunked import wide
from mergesearch.operators.passes.stream import Stream
from mergesearch.space import Settings

Key: TypeAlias = tuple[float, ...]
"""Values of the structural knobs that a tensor's components depend on."""


@dataclass(frozen=True)
class Plan:
    """What one group's settings ask of each of its matrices: components for `key`, added with `weights`, one each."""

    key: Key
    weights: tuple[float, ...]


Make: TypeAlias = Callable[[str, Key], Sequence[torch.Tensor]]
"""(tensor name, key) -> its components, each of the tensor's number of entries, any float dtype. Called for several
tensors at once, each on one thread."""

Balance: TypeAlias = Callable[[str, Settings, int], Sequence[float]]
"""(tensor name, settings, row) -> what its weights are multiplied by, one for each component."""


@final
class Components:
    """Prepared; see `operators/base.py`. Remembers the components of every matrix at the last key it was asked for.

    `stream` holds the base and the experts. `plan(settings, row)` gives the plan of a group. `mean`: (settings, row) ->
    a weight w_k for each expert's change in tensors that are not `matrices`, which get base + Σ w_k τ_k / K; None
    leaves these at the base. `balance`: what the plan's weights are multiplied by in a matrix, None: nothing.
    """

    def __init__(
        self,
        stream: Stream,
        layout: Layout,
        matrices: Sequence[str],
        make: Make,
        plan: Callable[[Settings, int], Plan],
        mean: Callable[[Settings, int], Sequence[float]] | None,
        balance: Balance | None = None,
    ) -> None:
        self._stream, self._layout, self._matrices = stream, layout, frozenset(matrices)
        self._make, self._plan, self._mean, self._balance = make, plan, mean, balance
        self._made: dict[str, tuple[Key, Sequence[torch.Tensor]]] = {}

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        group_of = self._layout.group_of
        plans = {row: self._plan(settings, row) for row in {group_of[n] for n in names if n in self._matrices}}
        matrices = [name for name in names if name in self._matrices]
        stale = [name for name in matrices if self._made.get(name, (None,))[0] != plans[group_of[name]].key]
        for_each(stale, lambda name: self._remake(name, plans[group_of[name]].key))
        factors = [self._weights(name, plans[group_of[name]].weights, settings) for name in matrices]
        self._stream.component_sum(matrices, {name: self._made[name][1] for name in matrices}, factors, into)
        rest = [name for name in names if name not in self._matrices]
        experts = len(self._layout.experts)
        weights = np.zeros((len(rest), 1 + experts))
        if self._mean is not None:
            for i, name in enumerate(rest):
                weights[i, 1:] = np.asarray(self._mean(settings, group_of[name]), dtype=np.float64) / experts
        self._stream.weighted_sum(rest, weights, into, centred=True)

    def bytes_read(self) -> int:
        """Bytes that the next candidate reads beside the base, if no component is made anew."""
        made = sum(c.numel() * c.element_size() for _, components in self._made.values() for c in components)
        rest = [self._stream.flat(0, name) for name in self._stream.names if name not in self._matrices]
        return made + len(self._layout.experts) * sum(flat.numel() * flat.element_size() for flat in rest)

    def _remake(self, name: str, key: Key) -> None:
        self._made.pop(name, None)  # frees the old ones before the new ones are made
        dtype = wide(self._stream.flat(0, name).dtype)
        self._made[name] = (key, [c.to(dtype).reshape(-1).contiguous() for c in self._make(name, key)])

    def _weights(self, name: str, weights: Sequence[float], settings: Settings) -> Sequence[float]:
        if self._balance is None:
            return weights
        balance = self._balance(name, settings, self._layout.group_of[name])
        return [weight * factor for weight, factor in zip(weights, balance, strict=True)]
