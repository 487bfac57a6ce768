"""NearSwap: the expert where it is near the base, and no further from the base than `t` elsewhere. For gentle nudges.

Source: alchemonaut's QuartetAnemoi-70B model card (2024); mergekit's `nearswap`. θ = q ⊙ b + (1 - q) ⊙ a with base a,
expert b and q = min(t / |a - b|, 1). That is θ = a + q ⊙ (b - a) = a + min(max(b - a, -t), t): no division is needed.
"""

from collections.abc import Sequence
from typing import ClassVar, final

from mergesearch.errors import EvaluationError, SpecError
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.entrywise import limited_change
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Scale, Settings


class Options(PluginOptions):
    """`near_swap` has no options."""


@final
class NearSwap(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source("NearSwap", "mergekit, after alchemonaut's QuartetAnemoi-70B", Checked.GOLDEN)
    KNOBS = (
        Knob("t", 1e-5, 1e-1, 1e-4, scale=Scale.LOG, searched=True, doc="how far an entry may move from the base"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a factor on the change from the base"),
    )
    CACHE = "P2"
    MAX_EXPERTS = 1

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Near":
        if len(experts) != 1:
            raise SpecError(f"operator 'near_swap' takes 1 expert beside the base, got {len(experts)}; use 'linear'")
        return Near(Stream([base, *experts], list(layout.group_of)), layout)


@final
class Near:
    """Prepared models of `near_swap`; nothing is remembered."""

    def __init__(self, stream: Stream, layout: Layout) -> None:
        self._stream, self._layout = stream, layout

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`.

        Raises:
            EvaluationError: `t` below 0.
        """
        rows = [self._layout.group_of[name] for name in names]
        limit = settings["t"][rows, 0]
        if (limit < 0).any():
            raise EvaluationError(f"near_swap: t is a distance and must be at least 0, got {limit.min()}")
        limited_change(self._stream, names, limit, settings["scale"][rows, 0], into)
