"""Multi-SLERP: the mean direction of several experts at their mean length; SLERP's idea for more than two.

Source: C. Goddard's Multi-SLERP as in mergekit. With unit vectors u = v / ‖v‖ and m = Σ w u, the result is
(m / ‖m‖) · Σ w ‖v‖: the reference's tangent step, Σ w (u - ⟨u, m̂⟩ m̂), is 0 for every w and is left out. So a candidate
is a weighted sum whose weights follow from the inner products of the experts, known beforehand.
"""

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np
from pydantic import PositiveFloat

from mergesearch.operators.algebra.gram import cosines
from mergesearch.operators.algebra.sphere import GramSum, Table, dot, matvec, shares
from mergesearch.operators.base import Checked, Layout, MergeOperator, Prepared, Source, Tensors
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

_NOISE = 1e-7  # ‖m‖² is a sum with terms of size 1 that cancel, in float64: below this ‖m‖ is rounding alone


class Options(PluginOptions):
    """Options of `multi_slerp`."""

    task_vectors: bool = True  # v = θ_k - θ0, which has directions worth turning; off: v = θ_k, nearly an average
    normalize: bool = True  # divide the coefficients by their sum; off, a sum other than 1 rescales the result
    eps: PositiveFloat = 1e-8  # ‖m‖ at or below this share of Σ |w| has no direction: plain Σ w v


@final
class MultiSlerp(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "Multi-SLERP",
        "C. Goddard, mergekit (blog, 2025)",
        Checked.GOLDEN,
        (
            "Experts without a common direction are added linearly for any number of experts; the reference does so "
            "for two and stops with an error for more.",
            "eps is a share of the sum of the coefficients, never below 1e-7; the reference's is absolute and is also "
            "added to every norm, which shortens small tensors.",
        ),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 1.0, None, searched=True, doc="weight w_k of an expert's direction and length"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: how far from the base (0) to the mean (1), or beyond"),
    )
    CACHE = "P0"  # with scalars of a Gram matrix that is known

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Prepared:
        return GramSum(base, experts, layout, self._factors, task_vectors=self._options.task_vectors)

    def _factors(self, gram: Table, settings: Settings, rows: list[int]) -> Table:
        weights = shares("multi_slerp", settings, rows, self._options.normalize)
        norms = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))  # (T, K)
        turned = np.where(norms > 0, weights, 0.0)
        squared = np.maximum(dot(turned, matvec(cosines(gram), turned)), 0.0)  # ‖m‖², (T,)
        mean = np.sqrt(squared)
        linear = mean <= max(self._options.eps, _NOISE) * np.abs(turned).sum(axis=1)
        length = dot(weights, norms) / np.where(linear, 1.0, mean)
        along = turned / np.where(norms > 0, norms, 1.0) * length[:, None]
        return np.where(linear[:, None], weights, along)
