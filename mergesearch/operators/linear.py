"""Weighted average of the experts (model soup): θ = Σ w_k θ_k, divided by Σ w_k by default. For siblings of a run.

Source: Wortsman et al., arXiv:2203.05482. The base is one more input where `base_weight` is above 0. A weight of 0
leaves that model unread.
"""

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from mergesearch.errors import EvaluationError
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.slopes import base_and_changes, by_group, in_first_column, slope_products
from mergesearch.operators.passes.stream import Stream, scaled
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings


class Options(PluginOptions):
    """Options of `linear`."""

    normalize: bool = True  # divide by the sum of the weights; off, a sum other than 1 rescales the network


@final
class Linear(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source("Model soups", "arXiv:2203.05482", Checked.GOLDEN)
    KNOBS = (
        Knob("coefficient", 0.0, 1.0, None, searched=True, doc="weight w_k of an expert"),
        Knob("base_weight", 0.0, 1.0, 0.0, Per.GROUP, doc="weight of the base among the averaged models; 0: left out"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: how far from the base (0) to the average (1), or beyond"),
    )
    CACHE = "P0"
    DIFFERENTIABLE = ("coefficient", "scale", "base_weight")

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Average":
        return Average(Stream([base, *experts], list(layout.group_of)), layout, self._options)


@final
class Average:
    """Prepared models of `linear`."""

    def __init__(self, stream: Stream, layout: Layout, options: Options) -> None:
        self._stream, self._layout, self._options = stream, layout, options

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`.

        Raises:
            EvaluationError: the weights of a group sum to 0 and are to be divided by their sum.
        """
        weights = np.concatenate([settings["base_weight"][:, :1], settings["coefficient"]], axis=1)  # (G, 1 + K)
        if self._options.normalize:
            total = weights.sum(axis=1, keepdims=True)
            zero = np.abs(total[:, 0]) < 1e-8
            rows = [self._layout.group_of[name] for name in names]
            if zero[rows].any():
                group = self._layout.groups[next(g for g in rows if zero[g])]
                raise EvaluationError(f"linear: the weights of group {group!r} sum to 0, so no average exists")
            weights = weights / np.where(zero[:, None], 1.0, total)
        weights = scaled(weights, settings["scale"][:, 0])
        rows = [self._layout.group_of[name] for name in names]
        self._stream.weighted_sum(names, weights[rows], into, centred=False)

    def pull_back(self, settings: Settings, slopes: Tensors) -> Settings:
        """See `Differentiable.pull_back`: of all knobs.

        With m = Σ w x / Σ w (or Σ w x) of the models x, base among them, and W = base + λ (m - base): ∂m/∂w_x is
        (x - m) / Σ w (or x). All in terms of x - base, where nothing cancels.
        """
        names = [name for name in self._layout.group_of if name in slopes]
        experts, rows = len(self._layout.experts), [self._layout.group_of[name] for name in names]
        found = slope_products(slopes, names, 1 + experts, lambda name: base_and_changes(self._stream, name))
        grouped = by_group(found, rows, len(self._layout.groups))  # (G, 1 + K): of the base, then of the changes
        weights = np.concatenate([settings["base_weight"][:, :1], settings["coefficient"]], axis=1)
        total = weights.sum(axis=1, keepdims=True)
        divided = (np.abs(total) >= 1e-8) & self._options.normalize
        weights = weights / np.where(divided, total, 1.0)
        # Divided, the weights sum to 1, and what the models share with the base drops out.
        of_base = np.where(divided, 0.0, grouped[:, :1])  # (G, 1)
        products = np.concatenate([of_base, grouped[:, 1:] + of_base], axis=1)  # <slope, x>, or <slope, x - base>
        mean = (weights * products).sum(axis=1, keepdims=True)
        moved = settings["scale"][:, :1] * np.where(divided, products - mean, products) / np.where(divided, total, 1.0)
        return {
            "coefficient": moved[:, 1:],
            "base_weight": in_first_column(moved[:, 0], experts),
            "scale": in_first_column((mean - of_base)[:, 0], experts),
        }
