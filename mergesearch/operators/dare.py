"""DARE: drop entries of each change at random, rescale the rest; then add up (linear) or elect signs first (ties).

Source: Yu et al., arXiv:2311.03099. `density` is the share that is kept (the paper's 1 - p). Its rescaling keeps the
expectation: E[θ] = θ0 + λ Σ w_k τ_k, with variance λ² Σ w_k² τ_k² (1 - density) / density for each entry. The masks are
those of a counter (`passes/counter_random.py`): the same for every candidate of a study with one `seed`, nested from
one density to the next, so that a search sees no noise. Nothing is remembered, so a candidate costs one pass whatever
changes (`l1_norm`: one more when a density does). Good where experts overlap little; it harms where changes are large
(|τ| above about 0.03).
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, final

from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.thinned import Thinned, Thinning
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Scale

_SOURCE = Source(
    "DARE: Language Models are Super Mario",
    "arXiv:2311.03099",
    Checked.GOLDEN,
    (
        "The reference draws its masks from a shared random state in the order of the tensors; ours come from a counter"
        " keyed by seed, expert and tensor, so only recorded masks can be compared.",
        "mergekit leaves a tensor as it was dropped if a sum of magnitudes is below 1e-7, which is a matter of the"
        " tensor's scale; under `rescale: l1_norm` ours does if what is kept is below 1e-7 of the whole.",
    ),
)
_KNOBS = (
    Knob("coefficient", 0.0, 1.5, 0.3, searched=True, doc="w_k: weight of an expert's change"),
    Knob("density", 0.05, 0.95, 0.5, scale=Scale.LOGIT, doc="share of an expert's entries that is kept, at random"),
    Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the merged change"),
)


class Options(PluginOptions):
    """Options of `dare_linear` and `dare_ties`."""

    rescale: Literal["inverse_density", "l1_norm", "none"] = "inverse_density"  # the paper's; mergekit's; no rescaling
    normalize: bool = False  # divide by the sum of the coefficients (dare_ties: of those that agree with the sign)
    seed: int = 0  # which masks; average a few seeds only for the final pick


@final
class DareLinear(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = _SOURCE
    KNOBS = _KNOBS
    CACHE = "P2"  # the masks are drawn in the pass: nothing is remembered
    DIFFERENTIABLE = ("coefficient", "scale")

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self.how = Thinning("dare_linear", False, False, options.rescale, options.normalize, options.seed)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Thinned:
        return Thinned(base, experts, layout, self.how)


@final
class DareTies(MergeOperator):
    """DARE, then a sign elected per entry, as `ties` does in mergekit: for experts that pull in opposite directions."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = _SOURCE
    KNOBS = _KNOBS
    CACHE = "P2"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self.how = Thinning("dare_ties", False, True, options.rescale, options.normalize, options.seed)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Thinned:
        return Thinned(base, experts, layout, self.how)
