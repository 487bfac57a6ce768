"""KnOTS: task vectors are brought into one basis by an SVD and merged there. For LoRA adapters and their merges.

Source: Stoica et al., arXiv:2410.19735. The changes of a matrix stand side by side, [τ_1 ... τ_K] = U S [V_1 ... V_K];
expert k's part is S V_k. `combine: ties` keeps each part's largest entries (one threshold per expert over the whole
model), elects a sign per entry and merges what agrees; `mean` averages the kept entries, which at density 1 is task
arithmetic divided by K. Then U maps back. Adapters are never made dense: a QR of their stacked factors comes first.
Tensors that are no matrices keep the base's values.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from pydantic import PositiveFloat

from mergesearch.checkpoints.adapter import Adapter, LowRank
from mergesearch.errors import EvaluationError
from mergesearch.operators.algebra.lora import adapted, check_live, product, row_chunks
from mergesearch.operators.algebra.matrices import NOT_MATRICES, as_matrix, matrix_names, task_matrices
from mergesearch.operators.algebra.spectral import for_each, svd
from mergesearch.operators.base import AdapterOperator, Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.chunked import wide
from mergesearch.operators.passes.largest import kth_largest
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

_FLOOR = 1e-5  # singular values below this share of the largest are rounding, or lie outside all adapters

_CANCELS = 1e-6  # a sum of parts this small beside its terms is rounding, and elects no sign


class Options(PluginOptions):
    """Options of `knots`."""

    combine: Literal["ties", "mean"] = "ties"  # how the parts are merged
    merge_func: Literal["mean", "sum", "max"] = "mean"  # ties: of the agreeing entries; mean is weighted
    singular_value_floor: PositiveFloat | None = None  # drop singular values up to this; None: 1e-5 of the largest
    exclude: tuple[str, ...] = NOT_MATRICES  # patterns of tensors that keep the base's values (whole models only)


@final
class Knots(MergeOperator, AdapterOperator):
    """MergeOperator and AdapterOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "KnOTS",
        "arXiv:2410.19735",
        Checked.GOLDEN,
        (
            "Where kept entries cancel, the reference elects the sign of the majority over the whole "
            "model, which depends on the arbitrary signs of the singular vectors; here such an entry is 0.",
            "The reference drops singular values up to 1e-5 (another port 1e-4) in absolute terms; here 1e-5 of the "
            "largest, unless `singular_value_floor` gives a constant.",
        ),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, 1.0, searched=True, doc="w_k: weight of an expert's part"),
        Knob("density", 0.05, 1.0, 0.3, Per.EXPERT, doc="share of an expert's entries that is kept, largest first"),
        Knob("scale", 0.0, 1.5, 1.0, Per.GROUP, doc="λ: a common factor on the merged change"),
    )
    CACHE = "P3"
    WHOLE_MODEL = True  # a density sets one threshold for all tensors

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        total = 0
        for shape in shapes.values():
            if len(shape) >= 2 and min(shape) > 1:
                out, wide_ = shape[0], math.prod(shape[1:])
                total += 4 * min(out, experts * wide_) * (out + experts * wide_)
        return total

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Parts":
        """See `MergeOperator`."""

        def align(name: str) -> _Aligned:
            found = svd(torch.cat(task_matrices(base, experts, name), dim=1))
            return self._aligned(found.u, found.s, found.v.t().chunk(len(experts), dim=1), wide(base[name].dtype))

        names = sorted(matrix_names(base, layout.group_of, self._options.exclude))
        return Parts(base, dict(zip(names, for_each(names, align), strict=True)), layout, self._options)

    def prepare_adapters(self, base: Tensors, experts: Sequence[Adapter], layout: Layout) -> "Parts":
        """See `AdapterOperator`."""
        changes = adapted(base, experts, layout)

        def align(name: str) -> _Aligned:
            return self._aligned(*_svd_of_adapters(changes[name]), wide(base[name].dtype))

        names = sorted(changes)
        return Parts(base, dict(zip(names, for_each(names, align), strict=True)), layout, self._options)

    def _aligned(self, u: torch.Tensor, s: torch.Tensor, v: Sequence[torch.Tensor], dtype: torch.dtype) -> "_Aligned":
        floor = self._options.singular_value_floor
        limit = floor if floor is not None else _FLOOR * float(s.max() if s.numel() else 0.0)
        rank = int((s > limit).sum())
        parts = [(s[:rank, None] * part[:rank]).to(dtype).contiguous() for part in v]
        return _Aligned(u[:, :rank].to(dtype).contiguous(), parts)


def _svd_of_adapters(changes: Sequence[LowRank | None]) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """U (out, m), S (m,) and each expert's Vᵀ (m, in) of the adapters' changes side by side, in float64.

    [s_1 B_1 A_1 ...] = Q [R_1 L_1 ...] diag(P_1ᵀ, ...) with Q R = [s_1 B_1 ...] and A_k = L_k P_kᵀ, P_k orthonormal.
    """
    present = [change for change in changes if change is not None]
    q, r = torch.linalg.qr(torch.cat([c.up.double() * c.scale for c in present], dim=1))
    blocks, rows = [], []
    for change, columns in zip(present, r.split([c.rank for c in present], dim=1), strict=True):
        p, low = torch.linalg.qr(change.down.double().t())
        blocks.append(columns @ low.t())
        rows.append(p.t())
    u, s, v = torch.linalg.svd(torch.cat(blocks, dim=1), full_matrices=False)
    found = iter([part @ p for part, p in zip(v.split([b.shape[1] for b in blocks], dim=1), rows, strict=True)])
    nothing = torch.zeros(len(s), present[0].shape[1], dtype=u.dtype, device=u.device)
    return q @ u, s, [nothing if change is None else next(found) for change in changes]


@dataclass(frozen=True, eq=False)
class _Aligned:
    """One matrix in the common basis: `u` (out, r), and for each expert a part (r, in)."""

    u: torch.Tensor
    parts: Sequence[torch.Tensor]


@final
class Parts:
    """Prepared experts of `knots`. Thresholds are remembered for the last densities."""

    def __init__(self, base: Tensors, aligned: Mapping[str, _Aligned], layout: Layout, options: Options) -> None:
        self._base, self._aligned, self._layout, self._options = base, aligned, layout, options
        self._thresholds: dict[tuple[int, float], int] = {}  # (expert, density) -> bits of the smallest that is kept

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`.

        Raises:
            EvaluationError: a coefficient below 0 where entries are elected.
        """
        if self._options.combine == "ties" and (settings["coefficient"] < 0).any():
            raise EvaluationError("knots: coefficients must be at least 0 with 'combine: ties'; use 'combine: mean'")
        wanted = {k: float(d) for k, d in enumerate(settings["density"][0])}
        self._thresholds = {(k, d): self._threshold(k, d) for k, d in wanted.items()}
        limits = [self._thresholds[k, d] for k, d in wanted.items()]
        for name in names:
            row = self._layout.group_of[name]
            weights = [float(w) for w in settings["coefficient"][row]]
            self._write(name, weights, limits, float(settings["scale"][row, 0]), into[name].detach())

    def _threshold(self, k: int, density: float) -> int:
        """As float32 bits: the (int(density · N) + 1)-th largest magnitude of expert k's parts; 0 if all are kept."""
        if (k, density) in self._thresholds:
            return self._thresholds[k, density]
        parts = [aligned.parts[k].reshape(-1) for aligned in self._aligned.values() if aligned.parts[k].numel()]
        kept = int(density * sum(part.numel() for part in parts))
        if not parts or kept >= sum(part.numel() for part in parts):
            return 0
        pairs = [(part.new_zeros(1).expand(part.numel()), part) for part in parts]
        return kth_largest(pairs, kept + 1, compiled=False)[0]

    def _write(
        self, name: str, weights: Sequence[float], limits: Sequence[int], scale: float, live: torch.Tensor
    ) -> None:
        """One tensor of the candidate, in chunks of columns."""
        centre, aligned = self._base[name].detach(), self._aligned.get(name)
        check_live(name, live, centre)
        if aligned is None or scale == 0 or aligned.u.shape[1] == 0 or not any(weights):
            live.copy_(centre)
            return
        contiguous = live.is_contiguous()
        out = as_matrix(live if contiguous else torch.empty_like(centre, memory_format=torch.contiguous_format))
        base, exact = as_matrix(centre), centre.dtype == torch.float64
        u = aligned.u.double() * scale
        for columns in row_chunks(base, rows=False):
            merged = self._merged([part[:, columns] for part in aligned.parts], weights, limits)
            change = product(u, merged.double(), exact).to(aligned.u.dtype)
            out[:, columns].copy_(change.add_(base[:, columns].to(change.dtype)))
        if not contiguous:
            live.copy_(out.view(live.shape))

    def _merged(self, parts: Sequence[torch.Tensor], weights: Sequence[float], limits: Sequence[int]) -> torch.Tensor:
        """The experts' parts as one, entry by entry; any shape."""
        kept = [
            torch.where(part.float().abs().view(torch.int32) >= limit, part * weight, 0.0)
            for part, weight, limit in zip(parts, weights, limits, strict=True)
        ]
        total = kept[0]
        for delta in kept[1:]:
            total = total + delta
        if self._options.combine == "mean":
            return total / len(kept)
        size = torch.zeros_like(total)
        for delta in kept:
            size += delta.abs()
        sign = total.sign().masked_fill_(total.abs() <= _CANCELS * size, 0.0)
        merged, share = torch.zeros_like(total), torch.zeros_like(total)
        for delta, weight in zip(kept, weights, strict=True):
            agrees = delta * sign > 0
            if self._options.merge_func == "max":
                merged = torch.maximum(merged, torch.where(agrees, delta.abs(), 0.0))
            else:
                merged += torch.where(agrees, delta, 0.0)
                share += agrees.to(share.dtype).mul_(weight)
        if self._options.merge_func == "max":
            return merged * sign
        return merged / share.masked_fill(share == 0, 1.0) if self._options.merge_func == "mean" else merged
