"""MagMax: in each entry the one change of largest magnitude, from whichever expert it comes. For experts that differ.

Source: Marczak et al., arXiv:2407.06322. θ = θ0 + λ w_i τ_i with the i of largest |w_i τ_i|; of equal ones the later
expert wins. Coefficients are ours and decide the choice too, so a candidate is one pass that chooses as it goes.
"""

from collections.abc import Sequence
from typing import ClassVar, final

from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.entrywise import largest_change
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings


class Options(PluginOptions):
    """`magmax` has no options."""


@final
class MagMax(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source("MagMax", "arXiv:2407.06322", Checked.GOLDEN)
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, 1.0, doc="w_k: factor on an expert's change, before the largest is chosen"),
        Knob("scale", 0.0, 1.2, 0.5, Per.GROUP, searched=True, doc="λ: a common factor on the merged change"),
    )
    CACHE = "P2"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Largest":
        return Largest(Stream([base, *experts], list(layout.group_of)), layout)


@final
class Largest:
    """Prepared models of `magmax`; nothing is remembered."""

    def __init__(self, stream: Stream, layout: Layout) -> None:
        self._stream, self._layout = stream, layout

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        rows = [self._layout.group_of[name] for name in names]
        largest_change(self._stream, names, settings["coefficient"][rows], settings["scale"][rows, 0], into)
