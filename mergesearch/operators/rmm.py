"""Reversible merging of LoRA adapters: few basis vectors per position, from which every adapter comes back.

After the abstract of arXiv:2510.14163; the details are ours. At each position, a column of A or a row of s·B, the K
adapters are vectors x_k of R^r; a principal component analysis keeps x_k ≈ μ + U c_k with `basis` p components, so
that p(r + K) + r numbers stand for r K. A candidate is μ + U Σ w_k c_k: weights of 1 for one adapter and 0 for the rest
give that adapter back (exactly at p = K), equal weights of 1/K or weights of 0 give the mean factors μ.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.checkpoints.adapter import Adapter, LowRank
from mergesearch.operators.algebra.lora import Pair, adapted, write
from mergesearch.operators.algebra.one_thread import one_thread
from mergesearch.operators.base import AdapterOperator, Checked, Layout, Source, Tensors
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings


class Options(PluginOptions):
    """`rmm` has no options."""


@final
class Rmm(AdapterOperator):
    """AdapterOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "Reversible merging of low-rank weights (RMM)",
        "arXiv:2510.14163",
        Checked.ABSTRACT,
        ("Only the abstract was at hand: that the vectors are centred is inferred from the storage it reports.",),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, None, searched=True, doc="w_k: how much of an adapter's code is in the mixture"),
        Knob("basis", 1.0, None, 1.0, Per.GROUP, doc="p: principal components kept at each position", whole=True),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the change"),
    )
    CACHE = "P3"
    COMPRESSES = True

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        return 8 * experts * experts * sum(sum(shape) for shape in shapes.values() if len(shape) == 2)

    def prepare_adapters(self, base: Tensors, experts: Sequence[Adapter], layout: Layout) -> "Reversible":
        """See `AdapterOperator`."""
        return Reversible(base, adapted(base, experts, layout), layout)


@final
class Reversible:
    """Prepared adapters of `rmm`: mean, principal components and codes at every position. Compressed, too."""

    def __init__(self, base: Tensors, changes: Mapping[str, Sequence[LowRank | None]], layout: Layout) -> None:
        self._base, self._layout = base, layout
        self._sides: dict[str, tuple[_Side, _Side]] = {}
        self._bytes: dict[str, int] = {}  # of one number of a tensor's factors, as they were given
        for name, found in changes.items():
            present = [c for c in found if c is not None]
            rank = max(c.rank for c in present)
            like = present[0]
            empty = LowRank(like.up[:, :0], like.down[:0], 1.0)  # of an adapter that leaves this tensor alone
            every = [empty if c is None else c for c in found]
            ups = _Side([_padded(c.up.double().t() * c.scale, rank) for c in every])
            self._sides[name] = ups, _Side([_padded(c.down.double(), rank) for c in every])
            self._bytes[name] = like.up.element_size()

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        for name in names:
            write(self._base, name, self._pair(settings, name, None), into)

    def rebuild(self, settings: Settings, expert: int, names: Sequence[str], into: Tensors) -> None:
        """See `Compressed.rebuild`."""
        for name in names:
            write(self._base, name, self._pair(settings, name, expert), into)

    def stored_bytes(self, settings: Settings) -> int:
        """See `Compressed.stored_bytes`: p(r + K) + r numbers for each position, in the adapters' own dtype."""
        total, experts = 0, len(self._layout.experts)
        for name, sides in self._sides.items():
            p = self._components(settings, name)
            for side in sides:
                total += side.positions * (p * (side.rank + experts) + side.rank) * self._bytes[name]
        return total

    def _components(self, settings: Settings, name: str) -> int:
        return int(settings["basis"][self._layout.group_of[name], 0])

    def _pair(self, settings: Settings, name: str, expert: int | None) -> Pair | None:
        row = self._layout.group_of[name]
        scale = float(settings["scale"][row, 0])
        if name not in self._sides or scale == 0:
            return None
        weights = settings["coefficient"][row] if expert is None else np.eye(len(self._layout.experts))[expert]
        ups, downs = self._sides[name]
        p = self._components(settings, name)
        return ups.mixture(weights, p).t() * scale, downs.mixture(weights, p)


@final
class _Side:
    """The K adapters' vectors at every position of one factor: (r, positions) each, float64."""

    def __init__(self, vectors: Sequence[torch.Tensor]) -> None:
        total = vectors[0]
        for x in vectors[1:]:
            total = total + x
        self._mean = total / len(vectors)
        self._centred = [x - self._mean for x in vectors]
        self.rank, self.positions = self._mean.shape
        gram = torch.zeros(self.positions, len(vectors), len(vectors), dtype=torch.float64, device=total.device)
        for k, x in enumerate(self._centred):
            for j, y in enumerate(self._centred[: k + 1]):
                dots = gram[:, k, j]
                for row in range(self.rank):  # row by row: the order of adding is fixed
                    dots += x[row] * y[row]
                gram[:, j, k] = dots
        # With X = (x_1 ... x_K) centred, the components are X v for the eigenvectors v of XᵀX, and X̂ = X V Vᵀ.
        with one_thread():
            self._vectors = torch.linalg.eigh(gram).eigenvectors.flip(-1)  # (positions, K, K), largest first

    def mixture(self, weights: NDArray[np.float64], components: int) -> torch.Tensor:
        """μ + U Σ w_k c_k (r, positions) of the first `components`."""
        shares = [torch.full_like(self._mean[0], float(w)) for w in weights]
        if components < len(shares):
            projected = [torch.zeros_like(share) for share in shares]
            for p in range(components):
                code = sum((self._vectors[:, k, p] * share for k, share in enumerate(shares)), 0 * shares[0])
                for k in range(len(shares)):
                    projected[k] += self._vectors[:, k, p] * code
            shares = projected
        mixed = self._mean.clone()
        for share, x in zip(shares, self._centred, strict=True):
            mixed += x * share
        return mixed


def _padded(rows: torch.Tensor, rank: int) -> torch.Tensor:
    """(r, n) with rows of zeros up to `rank`: the product does not change."""
    return torch.cat([rows, rows.new_zeros(rank - len(rows), rows.shape[1])])
