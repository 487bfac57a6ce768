"""RegMean: for each linear layer the weights whose outputs are nearest to all the experts' on their own inputs.

Source: Jin et al., arXiv:2212.09849: W = (Σ w W_k G_k) (Σ w G_k)⁻¹ with the off-diagonal of G times α; everything else
is averaged. Not data-free: G (in, in), the mean of x xᵀ over a layer's inputs x, is measured on each expert's data
beforehand and given in `statistics`. A layer is solved anew only when its α or coefficients change.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, final

import torch
from pydantic import PositiveFloat

from mergesearch.errors import CheckpointError, EvaluationError
from mergesearch.operators.algebra.components import Components, Key, Plan
from mergesearch.operators.algebra.matrices import task_matrix
from mergesearch.operators.algebra.one_thread import one_thread
from mergesearch.operators.algebra.statistics import Headers, open_statistics, statistic
from mergesearch.operators.base import Checked, Layout, MergeOperator, Prepared, Source, Tensors
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings


class Options(PluginOptions):
    """Options of `regmean`."""

    # Expert -> a safetensors file with G for every linear layer, under its module's name (the weight's name without
    # '.weight'). A relative path starts at the current folder. null: nothing was measured, and all is averaged.
    statistics: dict[str, str] | None = None
    ridge: PositiveFloat = 1e-9  # added to the diagonal, as a share of its mean: inputs never seen are averaged


@final
class RegMean(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "RegMean",
        "arXiv:2212.09849",
        Checked.GOLDEN,
        ("Solved in float64 with a small ridge that pulls to the average; the reference inverts in float32.",),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 1.0, None, searched=True, doc="w_k: weight of an expert; only the ratios matter"),
        Knob("alpha", 0.1, 1.0, 0.9, Per.GROUP, doc="α: factor on the off-diagonal entries of G; 0.1 for T5"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: how far from the base (0) to the merge (1), or beyond"),
    )
    CACHE = "P4"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        del experts
        if self._options.statistics is None:
            return 0
        return sum(4 * math.prod(shape) for shape in shapes.values() if len(shape) == 2)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Prepared:
        headers: list[Headers] = []
        if self._options.statistics is not None:
            headers = open_statistics("regmean", self._options.statistics, layout.experts)
        stream, solver = Stream([base, *experts], list(layout.group_of)), Solver(base, experts, layout, headers)
        solver.check()
        ridge = self._options.ridge
        return Components(
            stream,
            layout,
            solver.matrices,
            lambda name, key: [solver.change(name, key, ridge)],
            lambda settings, row: Plan(
                (float(settings["alpha"][row, 0]), *_shares(settings, row, layout)), (float(settings["scale"][row, 0]),)
            ),
            lambda settings, row: [
                share * len(layout.experts) * float(settings["scale"][row, 0])
                for share in _shares(settings, row, layout)
            ],
        )


@final
class Solver:
    """The merged change of one linear layer from the experts' weights and G, which is read when it is needed."""

    def __init__(self, base: Tensors, experts: Sequence[Tensors], layout: Layout, headers: Sequence[Headers]) -> None:
        self._base, self._experts, self._layout, self._headers = base, experts, layout, headers
        known = {name for header in headers for name in header}
        self.matrices = [n for n in layout.group_of if base[n].ndim == 2 and n.removesuffix(".weight") in known]

    def check(self) -> None:
        """Raises CheckpointError where a G is missing, of another shape or not finite, or none fits the model."""
        if self._headers and not self.matrices:
            raise CheckpointError("statistics of 'regmean' hold no matrix of a merged layer; their names are those of "
                                  "modules, such as 'model.layers.0.mlp.up_proj'")  # fmt: skip
        for name in self.matrices:
            for k in range(len(self._headers)):
                self._gram(name, k)

    def _gram(self, name: str, k: int) -> torch.Tensor:
        inputs = self._base[name].shape[1]
        module, expert = name.removesuffix(".weight"), self._layout.experts[k]
        return statistic(self._headers[k], expert, module, (inputs, inputs), "matrix")

    def change(self, name: str, key: Key, ridge: float) -> torch.Tensor:
        """W - W_base (out, in) in float64 for `key` = (α, a share for each expert)."""
        alpha, *shares = key
        like = self._base[name]
        left = torch.zeros(like.shape[1], like.shape[1], dtype=torch.float64, device=like.device)  # Σ w G
        right = torch.zeros(like.shape, dtype=torch.float64, device=like.device)  # Σ w (W - W_base) G
        mean = torch.zeros_like(right)  # Σ w (W - W_base)
        with one_thread():
            for k, share in enumerate(shares):
                if share == 0:
                    continue
                given = self._gram(name, k).to(like.device).double()
                gram = (given * alpha).fill_diagonal_(0).add_(torch.diag(given.diagonal()))
                task = task_matrix(self._base, self._experts[k], name) * share
                left.add_(gram, alpha=share)
                right.add_(task @ gram)
                mean.add_(task)
            return _solved(left, right, mean, ridge)


def _solved(left: torch.Tensor, right: torch.Tensor, mean: torch.Tensor, ridge: float) -> torch.Tensor:
    """X of X (left + r) = right + r · mean; r is raised until rounding errors in `left` no longer stop Cholesky."""
    size = float(left.diagonal().mean()) if left.numel() else 0.0
    if size <= 0:
        return mean
    while ridge < 1:
        r = ridge * size
        factor, failed = torch.linalg.cholesky_ex(left + r * torch.eye(len(left), dtype=left.dtype, device=left.device))
        if not int(failed):
            solved: torch.Tensor = torch.cholesky_solve((right + r * mean).T, factor).T
            return solved
        ridge *= 100
    return mean


def _shares(settings: Settings, row: int, layout: Layout) -> list[float]:
    """Coefficients of a group, divided by their sum.

    Raises:
        EvaluationError: one is below 0, or none is above.
    """
    coefficient = settings["coefficient"][row]
    if (coefficient < 0).any() or not (coefficient > 0).any():
        raise EvaluationError(
            f"regmean: coefficients of group {layout.groups[row]!r} must be at least 0, and one above 0"
        )
    return [float(w) for w in coefficient / coefficient.sum()]
