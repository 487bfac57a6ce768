"""Localize-and-Stitch, data-free: the largest changes of each expert over all blocks, averaged where they overlap.

Source: He et al., arXiv:2408.13656. One threshold per expert: the smallest of its int(s · N) largest |τ| over all
merged tensors; what is above it is kept (strictly: one entry fewer than k, and fewer still where entries equal the
threshold). θ = θ0 + Σ w_k (m_k / Σ m) τ_k. Tensors that match `exclude` are the base's, as with the authors.
The masks that the authors learn from data are not built. Coefficients are ours (1: the published form).
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import prod
from typing import ClassVar, final

import numpy as np
import torch

from mergesearch.operators.algebra.matrices import NOT_MATRICES
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.largest import kth_largest
from mergesearch.operators.passes.marks import mark_above
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Scale, Settings


class Options(PluginOptions):
    """Options of `localize_and_stitch`."""

    exclude: tuple[str, ...] = NOT_MATRICES  # patterns of tensors that keep the base's values: embeddings and heads


@final
class LocalizeAndStitch(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "Localize-and-Stitch",
        "arXiv:2408.13656",
        Checked.GOLDEN,
        ("Masks learned from data, the authors' other form, are not built: this package merges without data.",),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, 1.0, searched=True, doc="w_k: how much of an expert's kept change is added"),
        Knob(
            "density", 0.005, 0.3, 0.05, Per.EXPERT, Scale.LOGIT, doc="share of an expert's entries kept, of all blocks"
        ),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the merged change"),
    )
    CACHE = "P1"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._exclude = options.exclude

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        return sum(prod(shapes[name]) for name in _blocks(shapes, self._exclude)) * -(-experts // 8)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Localized":
        names = list(layout.group_of)
        return Localized(Stream([base, *experts], names), layout, _blocks(names, self._exclude))


@final
class Localized:
    """Prepared models of `localize_and_stitch`: what each expert keeps at the last densities, a bit per entry."""

    def __init__(self, stream: Stream, layout: Layout, blocks: Sequence[str]) -> None:
        self._stream, self._layout = stream, layout
        self._blocks = [name for name in blocks if stream.flat(0, name).numel()]
        self.masks: dict[str, torch.Tensor] = {}  # uint8 (planes, N): bit k % 8 of row k // 8 is expert k's
        self._densities: list[float | None] = [None] * len(layout.experts)  # at which each expert's bits were set

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        self.localize(settings["density"][0])
        inside = [name for name in names if name in self.masks]
        outside = [name for name in names if name not in self.masks]
        rows = [self._layout.group_of[name] for name in inside]
        weights = settings["coefficient"][rows] * settings["scale"][rows, :1]
        self._stream.masked_sum(inside, weights, self.masks, into, average=True)
        nothing = np.zeros((len(outside), 1 + len(self._layout.experts)))
        self._stream.weighted_sum(outside, nothing, into, centred=True)

    def localize(self, densities: Iterable[float]) -> None:
        """Make `masks` those of these densities, one for each expert."""
        for k, density in enumerate(densities):
            if self._densities[k] != density:
                self._densities[k] = None
                self._mark(k, float(density))
                self._densities[k] = float(density)

    def _mark(self, k: int, density: float) -> None:
        """Set the bits of expert k."""
        stream = self._stream
        pairs = {name: (stream.flat(0, name), stream.flat(k + 1, name)) for name in self._blocks}
        if not pairs:
            return
        total = sum(base.numel() for base, _ in pairs.values())
        kept = min(max(1, int(density * total)), total)
        bits, _ = kth_largest(pairs.values(), kept, stream.compiled)
        threshold = float(np.array(bits, dtype=np.int32).view(np.float32))
        planes = -(-len(self._layout.experts) // 8)
        for name, (base, _) in pairs.items():
            if name not in self.masks:
                self.masks[name] = torch.zeros((planes, base.numel()), dtype=torch.uint8, device=base.device)
            mark_above(stream, name, k, threshold, self.masks[name])


def _blocks(names: Iterable[str], exclude: Sequence[str]) -> list[str]:
    """The names that match no pattern."""
    return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in exclude)]
