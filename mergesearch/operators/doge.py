"""DOGE: a shared correction of all task vectors, learned against their conflicts outside the space that they share.

Source: Wei et al., "Modeling multi-task model merging as adaptive projective gradient descent", arXiv:2501.01230. In
each matrix expert k has the weight λ_k = η / ‖τ_k‖. B spans the shared space: the ⌊s / subspace⌋ leading left vectors
of the experts' ⌊s / K⌋ leading ones, s = min(out, in). The correction δ starts at 0 and takes Adam steps on
Σ_j Σ_rows (Σ_cols τ_j ⊙ (τ_j - Σ λ_k τ_k - δ Σ λ_k))² along the part of the gradient outside B. Then
θ = θ0 + Σ w_k λ_k m_k ⊙ (τ_k + δ), m_k marking expert k's largest entries over all these matrices. All other tensors
keep the base's values. δ depends on η and `subspace` alone and is remembered; coefficients (ours; 1: the published
form), density and scale cost a pass.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from mergesearch.operators.algebra.adam import adam
from mergesearch.operators.algebra.matrices import NOT_MATRICES, matrix_names, matrix_shapes, task_matrices
from mergesearch.operators.algebra.spectral import for_each, svd
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.chunked import chunks, wide
from mergesearch.operators.passes.largest import kth_largest, magnitude_bits, set_bit
from mergesearch.operators.passes.shift_pass import shifted_sum
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings


class Options(PluginOptions):
    """Options of `doge`."""

    steps: PositiveInt = 400
    learning_rate: PositiveFloat = 1e-4  # absolute: no entry of δ moves further than steps · learning_rate
    exclude: tuple[str, ...] = NOT_MATRICES  # names that keep the base's values though they are matrices


@final
class Doge(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "DOGE",
        "arXiv:2501.01230",
        Checked.GOLDEN,
        (
            "Singular vectors of a singular value of 0 are not part of the shared space; the reference takes whatever "
            "vectors its library returns there.",
            "A task vector of only zeros adds nothing; the reference divides by its norm.",
            "A density of 1 keeps everything; the reference fails there.",
        ),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, 1.0, searched=True, doc="w_k: a factor on the weight η / ‖τ_k‖ of an expert"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the merged change"),
        Knob("density", 0.1, 1.0, 0.3, Per.EXPERT, doc="share of an expert's entries that is kept, of all matrices"),
        Knob("eta", 0.02, 0.3, 0.07, Per.GROUP, doc="η: length of an expert's change in each matrix"),
        Knob("subspace", 2, 12, 6, Per.GROUP, doc="divisor of the shared space; smaller: larger space", whole=True),
    )
    CACHE = "P1"  # given η and subspace; these cost everything anew

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        """δ in float32, and a byte per entry and 8 experts for what is kept."""
        entries = sum(height * width for height, width in matrix_shapes(shapes, self._options.exclude).values())
        return entries * (4 + -(-experts // 8))

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Corrected":
        return Corrected(base, experts, layout, self._options)


@dataclass(frozen=True)
class _Correction:
    """δ (N,) of one matrix and ‖τ_k‖ of every expert, at (η, subspace) = `key`."""

    key: tuple[float, int]
    delta: torch.Tensor
    norms: tuple[float, ...]


@final
class Corrected:
    """Prepared models of `doge`: δ at the last η and subspace, and what each expert keeps at the last densities."""

    def __init__(self, base: Tensors, experts: Sequence[Tensors], layout: Layout, options: Options) -> None:
        self._base, self._experts, self._layout, self._options = base, experts, layout, options
        self._stream = Stream([base, *experts], list(layout.group_of))
        self._matrices = matrix_names(base, layout.group_of, options.exclude)
        self._corrections: dict[str, _Correction] = {}
        self._masks: dict[str, torch.Tensor] = {}  # uint8 (planes, N): bit k % 8 of row k // 8 is expert k's
        self._densities: list[float | None] = [None] * len(experts)  # at which each expert's bits were set

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        for k, density in enumerate(settings["density"][0]):
            if self._densities[k] != density:
                self._densities[k] = None
                self._keep_largest(k, float(density))
                self._densities[k] = float(density)
        matrices = [name for name in names if name in self._masks]
        keys = {name: self._key(settings, name) for name in matrices}
        stale = [n for n in matrices if n not in self._corrections or self._corrections[n].key != keys[n]]
        for_each(stale, lambda name: self._correct(name, *keys[name]))
        weights = np.array([self._weights(settings, name) for name in matrices]).reshape(-1, len(self._experts))
        shifts = {name: self._corrections[name].delta for name in matrices}
        shifted_sum(self._stream, matrices, weights, self._masks, shifts, into)
        rest = [name for name in names if name not in self._masks]
        self._stream.weighted_sum(rest, np.zeros((len(rest), 1 + len(self._experts))), into, centred=True)

    def _key(self, settings: Settings, name: str) -> tuple[float, int]:
        row = self._layout.group_of[name]
        return float(settings["eta"][row, 0]), round(settings["subspace"][row, 0])

    def _weights(self, settings: Settings, name: str) -> NDArray[np.float64]:
        """scale · w_k · λ_k, 0 for a task vector of only zeros."""
        row, found = self._layout.group_of[name], self._corrections[name]
        lambdas = np.array([found.key[0] / norm if norm > 0 else 0.0 for norm in found.norms])
        weights: NDArray[np.float64] = settings["coefficient"][row] * settings["scale"][row, 0] * lambdas
        return weights

    def _correct(self, name: str, eta: float, subspace: int) -> None:
        self._corrections.pop(name, None)  # frees the old one before the new one is made
        tasks = task_matrices(self._base, self._experts, name)
        norms = tuple(math.sqrt(float(task.square().sum())) for task in tasks)
        lambdas = [eta / norm if norm > 0 else 0.0 for norm in norms]
        delta = _learn(tasks, lambdas, subspace, self._options)
        dtype = wide(self._base[name].dtype)
        self._corrections[name] = _Correction((eta, subspace), delta.to(dtype).reshape(-1).contiguous(), norms)

    def _keep_largest(self, k: int, density: float) -> None:
        """Set the bits of expert k: its int(density · N) + 1 largest |τ| of all matrices, and what equals the last."""
        stream = self._stream
        pairs = [(stream.flat(0, name), stream.flat(k + 1, name)) for name in self._matrices]
        if not pairs:
            return
        kept = int(density * sum(base.numel() for base, _ in pairs))
        threshold = 0 if density >= 1.0 else kth_largest(pairs, kept + 1, stream.compiled)[0]
        planes = -(-len(self._experts) // 8)
        for name, (base, expert) in zip(self._matrices, pairs, strict=True):
            if name not in self._masks:
                self._masks[name] = torch.zeros((planes, base.numel()), dtype=torch.uint8, device=base.device)
            for part in chunks(base.numel(), base.device):
                set_bit(self._masks[name][k // 8, part], magnitude_bits(base[part], expert[part]) >= threshold, k % 8)


def _learn(tasks: Sequence[torch.Tensor], lambdas: Sequence[float], subspace: int, options: Options) -> torch.Tensor:
    """δ (out, in) in float64."""
    short, total = min(tasks[0].shape), sum(lambdas)
    basis = svd(torch.cat([svd(task).u[:, : short // len(tasks)] for task in tasks], dim=1))
    shared = basis.u[:, : short // subspace]  # B (out, b)
    rows = torch.stack(list(tasks), dim=1)  # τ by row: (out, K, in)
    merged = sum((task * weight for task, weight in zip(tasks, lambdas, strict=True)), torch.zeros_like(tasks[0]))
    fixed = (rows * (rows - merged[:, None, :])).sum(dim=2)  # (out, K): what is inside the square at δ = 0

    def gradient(delta: torch.Tensor) -> torch.Tensor:
        inside = fixed - total * torch.bmm(rows, delta[:, :, None])[:, :, 0]
        full = torch.bmm(inside[:, None, :], rows)[:, 0, :].mul_(-2.0 * total)
        return full.sub_(shared @ (shared.T @ full))

    return adam(torch.zeros_like(merged), gradient, options.steps, options.learning_rate)
