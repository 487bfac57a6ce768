"""Operators whose candidate is base + Σ w_c · component_c with dear components: they are made once and remembered.

What all matrix methods share (TSV-M, isotropic merging, WUDI, ...): each merged matrix has components that depend on
*structural* knobs alone (a rank, a threshold) and are made anew only when these change; every other tensor gets the
mean of the experts' changes, Σ w_k τ_k / K.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.algebra.spectral import for_each
from mergesearch.operators.base import Layout, Tensors
from mergesearch.operators.passes.chunked import wide
from mergesearch.operators.passes.slopes import by_group, changes, in_first_column, slope_products, whole_terms
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
    `per_expert`: whether those weights, and the means, are proportional to the coefficients, one for each expert, and
    the components do not depend on these; then `coefficient` has a gradient too, and not `scale` alone.
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
        *,
        per_expert: bool = False,
    ) -> None:
        self._stream, self._layout, self._matrices = stream, layout, frozenset(matrices)
        self._make, self._plan, self._mean, self._balance = make, plan, mean, balance
        self._per_expert = per_expert
        self._made: dict[str, tuple[Key, Sequence[torch.Tensor]]] = {}

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        group_of = self._layout.group_of
        matrices = [name for name in names if name in self._matrices]
        plans = self._made_for(settings, matrices)
        factors = [self._weights(name, plans[group_of[name]].weights, settings) for name in matrices]
        self._stream.component_sum(matrices, {name: self._made[name][1] for name in matrices}, factors, into)
        rest = [name for name in names if name not in self._matrices]
        experts = len(self._layout.experts)
        weights = np.zeros((len(rest), 1 + experts))
        if self._mean is not None:
            for i, name in enumerate(rest):
                weights[i, 1:] = np.asarray(self._mean(settings, group_of[name]), dtype=np.float64) / experts
        self._stream.weighted_sum(rest, weights, into, centred=True)

    def pull_back(self, settings: Settings, slopes: Tensors) -> Settings:
        """See `Differentiable.pull_back`: of `scale`, and of `coefficient` where each expert has its own component."""
        group_of, groups = self._layout.group_of, range(len(self._layout.groups))
        experts, names = len(self._layout.experts), [name for name in self._layout.group_of if name in slopes]
        rest = [name for name in names if name not in self._matrices and self._mean is not None]
        means = slope_products(slopes, rest, experts, lambda name: changes(self._stream, name)) / experts
        grouped = by_group(means, [group_of[name] for name in rest], len(groups))  # (G, K)
        matrices = [name for name in names if name in self._matrices]
        self._made_for(settings, matrices)
        products: list[dict[str, NDArray[np.float64]]] = [{} for _ in groups]  # by group and matrix, (components,)
        for name in matrices:
            made = self._made[name][1]
            parts = partial(whole_terms, made)
            products[group_of[name]][name] = slope_products(slopes, [name], len(made), parts)[0]

        def along(moved: Settings, row: int) -> float:
            """<slope, merged change> of a group at other settings, which move nothing but the weights."""
            found = 0.0 if self._mean is None else float(np.dot(grouped[row], self._mean(moved, row)))
            for name, dots in products[row].items():
                found += float(np.dot(dots, self._weights(name, self._plan(moved, row).weights, settings)))
            return found

        unit = {**settings, "scale": np.ones_like(settings["scale"])}
        gradient = {"scale": in_first_column(np.array([along(unit, row) for row in groups]), experts)}
        if self._per_expert:
            single = [{**settings, "coefficient": np.tile(row, (len(groups), 1))} for row in np.eye(experts)]
            gradient["coefficient"] = np.array([[along(moved, row) for moved in single] for row in groups])
        return gradient

    def bytes_read(self) -> int:
        """Bytes that the next candidate reads beside the base, if no component is made anew."""
        made = sum(c.numel() * c.element_size() for _, components in self._made.values() for c in components)
        rest = [self._stream.flat(0, name) for name in self._stream.names if name not in self._matrices]
        return made + len(self._layout.experts) * sum(flat.numel() * flat.element_size() for flat in rest)

    def _made_for(self, settings: Settings, matrices: Sequence[str]) -> dict[int, Plan]:
        """The plan of each group that has one of `matrices`, whose components are then those of its key."""
        group_of = self._layout.group_of
        plans = {row: self._plan(settings, row) for row in {group_of[name] for name in matrices}}
        stale = [name for name in matrices if self._made.get(name, (None,))[0] != plans[group_of[name]].key]
        for_each(stale, lambda name: self._remake(name, plans[group_of[name]].key))
        return plans

    def _remake(self, name: str, key: Key) -> None:
        self._made.pop(name, None)  # frees the old ones before the new ones are made
        dtype = wide(self._stream.flat(0, name).dtype)
        self._made[name] = (key, [c.to(dtype).reshape(-1).contiguous() for c in self._make(name, key)])

    def _weights(self, name: str, weights: Sequence[float], settings: Settings) -> Sequence[float]:
        if self._balance is None:
            return weights
        balance = self._balance(name, settings, self._layout.group_of[name])
        return [weight * factor for weight, factor in zip(weights, balance, strict=True)]
