"""SLERP of the base and one expert, tensor by tensor: t = 0 is the base, t = 1 the expert.

Source: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985; constants as in mergekit's `slerp`. Where
the two tensors are nearly parallel (|cos| > 0.9995, as two fine-tunes of one base almost always are) it is linear.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np
import torch

from mergesearch.errors import SpecError
from mergesearch.operators.algebra.gram import cosines, gram
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.stream import Stream, scaled
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

_PARALLEL = 0.9995
_NORM_FLOOR = 1e-8  # a norm at or below it counts as 1, so that a zero tensor has cosine 0


class Options(PluginOptions):
    """`slerp` has no options."""


@final
class Slerp(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source("SLERP", "Shoemake, SIGGRAPH 1985", Checked.GOLDEN)
    KNOBS = (
        Knob("t", 0.0, 1.0, 0.5, searched=True, doc="how far from the base (0) to the expert (1)"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the change from the base"),
    )
    CACHE = "P0"
    MAX_EXPERTS = 1

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Arc":
        if len(experts) != 1:
            raise SpecError(f"operator 'slerp' takes 1 expert beside the base, got {len(experts)}; use 'linear'")
        return Arc(Stream([base, *experts], list(layout.group_of)), layout)


@final
class Arc:
    """Prepared models of `slerp`: the cosine of each tensor pair is known, so a candidate is one weighted sum."""

    def __init__(self, stream: Stream, layout: Layout) -> None:
        self._stream, self._layout = stream, layout
        self._cosine = {name: _cosine(stream.flat(0, name), stream.flat(1, name)) for name in stream.names}

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        t = settings["t"][:, 0]
        rows = [self._layout.group_of[name] for name in names]
        pairs = [_factors(float(t[row]), self._cosine[name]) for row, name in zip(rows, names, strict=True)]
        weights = scaled(np.array(pairs).reshape(-1, 2), settings["scale"][rows, 0])
        self._stream.weighted_sum(names, weights, into, centred=False)


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Cosine of two flat tensors."""
    return float(cosines(gram([a, b]), _NORM_FLOOR)[0, 1])


def _factors(t: float, cosine: float) -> tuple[float, float]:
    """Factors of base and expert; both act on the un-normalised tensors."""
    if abs(cosine) > _PARALLEL:
        return 1.0 - t, t
    theta = math.acos(cosine)
    return math.sin((1.0 - t) * theta) / math.sin(theta), math.sin(t * theta) / math.sin(theta)
