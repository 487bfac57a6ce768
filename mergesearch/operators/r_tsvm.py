"""R-TSVM (RESM), after the abstract: TSV-M that trusts experts with outlying entries and gives dense layers more rank.

Source: "Mix Data or Merge Models?", arXiv:2502.06876 (v1 and v2 say R-TSVM, v3 RESM). The abstract names outlier-aware
weights and sparsity-aware ranks; the formulas are ours. Weight of expert i in a matrix: K · softmax(o_i / (T · mean o))
over the experts, o_i being the share of its entries further than `outlier` standard deviations from the mean of their
row; so experts with equally many count as in TSV-M. Rank of a matrix: min(out, in) / K, times the share of entries of
the task vectors above `sparsity_threshold` times their root mean square, times what keeps the sum of all ranks.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, final

import numpy as np
import torch
from pydantic import Field

from mergesearch.operators.algebra.components import Components, Plan
from mergesearch.operators.algebra.matrices import NOT_MATRICES, matrix_names, matrix_shapes, task_matrix
from mergesearch.operators.algebra.singular import Directions, stored_entries
from mergesearch.operators.algebra.spectral import for_each, rank_of
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.stream import Stream
from mergesearch.operators.tsv_m import weights
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Scale, Settings


class Options(PluginOptions):
    """Options of `r_tsvm`."""

    exclude: tuple[str, ...] = NOT_MATRICES  # names that get the mean change though they are matrices
    sparsity_threshold: float = Field(0.1, ge=0.0)  # times the root mean square of an expert's change of a matrix


@final
class RTsvm(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source("R-TSVM (RESM): Mix Data or Merge Models?", "arXiv:2502.06876", Checked.ABSTRACT)
    KNOBS = (
        Knob("coefficient", 0.0, 2.0, 1.0, searched=True, doc="w_i: how much of an expert's component is added"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="α: a common factor on the merged change"),
        Knob("outlier", 2.0, 4.0, 3.0, Per.GROUP, doc="standard deviations from which an entry counts as outlying"),
        Knob("temperature", 0.1, 10.0, 1.0, Per.GROUP, Scale.LOG, doc="T: the higher, the more equal the experts"),
        Knob("rank_floor", 0.0, 1.0, 0.25, Per.GROUP, doc="least rank of a matrix, in min(out, in) / K"),
    )
    CACHE = "P1"
    DIFFERENTIABLE = ("coefficient", "scale")

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        """Per matrix, in float32: the experts' components, and singular vectors as if all matrices were as dense."""
        entries = 0
        for form in matrix_shapes(shapes, self._options.exclude).values():
            entries += stored_entries(form, experts, rank_of(form, experts, 1.0)) + experts * form[0] * form[1]
        return 4 * entries

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Weighed":
        return Weighed(base, experts, layout, self._options)


@final
class Weighed:
    """Prepared models of `r_tsvm`. Remembers the outlier shares at the last `outlier` of each matrix."""

    def __init__(self, base: Tensors, experts: Sequence[Tensors], layout: Layout, options: Options) -> None:
        self._base, self._experts, self._layout = base, experts, layout
        names = matrix_names(base, layout.group_of, options.exclude)
        dense = for_each(names, lambda name: self._dense(name, options.sparsity_threshold))
        self._full = {name: rank_of(base[name].shape, len(experts), 1.0) for name in names}
        spread = sum(d * k for d, k in zip(dense, self._full.values(), strict=True))
        factor = sum(self._full.values()) / spread if spread else 0.0
        self._rank = {name: round(d * factor * self._full[name]) for name, d in zip(names, dense, strict=True)}
        self._directions = Directions(base, experts, names, lambda name: max(self._rank[name], self._full[name]))
        self._shares: dict[str, tuple[float, list[float]]] = {}  # by matrix: `outlier`, what each expert has beyond it
        self._components = Components(
            Stream([base, *experts], list(layout.group_of)),
            layout,
            names,
            lambda name, key: self._directions.components(name, self.rank(name, key[0])),
            lambda settings, row: Plan((float(settings["rank_floor"][row, 0]),), weights(settings, row)),
            weights,
            self._balance,
            per_expert=True,
        )

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        self._share(settings, names)
        self._components.apply(settings, names, into)

    def pull_back(self, settings: Settings, slopes: Tensors) -> Settings:
        """See `Differentiable.pull_back`: of `coefficient` and `scale`."""
        self._share(settings, [name for name in self._layout.group_of if name in slopes])
        return self._components.pull_back(settings, slopes)

    def _share(self, settings: Settings, names: Sequence[str]) -> None:
        """Bring the outlier shares of `names` up to these settings."""
        group_of = self._layout.group_of
        wanted = {name: float(settings["outlier"][group_of[name], 0]) for name in names if name in self._full}
        stale = [name for name, outlier in wanted.items() if self._shares.get(name, (None,))[0] != outlier]
        self._shares.update(zip(stale, for_each(stale, lambda name: self._outlying(name, wanted[name])), strict=True))

    def rank(self, name: str, floor: float) -> int:
        """Directions that each expert has in a matrix."""
        short = min(self._base[name].shape[0], math.prod(self._base[name].shape[1:]))
        return min(max(1, int(floor * self._full[name]), self._rank[name]), short)

    def _dense(self, name: str, threshold: float) -> float:
        """Share of the entries of all experts' changes that are not small; 1 where nothing changed."""
        shares = []
        for expert in self._experts:
            size = task_matrix(self._base, expert, name).abs_()
            mean_square = float(size.square().mean())
            if mean_square > 0.0:
                shares.append(float((size > threshold * math.sqrt(mean_square)).double().mean()))
        return math.fsum(shares) / len(shares) if shares else 1.0

    def _outlying(self, name: str, deviations: float) -> tuple[float, list[float]]:
        matrices = (task_matrix(self._base, expert, name) for expert in self._experts)
        return deviations, [outlying(x, deviations) for x in matrices]

    def _balance(self, name: str, settings: Settings, row: int) -> list[float]:
        return balance(self._shares[name][1], float(settings["temperature"][row, 0]))


def balance(shares: Sequence[float], temperature: float) -> list[float]:
    """K · softmax(share / (T · mean share)) over K experts; all 1 where none has outliers."""
    if not any(shares):
        return [1.0] * len(shares)
    logits = np.array(shares) / (temperature * float(np.mean(shares)))
    powers = np.exp(logits - logits.max())
    return [float(w) for w in len(shares) * powers / powers.sum()]


def outlying(matrix: torch.Tensor, deviations: float) -> float:
    """Share of the entries further than so many standard deviations of their row from its mean."""
    centred = matrix - matrix.mean(dim=1, keepdim=True)
    width = centred.square().mean(dim=1, keepdim=True).sqrt()
    return float((centred.abs() > deviations * width).double().mean())
