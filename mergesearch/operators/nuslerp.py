"""NuSLERP: SLERP between two experts' changes from the base (or the experts themselves), whole or vector by vector.

Source: mergekit's `nuslerp`. Two fine-tunes of one base are almost parallel, so SLERP of their weights is linear; their
changes are not. t = 0 is the first expert, t = 1 the second (the reference's t is w2 / (w1 + w2)).
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, final

import numpy as np
import torch

from mergesearch.errors import SpecError
from mergesearch.operators.algebra.gram import cosines, vector_gram
from mergesearch.operators.algebra.sphere import GramSum, Table
from mergesearch.operators.base import Checked, Layout, MergeOperator, Prepared, Source, Tensors
from mergesearch.operators.passes.stream import Stream
from mergesearch.operators.passes.vectors import vector_sum, vectors_of
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

_COLLINEAR = 1e-12  # 1 - cos² at or below it: linear. On the parallel side this changes no bit of a float32.


class Options(PluginOptions):
    """Options of `nuslerp`."""

    task_vectors: bool = True  # turn the changes from the base; off: the weights themselves
    flatten: bool = True  # one angle for each tensor; off: one for each vector along `axis`
    axis: Literal["last", "first"] = "last"  # vectors W[i, :] (last) or W[:, j] (first); a 1-D tensor is one vector


@final
class NuSlerp(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "NuSLERP",
        "mergekit",
        Checked.GOLDEN,
        (
            "The axis is named by where the vectors run: `axis: last` is the reference's `nuslerp_row_wise: false`, "
            "whose flag is inverted against its manual.",
            "Vectors count as collinear from 1 - cos² ≤ 1e-12 (the reference: 1e-16), since nearly opposite vectors "
            "would be stretched by rounding errors.",
            "A vector is without direction only where it is exactly 0; the reference floors norms at 1e-7, which turns "
            "the cosines of small changes towards 0.",
        ),
    )
    KNOBS = (
        Knob("t", 0.0, 1.0, 0.5, Per.GROUP, searched=True, doc="how far from the first expert (0) to the second (1)"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the change from the base"),
    )
    CACHE = "P0"
    MIN_EXPERTS = 2
    MAX_EXPERTS = 2

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Prepared:
        if len(experts) != 2:
            raise SpecError(f"operator 'nuslerp' merges exactly 2 experts beside the base, got {len(experts)}")
        if self._options.flatten:
            return GramSum(base, experts, layout, _flat_factors, task_vectors=self._options.task_vectors)
        return VectorArcs(base, experts, layout, self._options)


@final
class VectorArcs:
    """Prepared models of `nuslerp` vector by vector: the cosine of each pair of vectors is known."""

    def __init__(self, base: Tensors, experts: Sequence[Tensors], layout: Layout, options: Options) -> None:
        self._stream, self._layout, self._options = Stream([base, *experts], list(layout.group_of)), layout, options
        self._vectors = {name: vectors_of(base[name].shape, options.axis) for name in self._stream.names}
        self._cosine: dict[str, torch.Tensor] = {}  # (V,) float64
        for name, vectors in self._vectors.items():
            centre, *flat = (self._stream.flat(m, name) for m in range(3))
            table = vector_gram(flat, vectors, centre if options.task_vectors else None).permute(2, 0, 1)  # (V, 2, 2)
            self._cosine[name] = torch.from_numpy(cosines(table.cpu().numpy())[:, 0, 1].copy()).to(centre.device)

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        weights = []
        for name in names:
            row, cosine = self._layout.group_of[name], self._cosine[name]
            t, scale = float(settings["t"][row, 0]), float(settings["scale"][row, 0])
            first, second = arc_factors(torch.full_like(cosine, t), cosine)
            weights.append(torch.stack([torch.full_like(cosine, 1.0 - scale), first * scale, second * scale]))
        vector_sum(self._stream, names, self._vectors, weights, into, centred=self._options.task_vectors)


def _flat_factors(gram: Table, settings: Settings, rows: list[int]) -> Table:
    t = torch.from_numpy(settings["t"][rows, 0].copy())
    pair = arc_factors(t, torch.from_numpy(cosines(gram)[:, 0, 1].copy()))
    return np.asarray(torch.stack(pair, dim=1).numpy())


def arc_factors(t: torch.Tensor, cosine: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors (V,) of both un-normalised vectors at share t (V,) of the arc between them; linear where collinear."""
    linear = 1.0 - cosine * cosine <= _COLLINEAR
    angle = torch.acos(torch.where(linear, 0.0, cosine))  # π/2 where unused
    sine = torch.sin(angle)
    first = torch.where(linear, 1.0 - t, torch.sin((1.0 - t) * angle) / sine)
    return first, torch.where(linear, t, torch.sin(t * angle) / sine)
