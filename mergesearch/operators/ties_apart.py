"""TIES kept apart: trim and elect signs as TIES does, then weight each task alone. For coefficients that are learned.

Source: the task vectors of AdaMerging++, Yang et al., arXiv:2310.02575, which are those of TIES (arXiv:2306.01708)
before they are averaged: the largest entries of each task vector are kept, each entry elects the sign of the sum of
what is kept, changes with the other sign become 0. θ = θ0 + scale · Σ w_k τ'_k, linear in the coefficients. `scope` is
that of `ties`. Trimming and election are at unit coefficients, so what is kept depends on the density alone: it is
remembered, a bit per entry and expert, and a candidate is one pass over the models until the density changes.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import ClassVar, Literal, TypeAlias, final

import torch

from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.chunked import chunks, magnitude_bits, open_window, wide
from mergesearch.operators.passes.largest import kth_largest, mark_largest, set_bit
from mergesearch.operators.passes.slopes import Parts, by_group, slope_products, sum_gradient
from mergesearch.operators.passes.stream import Stream
from mergesearch.operators.passes.windowed import majority
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

Densities: TypeAlias = tuple[float, ...]
"""One for each expert."""


class Options(PluginOptions):
    """Options of `ties_apart`."""

    scope: Literal["tensor", "global"] = "tensor"  # over what the largest entries are taken


@final
class TiesApart(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "AdaMerging++",
        "arXiv:2310.02575",
        Checked.FORMULA,
        (
            "The authors trim over the whole model, as `scope: global` does; by default the largest entries are here "
            "those of each tensor, as in `ties`.",
        ),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, 0.3, searched=True, doc="w_k: weight of what is left of an expert's change"),
        Knob("density", 0.05, 1.0, 0.2, Per.EXPERT, doc="share of an expert's entries that is kept"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the merged change"),
    )
    CACHE = "P1"
    DIFFERENTIABLE = ("coefficient", "scale")

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._scope = options.scope

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        return sum(prod(shape) for shape in shapes.values()) * -(-experts // 8)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Apart":
        return Apart(Stream([base, *experts], list(layout.group_of)), layout, self._scope)


@final
class Apart:
    """Prepared models of `ties_apart`: which entries of each expert are left at the last densities."""

    def __init__(self, stream: Stream, layout: Layout, scope: Literal["tensor", "global"]) -> None:
        self._stream, self._layout, self._scope = stream, layout, scope
        self.masks: dict[str, torch.Tensor] = {}  # uint8 (planes, N): bit k % 8 of row k // 8 is expert k's
        self._densities: dict[str, Densities] = {}  # at which each tensor's mask was made
        self._whole: tuple[Densities, list[int], bool] | None = None  # global: thresholds; whether 0 counts as positive

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        self._mark(settings, names)
        rows = [self._layout.group_of[name] for name in names]
        weights = settings["coefficient"][rows] * settings["scale"][rows, :1]  # (T, K)
        self._stream.masked_sum(names, weights, self.masks, into)

    def pull_back(self, settings: Settings, slopes: Tensors) -> Settings:
        """See `Differentiable.pull_back`: of `coefficient` and `scale`."""
        names = [name for name in self._layout.group_of if name in slopes]
        self._mark(settings, names)
        products = slope_products(slopes, names, len(self._layout.experts), self._changes)
        rows = [self._layout.group_of[name] for name in names]
        return sum_gradient(settings, by_group(products, rows, len(self._layout.groups)), normalize=False)

    def _changes(self, name: str) -> Parts:
        """Each expert's change of a tensor, chunk by chunk, 0 where it is not in the mask."""
        base = self._stream.flat(0, name)
        for part in chunks(base.numel(), base.device):
            yield part, self._kept(name, part)

    def _kept(self, name: str, part: slice) -> Iterator[tuple[int, torch.Tensor]]:
        """Of a chunk: (k, change of expert k), in the dtype to compute in."""
        base, mask = self._stream.flat(0, name)[part], self.masks[name][:, part]
        centre = base.to(wide(base.dtype))
        for k in range(self._stream.models - 1):
            change = self._stream.flat(k + 1, name)[part].to(centre.dtype, copy=True).sub_(centre)
            yield k, change.masked_fill_((mask[k // 8] & (1 << (k % 8))) == 0, 0)

    def _mark(self, settings: Settings, names: Sequence[str]) -> None:
        """Make the masks of these tensors anew where the densities are not those they were made at."""
        densities = tuple(float(density) for density in settings["density"][0])
        stale = [name for name in names if self._densities.get(name) != densities]
        if not stale:
            return
        thresholds: list[int] | None = None
        zero_is_positive = True
        if self._scope == "global":
            if self._whole is None or self._whole[0] != densities:
                self._whole = densities, *self._over_all(densities)
            _, thresholds, zero_is_positive = self._whole
        for name in stale:
            self._densities.pop(name, None)  # in case that marking fails half way
            if name not in self.masks:
                base = self._stream.flat(0, name)
                planes = -(-len(densities) // 8)
                self.masks[name] = torch.zeros((planes, base.numel()), dtype=torch.uint8, device=base.device)

        def mark(name: str) -> None:
            self._trim(name, densities, thresholds)
            self._elect(name, zero_is_positive)

        self._stream.each(mark, stale)
        self._densities.update(dict.fromkeys(stale, densities))

    def _trim(self, name: str, densities: Densities, thresholds: Sequence[int] | None) -> None:
        """Set each expert's bits at its largest changes: of the tensor, or those that reach its threshold."""
        stream, mask = self._stream, self.masks[name]
        base = stream.flat(0, name)
        for k, density in enumerate(densities):
            expert, plane, bit = stream.flat(k + 1, name), mask[k // 8], k % 8
            if thresholds is not None:
                for part in chunks(base.numel(), base.device):
                    set_bit(plane[part], magnitude_bits(base[part], expert[part]) >= thresholds[k], bit)
            elif density <= 0 or not base.numel():
                plane.bitwise_and_(255 ^ (1 << bit))
            else:
                kept = max(1, int(min(density, 1.0) * base.numel()))
                mark_largest(base, expert, kept, plane, bit, stream.compiled)

    def _elect(self, name: str, zero_is_positive: bool) -> None:
        """Leave of the bits those of changes that have the sign of the sum of all that are kept."""
        for part, changes in self._changes(name):
            kept = list(changes)
            balance = torch.zeros_like(kept[0][1])
            for _, change in kept:  # in the order of the experts, as `ties` does: opposites cancel to exactly 0
                balance.add_(change)
            up = balance >= 0 if zero_is_positive else balance > 0
            for k, change in kept:
                set_bit(self.masks[name][k // 8, part], torch.where(up, change > 0, change < 0), k % 8)

    def _over_all(self, densities: Densities) -> tuple[list[int], bool]:
        """Bits of the smallest magnitude that each expert keeps of the whole model, the (int(density · N) + 1)-th
        largest; and whether a balance of 0 elects plus, the majority of the other entries' signs. As `ties` does."""
        stream = self._stream
        total = sum(stream.flat(0, name).numel() for name in stream.names)

        def threshold(k: int) -> int:
            kept = int(densities[k] * total) + 1
            pairs = [(stream.flat(0, name), stream.flat(k + 1, name)) for name in stream.names]
            return kth_largest(pairs, kept, stream.compiled)[0] if densities[k] < 1.0 and kept <= total else 0

        found = [0] * len(densities)
        stream.each(lambda k: found.__setitem__(k, threshold(k)), range(len(densities)))
        window = open_window(len(densities))
        window[0] = [bits - 1 for bits in found]
        return found, majority(stream, dict.fromkeys(stream.names, window)) > 0
