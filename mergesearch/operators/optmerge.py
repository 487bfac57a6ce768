"""OptMerge: WUDI on low-rank task vectors, by gradient descent with momentum from their mean.

Source: Wei et al., "Unifying multimodal large language models via model merging", arXiv:2505.19892. Each task vector is
cut to its ⌊min(out, in) / K⌋ largest singular values, and the interference is measured along their right vectors only:
L(M) = Σ w_k ‖(M - τ̂_k) G_kᵀ‖² / ‖τ_k‖² with G_k = S_k V_kᵀ. Descent on a quadratic loss acts along each eigenvector of
its Hessian by itself, so the `steps` are taken on the eigenvalues alone and cost nothing: the result is that of the
loop up to rounding. Other coefficients cost everything anew.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, final

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from mergesearch.errors import EvaluationError
from mergesearch.operators.algebra.at_base import AtBase, matching
from mergesearch.operators.algebra.components import Components, Key, Plan
from mergesearch.operators.algebra.matrices import NOT_MATRICES, matrix_names, matrix_shapes, task_matrices
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings


class Options(PluginOptions):
    """Options of `optmerge`."""

    steps: PositiveInt = 300
    learning_rate: PositiveFloat = 1e-4  # above 1 / (largest eigenvalue, at most the sum of coefficients) it diverges
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    exclude: tuple[str, ...] = NOT_MATRICES  # names that get the mean change though they are matrices
    at_base: tuple[str, ...] = (*NOT_MATRICES, "*norm*", "*.ln_*", "*bias*", "*visual*", "*vision*")
    # names that keep the base's values, the more so if `exclude` names them too


@final
class OptMerge(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "OptMerge",
        "arXiv:2505.19892",
        Checked.GOLDEN,
        ("A task vector of only zeros adds nothing; the authors' code divides by its norm.",),
    )
    KNOBS = (
        Knob("scale", 0.0, 1.2, 1.0, Per.GROUP, searched=True, doc="λ: a common factor on the merged change"),
        Knob("coefficient", 0.2, 3.0, 1.0, doc="w_k: weight of an expert's interference; 0 leaves it out"),
    )
    CACHE = "P4"  # in the coefficients; a change of the scale alone costs one pass
    DIFFERENTIABLE = ("scale",)

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        del experts
        forms = matrix_shapes(shapes, (*self._options.exclude, *self._options.at_base)).values()
        return 4 * sum(height * width for height, width in forms)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Descended":
        return Descended(base, experts, layout, self._options)


@final
class Descended:
    """Prepared models of `optmerge`: the change of every matrix is remembered at the last coefficients."""

    def __init__(self, base: Tensors, experts: Sequence[Tensors], layout: Layout, options: Options) -> None:
        self._base, self._experts, self._options = base, experts, options
        self._stream = Stream([base, *experts], list(layout.group_of))
        matrices = matrix_names(base, layout.group_of, (*options.exclude, *options.at_base))
        merged = Components(self._stream, layout, matrices, self._change, _plan, _mean)
        self._merged = AtBase(self._stream, 1 + len(experts), matching(layout.group_of, options.at_base), merged)

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`.

        Raises:
            EvaluationError: a coefficient below 0: the loss would have no minimum.
        """
        if (settings["coefficient"] < 0).any():
            raise EvaluationError("optmerge: coefficients must be at least 0, or the loss has no minimum")
        self._merged.apply(settings, names, into)

    def pull_back(self, settings: Settings, slopes: Tensors) -> Settings:
        """See `Differentiable.pull_back`: of `scale`."""
        return self._merged.pull_back(settings, slopes)

    def _change(self, name: str, weights: Key) -> list[torch.Tensor]:
        """M of one matrix: M0 - (M0 C - D) b(C), where C = AᵀA and so A b(AᵀA) = b(AAᵀ) A."""
        tasks = task_matrices(self._base, self._experts, name)
        used = [(task, weight) for task, weight in zip(tasks, weights, strict=True) if weight != 0]
        if not used:
            return [torch.zeros_like(tasks[0])]
        mean = torch.stack([task for task, _ in used]).mean(dim=0)
        keep = min(mean.shape) // len(used)
        guides, wanted = [mean[:0]], [mean[:, :0]]
        for task, weight in used:
            if (norm := float(task.square().sum())) > 0:
                guide, target = _guide(task, keep)
                guides.append(guide * math.sqrt(weight / norm))
                wanted.append(target * math.sqrt(weight / norm))
        a, target = torch.cat(guides), torch.cat(wanted, dim=1)  # (K keep, in), (out, K keep)
        values, vectors = torch.linalg.eigh(a @ a.T)
        gap = (mean @ a.T - target) @ vectors * self._way(values.clamp(min=0))
        return [torch.addmm(mean, gap @ vectors.T, a, alpha=-1.0)]

    def _way(self, values: torch.Tensor) -> torch.Tensor:
        """b(e): how far the steps go along an eigenvector, in units of the first residual (M0 C - D)."""
        b, speed = torch.zeros_like(values), torch.zeros_like(values)
        for _ in range(self._options.steps):
            speed = self._options.momentum * speed + 2.0 * (1.0 - values * b)  # the gradient is 2 (M C - D)
            b = b + self._options.learning_rate * speed
        return b


def _guide(task: torch.Tensor, keep: int) -> tuple[torch.Tensor, torch.Tensor]:
    """G = S Vᵀ (keep, in) and τ̂ Gᵀ = U S² (out, keep) of the largest `keep` singular values, from the smaller Gram."""
    if task.shape[0] <= task.shape[1]:
        values, left = torch.linalg.eigh(task @ task.T)
        left, squares = left[:, len(values) - keep :], values[len(values) - keep :].clamp(min=0)
        return left.T @ task, left * squares
    values, right = torch.linalg.eigh(task.T @ task)
    right, sizes = right[:, len(values) - keep :], values[len(values) - keep :].clamp(min=0).sqrt()
    return (right * sizes).T, task @ right * sizes


def _plan(settings: Settings, row: int) -> Plan:
    return Plan(tuple(map(float, settings["coefficient"][row])), (float(settings["scale"][row, 0]),))


def _mean(settings: Settings, row: int) -> list[float]:
    """Weights of the experts in tensors that are no matrices: Σ w τ / K, times the scale."""
    return [float(w) for w in settings["coefficient"][row] * settings["scale"][row, 0]]
