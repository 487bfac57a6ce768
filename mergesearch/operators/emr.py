"""EMR: elect one unified change, then a mask and a rescaler per expert. One merged model, or each expert rebuilt.

Source: Huang et al., "EMR-Merging", arXiv:2405.17461. γ is the sign of Σ τ_k (0 counts as -1); the unified change u
takes γ times the largest |τ_k| among the experts whose sign is γ. The merged model is base + λ u. Expert k is rebuilt
as base + ρ_k M_k u with M_k = [τ_k γ > 0] and ρ_k = Σ mean|τ_k| / Σ mean|M_k u|, sums over tensors of means over
entries, so that a small tensor weighs as much as a large one.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, final

import numpy as np
import torch

from mergesearch.errors import EvaluationError
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.chunked import chunks, wide
from mergesearch.operators.passes.largest import set_bit
from mergesearch.operators.passes.packing import mask_bytes
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

_SUMMED = 1 << 14  # entries per sum on a CPU: few enough that torch takes one thread, so the order of adding is fixed


class Options(PluginOptions):
    """`emr` has no options."""


@final
class Emr(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "EMR-Merging",
        "arXiv:2405.17461",
        Checked.GOLDEN,
        ("The authors' flattened variant of the rescaler, one mean over the whole model, is not offered.",),
    )
    KNOBS = (Knob("scale", 0.0, 1.0, 0.5, Per.GROUP, searched=True, doc="λ: factor on the unified change"),)
    CACHE = "P1"
    COMPRESSES = True

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        return sum(math.prod(shape) for shape in shapes.values()) * -(-experts // 8)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Unified":
        return Unified(Stream([base, *experts], list(layout.group_of)), layout)


@final
class Unified:
    """Prepared models of `emr`: bit k of an entry's mask says that the unified change is expert k's own."""

    def __init__(self, stream: Stream, layout: Layout) -> None:
        self._stream, self._layout = stream, layout
        self._masks = {name: self._chosen(name) for name in stream.names}
        self._rescalers: tuple[float, ...] | None = None
        self._stored: int | None = None

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        scale = settings["scale"][[self._layout.group_of[name] for name in names], :1]
        weights = np.repeat(scale, len(self._layout.experts), axis=1)
        self._stream.masked_sum(names, weights, self._masks, into)

    def rebuild(self, settings: Settings, expert: int, names: Sequence[str], into: Tensors) -> None:
        """See `Compressed.rebuild`; `settings` change nothing.

        Raises:
            EvaluationError: the expert agrees with the elected sign nowhere, so no rescaler exists.
        """
        del settings
        factor = self.rescalers()[expert]
        if not math.isfinite(factor):
            who = self._layout.experts[expert]
            raise EvaluationError(f"emr: expert {who!r} agrees with the elected signs nowhere; it cannot be rebuilt")
        for name in names:
            base, out = self._stream.flat(0, name), self._stream.out(name, into)
            for part, deltas, unified in self._unified(name):
                change = unified.masked_fill_(deltas[expert] * unified <= 0, 0)
                out[part].copy_(change.mul_(factor).add_(base[part].to(change.dtype)))
            self._stream.copy_back([name], [out], into)

    def stored_bytes(self, settings: Settings) -> int:
        """The unified change in the base's dtype, a coded mask and a rescaler (float32) for each expert."""
        del settings
        if self._stored is None:
            self._stored = 4 * len(self._layout.experts)
            for name in self._stream.names:
                base, kept = self._stream.flat(0, name), [0] * len(self._layout.experts)
                for _, deltas, unified in self._unified(name):
                    kept = [n + int((delta * unified > 0).sum()) for n, delta in zip(kept, deltas, strict=True)]
                self._stored += base.numel() * base.element_size() + sum(mask_bytes(n, base.numel()) for n in kept)
        return self._stored

    def rescalers(self) -> tuple[float, ...]:
        """ρ_k for each expert; infinite or NaN for one that agrees nowhere."""
        if self._rescalers is None:
            own = np.zeros(len(self._layout.experts))
            shared = np.zeros_like(own)
            for name in self._stream.names:
                if self._stream.flat(0, name).numel():
                    for sums, means in zip((own, shared), self._means(name), strict=True):
                        sums += means
            with np.errstate(divide="ignore", invalid="ignore"):
                self._rescalers = tuple((own / shared).tolist())
        return self._rescalers

    def _means(self, name: str) -> tuple[list[float], list[float]]:
        """Of one tensor and each expert: the mean of |τ_k|, and of |M_k u|."""
        terms: list[tuple[list[float], list[float]]] = [([], []) for _ in self._layout.experts]
        for _, deltas, unified in self._unified(name, _SUMMED):
            for delta, (own, shared) in zip(deltas, terms, strict=True):
                own.append(float(delta.abs().double().sum()))
                shared.append(float(unified.masked_fill(delta * unified <= 0, 0).abs().double().sum()))
        numel = self._stream.flat(0, name).numel()
        return [math.fsum(own) / numel for own, _ in terms], [math.fsum(shared) / numel for _, shared in terms]

    def _chosen(self, name: str) -> torch.Tensor:
        """The mask of a tensor: uint8 (planes, N), at most one expert's bit set per entry."""
        base = self._stream.flat(0, name)
        planes = -(-len(self._layout.experts) // 8)
        mask = torch.zeros((planes, base.numel()), dtype=torch.uint8, device=base.device)
        for part, deltas, unified in self._unified(name):
            free = unified != 0
            for k, delta in enumerate(deltas):
                mine = free & (delta == unified)  # of equal changes the first expert's is read
                set_bit(mask[k // 8, part], mine, k % 8)
                free &= ~mine
        return mask

    def _unified(self, name: str, size: int | None = None) -> Iterator[tuple[slice, list[torch.Tensor], torch.Tensor]]:
        """For each chunk: its slice, the experts' changes, and the unified change, in the dtype to compute in."""
        base = self._stream.flat(0, name)
        dtype = wide(base.dtype)
        for part in chunks(base.numel(), base.device, size if base.device.type == "cpu" else None):
            centre = base[part].to(dtype)
            flats = [self._stream.flat(1 + k, name) for k in range(len(self._layout.experts))]
            deltas = [flat[part].to(dtype) - centre for flat in flats]
            stacked = torch.stack(deltas)
            above, below = stacked.amax(dim=0).clamp_(min=0), stacked.amin(dim=0).clamp_(max=0)
            yield part, deltas, torch.where(stacked.sum(dim=0) > 0, above, below)
