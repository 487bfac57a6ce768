"""Consensus merging with TALL masks: add only what enough experts use. Also rebuilds every expert from bit masks.

Source: Wang et al., "Localizing task information", arXiv:2405.07813. With τ_M = Σ τ_k, expert k uses an entry where
|τ_k| > λ_t |τ_M - τ_k| (`threshold`). The merged model adds scale · Σ w_k τ_k where at least `agreement` experts use
the entry: 1 leaves out what none uses, 2 also what serves one alone. Masks are taken at unit coefficients, so they
stay the same while coefficients are searched. Expert k is rebuilt as base + mask_k τ_M.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, TypeAlias, final

import torch

from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.chunked import chunks, wide
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

Key: TypeAlias = tuple[float, ...]
"""A threshold for each expert, then the agreement."""


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
        return sum(math.prod(shape) for shape in shapes.values()) * -(-experts // 8)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Localized":
        return Localized(Stream([base, *experts], list(layout.group_of)), layout)


@final
class Localized:
    """Prepared models of `consensus`: the consensus mask of each tensor at its last thresholds and agreement."""

    def __init__(self, stream: Stream, layout: Layout) -> None:
        self._stream, self._layout = stream, layout
        self._masks: dict[str, torch.Tensor] = {}
        self._keys: dict[str, Key] = {}

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        rows = [self._layout.group_of[name] for name in names]
        for name, row in zip(names, rows, strict=True):
            self._agree(name, (*settings["threshold"][row].tolist(), float(settings["agreement"][row, 0])))
        weights = settings["coefficient"][rows] * settings["scale"][rows, :1]
        self._stream.masked_sum(names, weights, self._masks, into)

    def rebuild(self, settings: Settings, expert: int, names: Sequence[str], into: Tensors) -> None:
        """See `Compressed.rebuild`; of the settings the expert's `threshold` counts."""
        for name in names:
            threshold = float(settings["threshold"][self._layout.group_of[name], expert])
            base, out = self._stream.flat(0, name), self._stream.out(name, into)
            for part, deltas, total in self._chunks(name):
                change = total.masked_fill(~_uses(deltas[expert], total, threshold), 0)
                out[part].copy_(change.add_(base[part].to(change.dtype)))
            self._stream.copy_back([name], [out], into)

    def stored_bytes(self, settings: Settings) -> int:
        """The summed change in the base's dtype and a bit per entry and expert."""
        del settings
        flats = [self._stream.flat(0, name) for name in self._stream.names]
        return sum(f.numel() * f.element_size() + -(-f.numel() * len(self._layout.experts) // 8) for f in flats)

    def consensus_mask(self, name: str) -> torch.Tensor:
        """Where the last candidate kept a tensor's entries: bool (N,)."""
        return self._masks[name][0] != 0

    def _agree(self, name: str, key: Key) -> None:
        if self._keys.get(name) == key:
            return
        self._keys.pop(name, None)
        base = self._stream.flat(0, name)
        *thresholds, agreement = key
        if name not in self._masks:
            planes = -(-len(self._layout.experts) // 8)
            self._masks[name] = torch.zeros((planes, base.numel()), dtype=torch.uint8, device=base.device)
        for part, deltas, total in self._chunks(name):
            count = torch.zeros(total.shape, dtype=torch.int32, device=base.device)
            for delta, threshold in zip(deltas, thresholds, strict=True):
                count += _uses(delta, total, threshold)
            self._masks[name][:, part] = (count >= agreement).to(torch.uint8) * 255
        self._keys[name] = key

    def _chunks(self, name: str) -> Iterator[tuple[slice, list[torch.Tensor], torch.Tensor]]:
        """For each chunk: its slice, the experts' changes and their sum, in the dtype to compute in."""
        base = self._stream.flat(0, name)
        dtype = wide(base.dtype)
        for part in chunks(base.numel(), base.device):
            centre = base[part].to(dtype)
            flats = [self._stream.flat(1 + k, name) for k in range(len(self._layout.experts))]
            deltas = [flat[part].to(dtype) - centre for flat in flats]
            yield part, deltas, torch.stack(deltas).sum(dim=0)


def _uses(delta: torch.Tensor, total: torch.Tensor, threshold: float) -> torch.Tensor:
    """Where an expert's change exceeds `threshold` times the sum of the others'."""
    return delta.abs() > (total - delta).abs_() * threshold
