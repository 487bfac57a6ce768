"""T-Switch: each expert's largest changes as signs of one common size, two bits per weight; to switch between experts.

After the abstract of Qi et al., arXiv:2412.00054 (CVPR 2025): the activation A_k marks the largest `density` of |τ_k|
in each tensor, the polarity P_k is their sign, and the switch knob κ_k keeps the length. Ours: κ_k is ‖A_k ⊙ τ_k‖₂ /
√(number of marked entries), the length of the *kept* part (whether the authors mean that or the whole of τ_k is
unverified), what is 0 is not marked, and tensors that are no matrices, embeddings and heads are stored and merged in
full. The merge is base + scale · Σ w_k κ_k A_k ⊙ P_k; `rebuild` gives base + κ_k A_k ⊙ P_k. Choosing an expert for each
input (Auto-Switch) needs a query set and learning sparsity and bit width (FlexSwitch) needs training: neither is built.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, final

import torch

from mergesearch.operators.algebra.matrices import NOT_MATRICES, matrix_names, matrix_shapes
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.codes import Codes, changed, stored
from mergesearch.operators.passes.largest import mark_largest, set_bit
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per


class Options(PluginOptions):
    """Options of `t_switch`."""

    exclude: tuple[str, ...] = NOT_MATRICES  # names that are stored in full though they are matrices


@final
class TSwitch(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source("T-Switch", "arXiv:2412.00054", Checked.ABSTRACT)
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, 0.3, searched=True, doc="w_k: how much of an expert's change is added"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the sum; `rebuild` does not read it"),
        Knob("density", 0.02, 0.7, 0.3, doc="share of an expert's entries in each tensor that is marked"),
    )
    CACHE = "P1"
    COMPRESSES = True

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        return sum(map(math.prod, matrix_shapes(shapes, self._options.exclude).values())) * -(-experts // 4)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Codes:
        stream = Stream([base, *experts], list(layout.group_of))

        def encode(name: str, k: int, density: float | None, plane: torch.Tensor) -> float:
            origin, expert = stream.flat(0, name), stream.flat(k + 1, name)
            count = min(max(1, int((density or 0.0) * origin.numel())), origin.numel())
            return _encode(origin, expert, count, plane, 2 * (k % 4), stream.compiled)

        matrices = matrix_names(base, layout.group_of, self._options.exclude)
        return Codes(stream, layout, matrices, 2, encode, structure="density")


def _encode(
    base: torch.Tensor, expert: torch.Tensor, count: int, plane: torch.Tensor, bit: int, compiled: bool
) -> float:
    """Write activation into `bit` of the plane and a negative sign into the next; returns κ."""
    mark_largest(base, expert, count, plane, bit, compiled)
    squares, active = [], 0
    for part, delta in changed(base, expert):
        marked = ((plane[part] >> bit) & 1).bool() & (delta != 0)
        set_bit(plane[part], marked, bit)
        set_bit(plane[part], marked & (delta < 0), bit + 1)
        squares.append(float(delta.mul_(marked).double().square_().sum()))
        active += int(marked.sum())
    return stored(math.sqrt(math.fsum(squares) / active) if active else 0.0, base.dtype)
