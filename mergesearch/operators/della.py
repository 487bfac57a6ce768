"""DELLA: drop entries of each change at random, small ones more often; then elect signs and fuse, or add up (linear).

Source: Deep et al., arXiv:2406.11617 (MagPrune). In each row (over the last dimension; a vector is one row) the entry
of rank r = 1 .. c by magnitude is kept with probability (density - ε) + 2 ε (r - 1) / (c - 1); in a row of one entry
with `density`. `della` elects and averages what agrees, `della_linear` adds up. ε is clipped to min(density, 1 -
density) - 0.01, so that every point of a search can be built. Masks as in `dare_linear`; the ranks are remembered (2
bytes per entry and expert), so that a candidate costs one pass whatever changes (`l1_norm`: one more when a density or
an epsilon does).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, final

from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.row_ranks import rank_bytes
from mergesearch.operators.passes.thinned import Thinned, Thinning
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Scale

_SOURCE = Source(
    "DELLA-Merging",
    "arXiv:2406.11617",
    Checked.GOLDEN,
    (
        "The references draw their masks from a shared random state; ours come from a counter keyed by seed, expert and"
        " tensor, so only the keep probabilities, and results from recorded masks, can be compared.",
        "The references refuse an epsilon with density - epsilon <= 0 or density + epsilon >= 1; ours clips it.",
        "The references rank equal magnitudes by an unstable sort; ours keeps their order.",
        "The references divide by zero in rows of one entry; ours keeps such an entry with probability `density`.",
        "mergekit ranks over the second dimension; ours over the last, which differs for tensors of 3 dimensions.",
        "mergekit does not rescale if a sum of magnitudes is below 1e-7, which is a matter of the tensor's scale; under"
        " `rescale: l1_norm` ours does not if what is kept is below 1e-7 of the whole.",
        "The authors' entry without election still elects; `della_linear` adds up, as mergekit's does.",
    ),
)
_COEFFICIENT = Knob("coefficient", 0.0, 1.5, 1.0, searched=True, doc="w_k: weight of an expert's change")
_KNOBS = (
    Knob("density", 0.15, 0.85, 0.5, scale=Scale.LOGIT, doc="mean share of an expert's entries that is kept"),
    Knob("epsilon", 0.01, 0.49, 0.15, doc="how far the ranks move the keep probability to each side of the density"),
    Knob("scale", 0.0, 1.5, 1.1, Per.GROUP, doc="λ: a common factor on the merged change"),
)


class Options(PluginOptions):
    """Options of `della`."""

    rescale: Literal["l1_norm", "inverse_probability", "none"] = "l1_norm"  # mergekit's; the authors'; no rescaling
    normalize: bool = True  # divide by the sum of the coefficients that agree with the sign; makes them scale-free
    seed: int = 0  # which masks; average a few seeds only for the final pick


class LinearOptions(PluginOptions):
    """Options of `della_linear`."""

    rescale: Literal["l1_norm", "inverse_probability", "none"] = "l1_norm"  # mergekit's; the authors'; no rescaling
    normalize: bool = False  # divide by the sum of the coefficients
    seed: int = 0  # which masks; average a few seeds only for the final pick


@final
class Della(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = _SOURCE
    KNOBS = (_COEFFICIENT, *_KNOBS)
    CACHE = "P2"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self.how = Thinning("della", True, True, options.rescale, options.normalize, options.seed)

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        return _rank_memory(shapes, experts)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Thinned:
        return Thinned(base, experts, layout, self.how)


@final
class DellaLinear(MergeOperator):
    """DELLA without the election: what is kept is added up."""

    Options: ClassVar[type[PluginOptions]] = LinearOptions
    SOURCE: ClassVar[Source] = _SOURCE
    KNOBS = (replace(_COEFFICIENT, init=0.3), *_KNOBS)  # a plain sum of the changes is too much to start from
    CACHE = "P2"
    DIFFERENTIABLE = ("coefficient", "scale")

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, LinearOptions)
        self.how = Thinning("della_linear", True, False, options.rescale, options.normalize, options.seed)

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        return _rank_memory(shapes, experts)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Thinned:
        return Thinned(base, experts, layout, self.how)


def _rank_memory(shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
    return sum(math.prod(shape) * rank_bytes(shape) for shape in shapes.values()) * experts
