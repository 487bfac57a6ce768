"""TIES: trim small changes, elect a sign per entry, average the changes that agree with it. Good against interference.

Source: Yadav et al., arXiv:2306.01708. `scope: tensor` is mergekit's form: the int(density · N) largest entries of each
tensor, weighted before the election. `scope: global` is the authors': one threshold per expert over the whole model
(which keeps int(density · N) + 1 entries), election at equal weights. Their 'mean' is `normalize: true`, 'sum' false.
What is kept depends on the density alone and is remembered: while only coefficients change, a candidate is one pass.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.errors import EvaluationError
from mergesearch.operators._chunked import chunks
from mergesearch.operators._largest import kth_largest, magnitude_bits, mark_largest, set_bit
from mergesearch.operators._stream import Stream
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings


class Options(PluginOptions):
    """Options of `ties`."""

    scope: Literal["tensor", "global"] = "tensor"  # over what the largest entries are taken
    normalize: bool = True  # divide by the sum of the agreeing coefficients; makes them scale-free


@final
class Ties(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source("TIES-Merging", "arXiv:2306.01708", Checked.GOLDEN)
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, 1.0, searched=True, doc="w_k: weight of an expert's change"),
        Knob("density", 0.05, 1.0, 0.2, doc="share of an expert's entries that is kept; one per expert if global"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the merged change"),
    )
    CACHE = "P2"  # a global density stands in every group's row, so a change of it reaches them all

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        return sum(math.prod(shape) for shape in shapes.values()) * -(-experts // 8)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Trimmed":
        return Trimmed(Stream([base, *experts], list(layout.group_of)), layout, self._options)


@final
class Trimmed:
    """Prepared models of `ties`. A byte per entry and 8 experts holds what each expert keeps at the last densities."""

    def __init__(self, stream: Stream, layout: Layout, options: Options) -> None:
        self._stream, self._layout, self._options = stream, layout, options
        self._masks: dict[str, torch.Tensor] = {}  # uint8 (planes, N): bit k % 8 of row k // 8 is expert k's
        self._densities: dict[str, tuple[float, ...]] = {}  # at which each mask was made

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`.

        Raises:
            EvaluationError: a coefficient below 0 (with `normalize` or a global scope), or densities that differ
                between groups under a global scope.
        """
        options, coefficient = self._options, settings["coefficient"]
        rows = [self._layout.group_of[name] for name in names]
        if (options.normalize or options.scope == "global") and (coefficient[rows] < 0).any():
            raise EvaluationError("ties: coefficients must be at least 0, except with scope 'tensor', normalize: false")
        if options.scope == "global":
            self._trim_globally(settings["density"])
        else:
            for name, row in zip(names, rows, strict=True):
                self._trim(name, settings["density"][row])
        scale = settings["scale"][rows, 0]
        self._stream.elect(names, coefficient[rows], scale, self._masks, into, normalize=options.normalize)

    def _mask(self, name: str) -> torch.Tensor:
        """The mask of a tensor, all kept where it is new."""
        if name not in self._masks:
            base = self._stream.flat(0, name)
            planes = -(-len(self._layout.experts) // 8)
            self._masks[name] = torch.full((planes, base.numel()), 255, dtype=torch.uint8, device=base.device)
        return self._masks[name]

    def _trim(self, name: str, density: NDArray[np.float64]) -> None:
        """Keep each expert's max(1, int(density · N)) largest entries of one tensor, unless that is so already."""
        wanted, numel = tuple(float(d) for d in density), self._stream.flat(0, name).numel()
        before = self._densities.get(name, (1.0,) * len(wanted))
        if wanted == before or numel == 0:
            return
        self._densities.pop(name, None)
        for k, (new, old) in enumerate(zip(wanted, before, strict=True)):
            if min(new, 1.0) == min(old, 1.0) and name in self._masks:
                continue
            plane = self._mask(name)[k // 8]
            if new >= 1.0 or new <= 0.0:
                set_bit(plane, torch.full_like(plane, new >= 1.0, dtype=torch.bool), k % 8)
            else:
                base, expert = self._stream.flat(0, name), self._stream.flat(k + 1, name)
                mark_largest(base, expert, max(1, int(new * numel)), plane, k % 8, self._stream.compiled)
        self._densities[name] = wanted

    def _trim_globally(self, density: NDArray[np.float64]) -> None:
        """Keep what passes each expert's threshold over the whole model and has the sign elected at equal weights."""
        if (density != density[:1]).any():
            raise EvaluationError(
                "ties with scope 'global' has one density per expert; set it 'per: expert' or 'study'"
            )
        wanted, names = tuple(float(d) for d in density[0]), self._stream.names
        if all(self._densities.get(name) == wanted for name in names):
            return
        self._densities.clear()
        thresholds = [self._threshold(k, d) for k, d in enumerate(wanted)]
        majority = sum(int(signs.sum()) for name in names for _, _, signs in self._elections(name, thresholds))
        for name in names:
            mask = self._mask(name)
            for part, kept, signs in self._elections(name, thresholds):
                positive = signs > 0 if majority <= 0 else signs >= 0
                for k, delta in enumerate(kept):
                    set_bit(mask[k // 8, part], torch.where(positive, delta > 0, delta < 0), k % 8)
            self._densities[name] = wanted

    def _threshold(self, k: int, density: float) -> int:
        """Bits of the smallest magnitude that expert k keeps: the (int(density · N) + 1)-th largest, 0 if all are."""
        stream = self._stream
        kept = int(density * sum(stream.flat(0, name).numel() for name in stream.names))
        if density >= 1.0:
            return 0
        pairs = [(stream.flat(0, name), stream.flat(k + 1, name)) for name in stream.names]
        return kth_largest(pairs, kept + 1, stream.compiled)[0]

    def _elections(
        self, name: str, thresholds: Sequence[int]
    ) -> Iterator[tuple[slice, list[torch.Tensor], torch.Tensor]]:
        """For each chunk: its slice, the trimmed changes of all experts (float32), and the signs of their sum."""
        base = self._stream.flat(0, name)
        for part in chunks(base.numel(), base.device):
            kept = []
            for k, threshold in enumerate(thresholds):
                expert = self._stream.flat(k + 1, name)[part]
                small = magnitude_bits(base[part], expert) < threshold
                kept.append((expert.float() - base[part].float()).masked_fill_(small, 0))
            yield part, kept, torch.stack(kept).sum(dim=0).sign()
