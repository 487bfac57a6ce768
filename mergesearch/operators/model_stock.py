"""Model Stock: the average of the experts, pulled towards the base by how far their changes disagree. No coefficients.

Source: Jang et al., arXiv:2403.19522. For siblings of one run. With cos θ the mean cosine between two experts' changes,
t = K cos θ / (1 + (K - 1) cos θ) and the result is base + t · (mean - base), tensor by tensor or row by row. The paper
has no knob; ours is a factor on t (`scale`, κ).
"""

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar, Literal, final

import numpy as np
import torch

from mergesearch.operators.algebra.gram import cosines, vector_gram
from mergesearch.operators.algebra.sphere import GramSum, Table
from mergesearch.operators.base import Checked, Layout, MergeOperator, Prepared, Source, Tensors
from mergesearch.operators.passes.stream import Stream
from mergesearch.operators.passes.vectors import vector_sum, vectors_of
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

_SINGULAR = 1e-6  # 1 + (K - 1) cos θ at or below it: opposed changes, of which nothing is kept


class Options(PluginOptions):
    """Options of `model_stock`."""

    rows: bool = False  # one t for each row W[..., :] instead of each tensor; a 1-D tensor is one row
    angle: Literal["cosine", "degrees"] = "cosine"  # what is averaged over the pairs of 3 or more experts


@final
class ModelStock(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "Model Stock",
        "arXiv:2403.19522",
        Checked.GOLDEN,
        (
            "A cosine is 0 only where a change is exactly 0; the reference floors the product of the norms at 1e-6, "
            "which shrinks the cosines of small changes and with them t.",
        ),
    )
    KNOBS = (Knob("scale", 0.0, 1.5, 1.0, Per.GROUP, searched=True, doc="κ: a factor on t, the paper's share"),)
    CACHE = "P0"
    MIN_EXPERTS = 2

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Prepared:
        if self._options.rows:
            return RowStock(base, experts, layout, self._options.angle)
        return GramSum(base, experts, layout, self._factors, task_vectors=True)

    def _factors(self, gram: Table, settings: Settings, rows: list[int]) -> Table:
        del settings, rows  # `scale` is applied by `GramSum`
        experts = gram.shape[1]
        share = shares_of(gram, self._options.angle) / experts
        return np.repeat(share[:, None], experts, axis=1)


@final
class RowStock:
    """Prepared models of `model_stock` with a share t for each row, known beforehand."""

    def __init__(
        self, base: Tensors, experts: Sequence[Tensors], layout: Layout, angle: Literal["cosine", "degrees"]
    ) -> None:
        self._stream, self._layout = Stream([base, *experts], list(layout.group_of)), layout
        self._vectors = {name: vectors_of(base[name].shape, "last") for name in self._stream.names}
        self._share: dict[str, torch.Tensor] = {}  # (V,) float64: t of each row
        for name, vectors in self._vectors.items():
            centre, *flat = (self._stream.flat(m, name) for m in range(len(experts) + 1))
            table = vector_gram(flat, vectors, centre).permute(2, 0, 1).cpu().numpy()  # (V, K, K)
            self._share[name] = torch.from_numpy(shares_of(table, angle)).to(centre.device)

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        experts = len(self._layout.experts)
        weights = []
        for name in names:
            scale = float(settings["scale"][self._layout.group_of[name], 0])
            weights.append((self._share[name] * (scale / experts)).expand(experts + 1, -1))  # the base's is unused
        vector_sum(self._stream, names, self._vectors, weights, into, centred=True)


def shares_of(gram: Table, angle: Literal["cosine", "degrees"]) -> Table:
    """t (T,) from Gram tables (T, K, K) of task vectors; 0 where 1 + (K - 1) cos θ is not above 1e-6."""
    experts, table = gram.shape[1], cosines(gram)
    pairs = list(combinations(range(experts), 2))
    total = np.zeros(len(gram))
    for i, j in pairs:
        total = total + (table[:, i, j] if angle == "cosine" else np.arccos(table[:, i, j]))
    mean = total / len(pairs) if angle == "cosine" else np.cos(total / len(pairs))
    below = 1.0 + (experts - 1) * mean
    share: Table = np.where(below > _SINGULAR, experts * mean / np.where(below > _SINGULAR, below, 1.0), 0.0)
    return share
