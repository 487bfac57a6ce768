"""Consensus merging with TALL masks: add only what enough experts use. Also rebuilds every expert from bit masks.

Source: Wang et al., "Localizing task information", arXiv:2405.07813. With τ_M = Σ τ_k, expert k uses an entry where
|τ_k| > λ_t |τ_M - τ_k| (`threshold`). The merged model adds scale · Σ w_k τ_k where at least `agreement` experts use
the entry: 1 leaves out what none uses, 2 also what serves one alone. Masks are taken at unit coefficients, so they
stay the same while coefficients are searched. Expert k is rebuilt as base + mask_k τ_M.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeAlias, final

import numpy as np
import torch

from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.marks import changes, mark_agreed, uses
from mergesearch.operators.passes.packing import mask_bytes
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

Key: TypeAlias = tuple[float, ...]
"""A threshold for each expert, then, for a consensus, the agreement."""


class Options(PluginOptions):
    """`consensus` has no options."""


@final
class Consensus(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "Consensus merging and TALL masks",
        "arXiv:2405.07813",
        Checked.GOLDEN,
        (
            "A benchmark's packaged TALL mask compares |base - τ| instead of |τ|, weights against changes; its mask "
            "functions, which are right, are what is matched.",
            "τ_M is the plain sum; the authors' variant over a TIES merge is not offered.",
        ),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, 1.0, doc="w_k: weight of an expert's change; masks do not depend on it"),
        Knob("threshold", 0.1, 1.0, 0.4, doc="λ_t: how far an expert's own change must exceed the others'"),
        Knob("agreement", 1, None, 2, Per.GROUP, whole=True, doc="how many experts must use an entry"),
        Knob("scale", 0.0, 1.0, 0.3, Per.GROUP, searched=True, doc="α: a common factor on what is kept"),
    )
    CACHE = "P1"
    COMPRESSES = True

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        del experts
        return sum(math.prod(shape) for shape in shapes.values())

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Localized":
        return Localized(Stream([base, *experts], list(layout.group_of)), layout)


@final
class Localized:
    """Prepared models of `consensus`: the consensus mask of each tensor at its last thresholds and agreement."""

    def __init__(self, stream: Stream, layout: Layout) -> None:
        self._stream, self._layout = stream, layout
        self._masks: dict[str, torch.Tensor] = {}  # uint8 (N,): 255 where enough experts use an entry
        self._keys: dict[str, Key] = {}
        self._sizes: dict[str, tuple[Key, int]] = {}  # of the masks of all experts, at their thresholds

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        rows = [self._layout.group_of[name] for name in names]
        self._agree(names, settings)
        weights = settings["coefficient"][rows] * settings["scale"][rows, :1]
        planes = -(-len(self._layout.experts) // 8)
        masks = {name: self._masks[name].expand(planes, -1) for name in names}  # all experts share one
        self._stream.masked_sum(names, weights, masks, into)

    def rebuild(self, settings: Settings, expert: int, names: Sequence[str], into: Tensors) -> None:
        """See `Compressed.rebuild`; of the settings the expert's `threshold` counts."""
        for name in names:
            threshold = float(settings["threshold"][self._layout.group_of[name], expert])
            base, out = self._stream.flat(0, name), self._stream.out(name, into)
            for part, deltas, total in changes(self._stream, name):
                change = total.masked_fill(~uses(deltas[expert], total, threshold), 0)
                out[part].copy_(change.add_(base[part].to(change.dtype)))
            self._stream.copy_back([name], [out], into)

    def stored_bytes(self, settings: Settings) -> int:
        """The summed change in the base's dtype and a coded mask for each expert at its threshold."""
        total = 0
        for name in self._stream.names:
            base = self._stream.flat(0, name)
            thresholds = tuple(settings["threshold"][self._layout.group_of[name]].tolist())
            if self._sizes.get(name, ((), 0))[0] != thresholds:
                kept = [0] * len(thresholds)
                for _, deltas, summed in changes(self._stream, name):
                    used = [uses(delta, summed, t) for delta, t in zip(deltas, thresholds, strict=True)]
                    kept = [n + int(mask.sum()) for n, mask in zip(kept, used, strict=True)]
                self._sizes[name] = (thresholds, sum(mask_bytes(n, base.numel()) for n in kept))
            total += base.numel() * base.element_size() + self._sizes[name][1]
        return total

    def consensus_mask(self, name: str) -> torch.Tensor:
        """Where the last candidate kept a tensor's entries: bool (N,)."""
        return self._masks[name] != 0

    def _agree(self, names: Sequence[str], settings: Settings) -> None:
        """Make the masks of these tensors anew where thresholds or the agreement are not those they were made at."""
        keys: dict[str, Key] = {}
        for name in names:
            row = self._layout.group_of[name]
            key = (*settings["threshold"][row].tolist(), float(settings["agreement"][row, 0]))
            if self._keys.get(name) != key:
                self._keys.pop(name, None)
                keys[name] = key
                if name not in self._masks:
                    self._masks[name] = torch.zeros_like(self._stream.flat(0, name), dtype=torch.uint8)
        if keys:
            table = np.array(list(keys.values()))
            mark_agreed(self._stream, list(keys), table[:, :-1], table[:, -1], self._masks)
            self._keys.update(keys)
