"""Task arithmetic: θ = θ0 + λ Σ w_k (θ_k - θ0). The cheapest candidate per evaluation, and the first to try.

Source: Ilharco et al., arXiv:2212.04089. λ (`scale`) and the w_k (`coefficient`) are redundant: search one of them.
"""

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.slopes import by_group, changes, slope_products, sum_gradient
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings


class Options(PluginOptions):
    """Options of `task_arithmetic`."""

    normalize: bool = False  # divide by the sum of the coefficients, unless that is nearly 0 (below 1e-8)


@final
class TaskArithmetic(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source("Editing models with task arithmetic", "arXiv:2212.04089", Checked.GOLDEN)
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, 0.3, searched=True, doc="w_k: how much of an expert's change is added"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the sum"),
    )
    CACHE = "P0"
    DIFFERENTIABLE = ("coefficient", "scale")

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "TaskVectors":
        return TaskVectors(Stream([base, *experts], list(layout.group_of)), layout, self._options)


@final
class TaskVectors:
    """Prepared models of `task_arithmetic`: a task vector is formed as it is read, in float32."""

    def __init__(self, stream: Stream, layout: Layout, options: Options) -> None:
        self._stream, self._layout, self._options = stream, layout, options

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        weights = settings["coefficient"] * settings["scale"][:, :1]  # (G, K)
        if self._options.normalize:
            total = settings["coefficient"].sum(axis=1, keepdims=True)
            weights = weights / np.where(np.abs(total) < 1e-8, 1.0, total)
        weights = np.concatenate([np.ones((len(weights), 1)), weights], axis=1)  # (G, 1 + K), the base's is unused
        rows = [self._layout.group_of[name] for name in names]
        self._stream.weighted_sum(names, weights[rows], into, centred=True)

    def pull_back(self, settings: Settings, slopes: Tensors) -> Settings:
        """See `Differentiable.pull_back`: of both knobs."""
        names = [name for name in self._layout.group_of if name in slopes]
        experts, rows = len(self._layout.experts), [self._layout.group_of[name] for name in names]
        products = slope_products(slopes, names, experts, lambda name: changes(self._stream, name))
        grouped = by_group(products, rows, len(self._layout.groups))
        return sum_gradient(settings, grouped, normalize=self._options.normalize)
