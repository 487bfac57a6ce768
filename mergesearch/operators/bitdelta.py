"""BitDelta: each block's change as its signs and one scale, one bit per weight and expert; to serve many experts.

Source: Liu et al., arXiv:2402.10193. Δ̂_k = s_k · sign(Δ_k) with s_k = mean |Δ_k|, the least-squares scale for signs,
and sign(0) = +1. The merge is base + scale · Σ w_k · multiplier · Δ̂_k; `rebuild` gives base + multiplier · Δ̂_k. Tensors
that are no matrices, embeddings and heads are stored and merged in full. The authors go on to fit the scales to
calibration text, which this package does not have; `multiplier` stands in for that.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, final

import torch

from mergesearch.operators.algebra.matrices import NOT_MATRICES, matrix_names, matrix_shapes
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.codes import Codes, changed, stored
from mergesearch.operators.passes.largest import set_bit
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per


class Options(PluginOptions):
    """Options of `bitdelta`."""

    exclude: tuple[str, ...] = NOT_MATRICES  # names that are stored in full though they are matrices


@final
class BitDelta(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "BitDelta",
        "arXiv:2402.10193",
        Checked.GOLDEN,
        ("The scales are not distilled on calibration text: this package merges without data.",),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, 0.3, searched=True, doc="w_k: how much of an expert's change is added"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the sum; `rebuild` does not read it"),
        Knob("multiplier", 0.5, 1.5, 1.0, Per.GROUP, doc="factor on s_k, in the merge and in `rebuild`"),
    )
    CACHE = "P1"
    COMPRESSES = True

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        return sum(map(math.prod, matrix_shapes(shapes, self._options.exclude).values())) * -(-experts // 8)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Codes:
        stream = Stream([base, *experts], list(layout.group_of))

        def encode(name: str, k: int, _: float | None, plane: torch.Tensor) -> float:
            origin, expert = stream.flat(0, name), stream.flat(k + 1, name)
            sizes = []
            for part, delta in changed(origin, expert):
                set_bit(plane[part], delta >= 0, k % 8)
                sizes.append(float(delta.abs_().sum(dtype=torch.float64)))
            return stored(math.fsum(sizes) / origin.numel(), origin.dtype)

        matrices = matrix_names(base, layout.group_of, self._options.exclude)
        return Codes(stream, layout, matrices, 1, encode, multiplier="multiplier")
