"""DO-Merging of LoRA adapters: column magnitudes and directions are summed apart. For adapters of unlike strength.

After the abstract of arXiv:2505.15875; the details are ours. W_k = s_k B_k A_k has column magnitudes m_k[j] =
‖W_k[:, j]‖ and directions D_k = W_k / m_k; the merge is λ / K² · (Σ μ_k m_k) ⊙ (Σ w_k D_k), which at λ = 1 and unit
weights is mean times mean. A column of zeros has direction 0. All of it stays a product of thin factors. With `steps`
above 0 the factors are first moved apart: gradient steps that lower ‖A_i A_jᵀ‖² and ‖B_iᵀ B_j‖² between adapters, held
back by a penalty on how far they move.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from pydantic import NonNegativeFloat, NonNegativeInt

from mergesearch.checkpoints.adapter import Adapter, LowRank
from mergesearch.operators.algebra.lora import Pair, Products, adapted, product
from mergesearch.operators.algebra.spectral import for_each
from mergesearch.operators.base import AdapterOperator, Checked, Layout, Source, Tensors
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

_ZERO = 1e-9  # a column this small beside the largest is rounding of the factors: its direction means nothing


class Options(PluginOptions):
    """Options of `do_merge`."""

    steps: NonNegativeInt = 0  # gradient steps that move the adapters' factors apart
    gamma: NonNegativeFloat = 1.0  # weight of the penalty on moving, in mean squared norms of the factors


@final
class DoMerge(AdapterOperator):
    """AdapterOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "DO-Merging",
        "arXiv:2505.15875",
        Checked.ABSTRACT,
        ("Only the abstract was at hand: the normalisation by K² and the form of the orthogonal steps are ours.",),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, 1.0, searched=True, doc="w_k: weight of an adapter's directions"),
        Knob("magnitude_coefficient", 0.0, 1.5, 1.0, doc="μ_k: weight of an adapter's column magnitudes"),
        Knob("scale", 0.0, 3.0, 1.0, Per.GROUP, doc="λ: a common factor; 1 is mean magnitude times mean direction"),
    )
    CACHE = "P1"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        return 8 * experts * sum(shape[-1] for shape in shapes.values() if len(shape) == 2)

    def prepare_adapters(self, base: Tensors, experts: Sequence[Adapter], layout: Layout) -> Products:
        """See `AdapterOperator`."""
        changes = adapted(base, experts, layout)

        def decouple(name: str) -> list[_Decoupled | None]:
            return [None if c is None else _decoupled(c) for c in self._apart(changes[name])]

        parts = dict(zip(changes, for_each(list(changes), decouple), strict=True))

        def factors(settings: Settings, row: int, name: str) -> Pair | None:
            found = parts.get(name)
            scale = float(settings["scale"][row, 0]) / len(layout.experts) ** 2
            if found is None or scale == 0:
                return None
            both = zip(found, settings["coefficient"][row], settings["magnitude_coefficient"][row], strict=True)
            used = [(part, float(w), float(m)) for part, w, m in both if part is not None]
            magnitude = torch.zeros_like(used[0][0].magnitude)
            for part, _, weight in used:
                magnitude += part.magnitude * weight
            sides = [(part.up * w, part.down * magnitude) for part, w, _ in used if w != 0]
            if not sides:
                return None
            return torch.cat([left * scale for left, _ in sides], dim=1), torch.cat([right for _, right in sides])

        return Products(base, layout, factors)

    def _apart(self, changes: Sequence[LowRank | None]) -> list[LowRank | None]:
        """The changes after the orthogonal steps."""
        at = [k for k, change in enumerate(changes) if change is not None]
        moved = list(changes)
        if self._options.steps == 0 or len(at) < 2:
            return moved
        present = [change for change in changes if change is not None]
        downs = separate([c.down.double() for c in present], self._options.steps, self._options.gamma)
        ups = separate([c.up.double().t() for c in present], self._options.steps, self._options.gamma)
        for k, change, down, up in zip(at, present, downs, ups, strict=True):
            moved[k] = LowRank(up.t(), down, change.scale)
        return moved


@dataclass(frozen=True, eq=False)
class _Decoupled:
    """up @ down has unit (or zero) columns, `magnitude` (in,) the lengths that they had. float64."""

    up: torch.Tensor
    down: torch.Tensor
    magnitude: torch.Tensor


def _decoupled(change: LowRank) -> _Decoupled:
    up, down = change.up.double(), change.down.double() * change.scale
    # ‖B a‖ = ‖R a‖ for B = Q R: no product of the matrix's size, and no cancellation as in aᵀ Bᵀ B a.
    columns = product(torch.linalg.qr(up).R, down, exact=True)  # (min(out, r), in)
    squares = torch.zeros_like(columns[0])
    for row in columns:  # row by row: the order of adding is fixed
        squares += row * row
    magnitude = squares.sqrt()
    magnitude = torch.where(magnitude > _ZERO * (magnitude.max() if magnitude.numel() else 0.0), magnitude, 0.0)
    return _Decoupled(up, down * torch.where(magnitude > 0, 1.0 / magnitude, 0.0), magnitude)


def separate(factors: Sequence[torch.Tensor], steps: int, gamma: float) -> list[torch.Tensor]:
    """Factors (r_k, d) after gradient steps on Σ_{i<j} ‖F_i F_jᵀ‖² + γ σ² Σ ‖δ_i‖², σ² their mean squared norm.

    The step is one over a bound of the curvature at the start, so that the sum falls.
    """
    squares = [math.fsum((f * f).flatten().tolist()) for f in factors]
    penalty = gamma * math.fsum(squares) / len(squares)
    bound = 3.0 * math.fsum(squares) + penalty
    if bound == 0:
        return list(factors)
    moved = list(factors)
    for _ in range(steps):
        slopes = []
        for i, factor in enumerate(moved):
            slope = (factor - factors[i]) * penalty
            for j, other in enumerate(moved):
                if j != i:
                    slope = slope + product(product(factor, other.t(), exact=True), other, exact=True)
            slopes.append(slope)
        moved = [factor - slope / bound for factor, slope in zip(moved, slopes, strict=True)]
    return moved
