"""Weighted sum of LoRA adapters, Σ w_k s_k B_k A_k, from their factors. The first to try on adapters.

Source: LoRA Soups (CAT), arXiv:2410.13025, which learns the w_k of each layer on a little data: here they are searched.
The weighted products are those of task arithmetic on the merged models, without building one. `combination: linear` and
`svd` are PEFT's other two: the first multiplies factors summed with weights √(w s), so that it has cross terms; the
second keeps the largest singular triples of the sum, as one adapter could.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, final

import torch
from pydantic import PositiveInt

from mergesearch.checkpoints.adapter import Adapter, LowRank
from mergesearch.errors import SpecError
from mergesearch.operators.algebra.lora import Pair, Products, adapted, stacked, thin_svd
from mergesearch.operators.base import AdapterOperator, Checked, Layout, Source, Tensors
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings


class Options(PluginOptions):
    """Options of `lora_soups`."""

    combination: Literal["cat", "linear", "svd"] = "cat"  # PEFT's combination_type
    svd_rank: PositiveInt | None = None  # svd: triples kept of each matrix; None: the largest rank among the adapters


@final
class LoraSoups(AdapterOperator):
    """AdapterOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "LoRA Soups",
        "arXiv:2410.13025",
        Checked.GOLDEN,
        ("PEFT's svd has a `clamp` on the new factors (off by default) that changes the merge; it is not offered.",),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, None, searched=True, doc="w_k: how much of an adapter's change is added"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the sum"),
    )
    CACHE = "P0"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def prepare_adapters(self, base: Tensors, experts: Sequence[Adapter], layout: Layout) -> Products:
        """See `AdapterOperator`. Raises SpecError where 'linear' meets adapters of different ranks."""
        changes = adapted(base, experts, layout)
        if self._options.combination == "linear":
            for name, pair in changes.items():
                ranks = sorted({c.rank for c in pair if c is not None})
                if len(ranks) > 1:
                    raise SpecError(
                        f"lora_soups: combination 'linear' adds factors of one rank, {name!r} has ranks {ranks}; "
                        f"use 'cat' or 'svd'"
                    )

        def factors(settings: Settings, row: int, name: str) -> Pair | None:
            scale = float(settings["scale"][row, 0])
            if scale == 0 or name not in changes:
                return None
            weights = [float(w) for w in settings["coefficient"][row]]
            if self._options.combination == "linear":
                return _linear(changes[name], weights, scale)
            if self._options.combination == "cat":
                return stacked(changes[name], [w * scale for w in weights])
            rank = self._options.svd_rank or max(c.rank for c in changes[name] if c is not None)
            return _truncated(stacked(changes[name], weights), rank, scale)

        return Products(base, layout, factors)


def _linear(changes: Sequence[LowRank | None], weights: Sequence[float], scale: float) -> Pair | None:
    """(Σ √|w s| B) (Σ ±√|w s| A), the sign of w s on A alone, times `scale`."""
    left = right = None
    for change, weight in zip(changes, weights, strict=True):
        if change is None or (factor := weight * change.scale) == 0:
            continue
        root = math.sqrt(abs(factor))
        up, down = change.up.double() * root, change.down.double() * math.copysign(root, factor)
        left, right = (up, down) if left is None or right is None else (left + up, right + down)
    return None if left is None or right is None else (left * scale, right)


def _truncated(pair: Pair | None, rank: int, scale: float) -> Pair | None:
    """The `rank` largest singular triples of a product, times `scale`."""
    if pair is None:
        return None
    u, s, v = thin_svd(*pair)
    kept: tuple[torch.Tensor, torch.Tensor] = (u[:, :rank] * (s[:rank] * scale), v[:rank])
    return kept
