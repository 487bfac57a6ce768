"""LoRA-LEGO: the rank units of all adapters are clustered, and the cluster centres become one adapter.

After the abstract of arXiv:2409.16167; the details are ours. Unit j of an adapter is its row of A with its column of
s·B, both scaled to one norm, since (c a, b / c) is the same change. Weighted k-means over all units of a matrix gives k
centres: the rows and columns of the merged factors. Averaging shortens them, so each centre is stretched to the mean
norm of its members, and the product is scaled by √(r / k), r the largest rank of the adapters that have a weight.
"""

import hashlib
from collections.abc import Sequence
from typing import ClassVar, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt

from mergesearch.checkpoints.adapter import Adapter, LowRank
from mergesearch.errors import EvaluationError
from mergesearch.operators.algebra.lora import Pair, Products, adapted, product
from mergesearch.operators.base import AdapterOperator, Checked, Layout, Source, Tensors
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

Array: TypeAlias = NDArray[np.float64]

_GRID = 1e-10  # distances nearer than this share of the largest are equal: rounding must not choose a cluster
_STEPS = 100


class Options(PluginOptions):
    """Options of `lora_lego`."""

    seed: NonNegativeInt = 0  # of the first centres; another draw for each tensor
    restarts: PositiveInt = 4  # k-means runs, of which the one with the least spread counts


@final
class LoraLego(AdapterOperator):
    """AdapterOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "LoRA-LEGO",
        "arXiv:2409.16167",
        Checked.ABSTRACT,
        ("Only the abstract was at hand: the exact form of the dual reweighting (norms, √(r / k)) is ours.",),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, 1.0, searched=True, doc="weight of an adapter's units among all; scale-free"),
        Knob("clusters", 0.0, 128.0, 0.0, Per.GROUP, doc="k: rank of the merge, at most all units; 0: r", whole=True),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the merged change"),
    )
    CACHE = "P4"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def prepare_adapters(self, base: Tensors, experts: Sequence[Adapter], layout: Layout) -> Products:
        """See `AdapterOperator`."""
        units = {name: _Units(name, found, self._options) for name, found in adapted(base, experts, layout).items()}

        def factors(settings: Settings, row: int, name: str) -> Pair | None:
            weights = settings["coefficient"][row]
            if (weights < 0).any():
                raise EvaluationError("lora_lego: coefficients must be at least 0, they weight the units")
            scale = float(settings["scale"][row, 0])
            if name not in units or scale == 0:
                return None
            return units[name].merged(weights, int(settings["clusters"][row, 0]), scale)

        return Products(base, layout, factors)


@final
class _Units:
    """All rank units of one matrix. Clusters are found from their inner products alone, (R, R) in float64."""

    def __init__(self, name: str, changes: Sequence[LowRank | None], options: Options) -> None:
        present = [(k, c) for k, c in enumerate(changes) if c is not None]
        self._expert = np.repeat([k for k, _ in present], [c.rank for _, c in present])  # (R,): whose a unit is
        self._ranks = np.array([0 if c is None else c.rank for c in changes])
        up = torch.cat([c.up.double() * c.scale for _, c in present], dim=1)
        down = torch.cat([c.down.double() for _, c in present])
        grams = [product(x, x.t(), exact=True).cpu().numpy() for x in (up.t(), down)]
        norms = [np.sqrt(np.diag(gram)) for gram in grams]
        self._alive = (norms[0] > 0) & (norms[1] > 0)
        ratio = np.sqrt(np.divide(norms[0], norms[1], out=np.ones_like(norms[0]), where=self._alive))
        balance = torch.from_numpy(ratio).to(up.device)
        self._up, self._down = up / balance, down * balance[:, None]
        self._gram = grams[0] / np.outer(ratio, ratio) + grams[1] * np.outer(ratio, ratio)
        self._options = options
        digest = hashlib.sha256(f"lora_lego/{options.seed}/{name}".encode()).digest()
        self._key = int.from_bytes(digest[:16], "little")
        self._made: tuple[bytes, int, Array] | None = None

    def merged(self, weights: Array, clusters: int, scale: float) -> Pair | None:
        """The merged factors, or None where no adapter has a weight."""
        weight = np.where(self._alive, weights[self._expert], 0.0)
        used = np.flatnonzero(weight)
        if not len(used):
            return None
        rank = int(self._ranks[np.unique(self._expert[used])].max())
        wanted = min(clusters or rank, len(used))
        key = (weight + 0.0).tobytes()
        if self._made is None or self._made[:2] != (key, wanted):
            self._made = (key, wanted, self._centres(weight, used, wanted))
        mix = torch.from_numpy(self._made[2]).to(self._up.device)  # (R, k)
        factor = scale * float(np.sqrt(rank / mix.shape[1]))
        return product(self._up, mix, exact=True) * factor, product(mix.t(), self._down, exact=True)

    def _centres(self, weight: Array, used: NDArray[np.int64], clusters: int) -> Array:
        """(R, k): what each unit gives to each stretched centre."""
        gram, share = self._gram[np.ix_(used, used)], weight[used]
        random = np.random.Generator(np.random.Philox(key=self._key))
        runs = [_k_means(gram, share, clusters, random) for _ in range(self._options.restarts)]
        spread = [_steps(_spread(gram, share, member), gram) for member in runs]
        member = runs[int(np.argmin(spread))]
        mix = np.zeros((len(weight), member.max() + 1))
        norms = np.sqrt(np.diag(gram))
        for cluster in range(mix.shape[1]):
            own = np.flatnonzero(member == cluster)
            part = share[own] / share[own].sum()
            length = np.sqrt(max(float(part @ gram[np.ix_(own, own)] @ part), 0.0))
            wanted = float(part @ norms[own])
            # Members that cancel leave a centre of mere rounding, which must not be stretched.
            mix[used[own], cluster] = part * (wanted / length) if length > 1e-7 * wanted else 0.0
        return mix


def _steps(distances: Array | float, gram: Array) -> Array:
    """Squared distances in whole steps of a grid."""
    steps: Array = np.round(np.asarray(distances) / (_GRID * float(np.diag(gram).max())))
    return steps


def _distances(gram: Array, share: Array, member: NDArray[np.int64]) -> Array:
    """Squared distance (R, k) of every unit to every centre."""
    count = int(member.max()) + 1
    mix = np.zeros((len(gram), count))
    mix[np.arange(len(gram)), member] = share
    mix /= mix.sum(axis=0)
    inner = gram @ mix  # (R, k)
    squares: Array = np.diag(gram)[:, None] - 2 * inner + np.einsum("rk,rk->k", mix, inner)
    return np.clip(squares, 0.0, None)


def _spread(gram: Array, share: Array, member: NDArray[np.int64]) -> float:
    """Weighted sum of squared distances to the own centre."""
    return float(share @ _distances(gram, share, member)[np.arange(len(gram)), member])


def _k_means(gram: Array, share: Array, clusters: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Cluster of each unit, numbered from 0 without gaps: k-means++ and Lloyd's steps, weighted by `share`.

    Fewer clusters come out where units coincide.
    """
    square = np.diag(gram)
    first = int(np.searchsorted(np.cumsum(share), random.random() * share.sum(), side="right"))
    centres = [min(first, len(gram) - 1)]
    nearest = _steps(np.maximum(square + square[centres[0]] - 2 * gram[centres[0]], 0.0), gram)
    while len(centres) < clusters and (share * nearest).any():
        chances = np.cumsum(share * nearest)
        chosen = int(np.searchsorted(chances, random.random() * chances[-1], side="right"))
        centres.append(min(chosen, len(gram) - 1))
        distance = _steps(np.maximum(square + square[centres[-1]] - 2 * gram[centres[-1]], 0.0), gram)
        nearest = np.minimum(nearest, distance)
    apart = square[:, None] + square[centres][None, :] - 2 * gram[:, centres]
    member = np.argmin(_steps(np.maximum(apart, 0.0), gram), axis=1)
    for _ in range(_STEPS):
        _, member = np.unique(member, return_inverse=True)  # a cluster that lost its members is gone
        moved = np.argmin(_steps(_distances(gram, share, member), gram), axis=1)
        if (moved == member).all():
            break
        member = moved
    _, member = np.unique(member, return_inverse=True)
    return member.astype(np.int64)
