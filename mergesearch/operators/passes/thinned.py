"""What DARE and DELLA prepare: models of which a candidate takes the entries that random masks keep."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.errors import EvaluationError
from mergesearch.operators.base import Layout, Tensors
from mergesearch.operators.passes.random_pass import Odds, RandomPass
from mergesearch.operators.passes.row_ranks import row_length, row_ranks
from mergesearch.operators.passes.slopes import by_group, slope_products, sum_gradient
from mergesearch.operators.passes.stream import Stream
from mergesearch.space import Settings

_MARGIN = 0.01
"""How near to 0 and 1 a rank may bring a keep probability: epsilon is clipped to min(density, 1 - density) - it."""
_NOTHING = 1e-7
"""A kept sum of magnitudes up to this share of the whole is not rescaled: too little was kept to make up for it."""

_SCRATCH = 1 << 25
"""Bytes of masks that are kept from one pass to the next."""


@dataclass(frozen=True)
class Thinning:
    """One of the four operators with its options. `ranked`: by rank, so with a knob `epsilon`; `elected`: by sign."""

    kind: str
    ranked: bool
    elected: bool
    rescale: str  # none, inverse_density, inverse_probability or l1_norm
    normalize: bool
    seed: int


@final
class Thinned:
    """Prepared models of DARE and DELLA.

    Kept in memory: ranks (DELLA), and under `l1_norm` the sums of magnitudes at the last densities; never a mask.
    `recorded`: masks to use instead of drawing them, see `RandomPass`.
    """

    def __init__(
        self,
        base: Tensors,
        experts: Sequence[Tensors],
        layout: Layout,
        how: Thinning,
        recorded: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        names = list(layout.group_of)
        self._stream, self._layout, self._how = Stream([base, *experts], names), layout, how
        shapes = {name: tuple(base[name].shape) for name in names}
        self._width = {name: row_length(shape) for name, shape in shapes.items()}
        ranks = row_ranks(self._stream, shapes, len(experts)) if how.ranked else {}
        self._pass = RandomPass(self._stream, layout.experts, how.seed, ranks, recorded)
        self._kept: dict[str, tuple[Odds, NDArray[np.int64]]] = {}  # kept sums (K,) and the odds (K, 2) they are of
        if how.rescale == "l1_norm":
            drawing = RandomPass(self._stream, layout.experts, how.seed, {})  # of no recorded mask: all entries count
            units = np.vectorize(_unit, otypes=[np.float32])(drawing.largest(names))
            self._units = dict(zip(names, units, strict=True))
            everything = np.zeros((*units.shape, 2), dtype=np.float32)
            everything[..., 0] = 1.0
            whole = drawing.sizes(names, everything, units, np.ones(units.shape, dtype=np.bool_))
            self._whole = dict(zip(names, whole, strict=True))

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`.

        Raises:
            EvaluationError: a density that is no share, an epsilon below 0, or a coefficient below 0 where signs are
                elected and normalised.
        """
        how = self._how
        rows = [self._layout.group_of[name] for name in names]
        coefficient, scale = settings["coefficient"][rows], settings["scale"][rows, 0]
        if how.elected and how.normalize and (coefficient < 0).any():
            raise EvaluationError(f"{how.kind}: coefficients must be at least 0, except with normalize: false")
        odds = self.odds(settings, names)
        if how.normalize and not how.elected:
            total = coefficient.sum(axis=1)
            scale = scale / np.where(np.abs(total) < 1e-8, 1.0, total)
        inverse = how.rescale == "inverse_probability"
        for batch, masks in self._batches(names):
            chosen = [names[i] for i in batch]
            weights = coefficient[batch] * self._factors(chosen, odds[batch], masks)
            if how.elected:
                votes = (weights, coefficient[batch], scale[batch])
                self._pass.elect(
                    chosen, *votes, odds[batch], into, normalize=how.normalize, inverse=inverse, masks=masks
                )
            else:
                self._pass.sum(chosen, weights * scale[batch, None], odds[batch], into, inverse=inverse, masks=masks)

    def pull_back(self, settings: Settings, slopes: Tensors) -> Settings:
        """See `Differentiable.pull_back`: of `coefficient` and `scale`, at the masks as they are. Not with election."""
        how = self._how
        names = [name for name in self._layout.group_of if name in slopes]
        odds = dict(zip(names, self.odds(settings, names), strict=True))
        inverse = how.rescale == "inverse_probability"
        products = slope_products(
            slopes, names, len(self._layout.experts), lambda name: self._pass.changes(name, odds[name], inverse)
        )
        if names:
            products *= self._factors(names, np.stack(list(odds.values())), {})
        grouped = by_group(products, [self._layout.group_of[name] for name in names], len(self._layout.groups))
        return sum_gradient(settings, grouped, normalize=how.normalize)

    def odds(self, settings: Settings, names: Sequence[str]) -> Odds:
        """(len(names), K, 2): p = low + step · rank of each tensor and expert.

        DARE: the density. DELLA: (density - ε) + 2 ε rank / (c - 1) in rows of c entries, the density where c is 1.
        """
        rows = [self._layout.group_of[name] for name in names]
        density = settings["density"][rows]
        odd = density[~((density >= 0) & (density <= 1))]
        if odd.size:
            raise EvaluationError(f"{self._how.kind}: a density is a share in [0, 1], got {odd[0]}")
        epsilon = settings["epsilon"][rows] if self._how.ranked else np.zeros_like(density)
        if not (epsilon >= 0).all():
            raise EvaluationError(f"{self._how.kind}: an epsilon is at least 0, got {epsilon.min()}")
        width = np.array([self._width[name] for name in names])[:, None]  # (T, 1)
        reach = np.minimum(epsilon, np.maximum(np.minimum(density, 1.0 - density) - _MARGIN, 0.0))
        reach = np.where(width > 1, reach, 0.0)
        return np.stack([density - reach, 2.0 * reach / np.maximum(width - 1, 1)], axis=-1).astype(np.float32)

    def probabilities(self, settings: Settings, name: str, k: int) -> torch.Tensor:
        """With what probability each entry of a tensor of expert k is kept: float32, flat; a scalar for DARE."""
        return self._pass.probabilities(name, k, self.odds(settings, [name])[0, k])

    def _batches(self, names: Sequence[str]) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """Rows of `names` to build together, and scratch memory for the masks of those that fit into `_SCRATCH` bytes.

        Under `l1_norm` the kept magnitudes are summed up before anything is written; the masks that this draws need not
        be drawn twice then.
        """
        if self._how.rescale != "l1_norm":
            yield list(range(len(names))), {}
            return
        planes = -(-len(self._layout.experts) // 8)
        batch: list[int] = []
        sizes: dict[str, int] = {}
        for i, name in enumerate(names):
            size = self._stream.flat(0, name).numel()
            fits = self._pass.compiles(name) and 0 < size * planes <= _SCRATCH
            if batch and fits and (sum(sizes.values()) + size) * planes > _SCRATCH:
                yield batch, _cut(sizes, planes)
                batch, sizes = [], {}
            batch.append(i)
            if fits:
                sizes[name] = size
        if batch:
            yield batch, _cut(sizes, planes)

    def _factors(self, names: Sequence[str], odds: Odds, masks: dict[str, torch.Tensor]) -> NDArray[np.float64]:
        """(len(names), K): by what an expert's kept changes are multiplied. Leaves in `masks` those that it drew."""
        if self._how.rescale == "inverse_density":
            low = odds[..., 0].astype(np.float64)
            return 1.0 / np.where(low > 0, low, 1.0)
        if self._how.rescale != "l1_norm":
            return np.ones(odds.shape[:2])
        self._measure(names, odds, masks)
        shape = odds.shape[:2]
        kept = np.array([self._kept[name][1] for name in names], dtype=np.float64).reshape(shape)
        whole = np.array([self._whole[name] for name in names], dtype=np.float64).reshape(shape)
        some = kept > _NOTHING * whole
        return np.where(some, whole / np.where(some, kept, 1.0), 1.0)

    def _measure(self, names: Sequence[str], odds: Odds, masks: dict[str, torch.Tensor]) -> None:
        """Bring `_kept` up to these odds, in one pass over the experts and tensors whose odds changed."""
        wanted = np.ones(odds.shape[:2], dtype=np.bool_)
        for i, name in enumerate(names):
            if name in self._kept:
                wanted[i] = (self._kept[name][0] != odds[i]).any(axis=1)
            if not wanted[i].all():
                masks.pop(name, None)  # not all of it would be drawn
        stale = np.flatnonzero(wanted.any(axis=1)).tolist()
        if not stale:
            return
        chosen = [names[i] for i in stale]
        units = np.array([self._units[name] for name in chosen])
        sums = self._pass.sizes(chosen, odds[stale], units, wanted[stale], masks)
        for i, name, new in zip(stale, chosen, sums, strict=True):
            old = self._kept[name][1] if name in self._kept else new
            self._kept[name] = (odds[i].copy(), np.where(wanted[i], new, old))


def _cut(sizes: Mapping[str, int], planes: int) -> dict[str, torch.Tensor]:
    """Zeros (planes, size) for each name."""
    ends = np.cumsum([0, *sizes.values()]) * planes
    memory = torch.zeros(int(ends[-1]), dtype=torch.uint8)
    return {name: memory[a:b].view(planes, -1) for name, a, b in zip(sizes, ends, ends[1:], strict=False)}


def _unit(largest: float) -> float:
    """The power of two that brings the largest change to between 2^29 and 2^30."""
    return 2.0 ** min(max(30 - math.frexp(largest)[1], -126), 126) if largest > 0 else 1.0
