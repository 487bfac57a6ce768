"""DC-Merge: the experts' leading directions form one cover; within it only the largest entries that agree are kept.

Source: "DC-Merge", arXiv:2603.06242. As in TSV-M, the polar factors U⊥ and V⊥ of the experts' first k singular vectors;
M_i = U⊥ᵀ τ_i V⊥ of τ_i cut to k directions; of each M_i the int(density · s²) largest entries, s = min(out, in); of
these the mean over those that have the sign of Σ w_i M_i; of that the diagonal blocks, one for each expert; mapped back
by U⊥ and V⊥ᵀ. `rank` and `smoothing` are the authors' form for LoRAs (16; 'average' or 'linear'): k = rank for every
matrix, density over (K k)², and each spectrum evened out first, its sum kept. Tensors that are no matrices get the mean
change. All but the election is remembered: a candidate costs the small M_i and two products per matrix.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from pydantic import PositiveInt

from mergesearch.operators.algebra.components import Components, Key, Plan
from mergesearch.operators.algebra.matrices import NOT_MATRICES, matrix_names, matrix_shapes
from mergesearch.operators.algebra.singular import Directions, stored_entries
from mergesearch.operators.algebra.spectral import Svd, for_each, polar, rank_of, ratios_of
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.stream import Stream
from mergesearch.operators.tsv_m import weights
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Scale, Settings


class Options(PluginOptions):
    """Options of `dc_merge`."""

    exclude: tuple[str, ...] = NOT_MATRICES  # names that get the mean change though they are matrices
    rank: PositiveInt | None = None  # directions of each expert in every matrix; None: by `rank_share`
    smoothing: Literal["none", "average", "linear"] = "none"  # 'linear': falling evenly, by `ratio` from end to end


@final
class DcMerge(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "DC-Merge",
        "arXiv:2603.06242",
        Checked.GOLDEN,
        (
            "Directions without a singular value are left out of the cover; the reference puts in whatever vectors its "
            "decomposition returns.",
            "Embeddings and heads are excluded by default; the reference takes every two-dimensional tensor.",
        ),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 2.0, 1.0, searched=True, doc="w_i: weight of an expert's M_i in the election"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="α: a common factor on the merged change"),
        Knob("density", 1e-4, 1.0, 1e-3, Per.GROUP, Scale.LOG, doc="share of the entries of each M_i that is kept"),
        Knob("rank_share", 0.25, 1.0, 1.0, Per.GROUP, doc="directions of an expert, in min(out, in) / K"),
        Knob("ratio", 1.0, 20.0, 5.0, Per.GROUP, doc="ρ: largest over smallest singular value, smoothing 'linear'"),
    )
    CACHE = "P3"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        """Per matrix, in float32: singular vectors, what the polar step makes of them, M_i, the last merged change."""
        entries = 0
        for form in matrix_shapes(shapes, self._options.exclude).values():
            rank = min(self._options.rank or rank_of(form, experts, 1.0), *form)
            entries += 2 * stored_entries(form, experts, rank) + experts * (experts * rank) ** 2 + form[0] * form[1]
        return 4 * entries

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Covered":
        return Covered(base, experts, layout, self._options)


@dataclass(frozen=True)
class Cover:
    """`left` (D, out), `right` (D, in): U⊥ and V⊥, turned. `cores`: each expert's M_i (D, D). `sizes`: how many of the
    D directions are whose."""

    left: torch.Tensor
    right: torch.Tensor
    cores: list[torch.Tensor]
    sizes: list[int]


@final
class Covered:
    """Prepared models of `dc_merge`. Remembers each matrix' cover at its last `rank_share` and `ratio`, and what each
    expert keeps of its core at the last `density`."""

    def __init__(self, base: Tensors, experts: Sequence[Tensors], layout: Layout, options: Options) -> None:
        self._base, self._count, self._options = base, len(experts), options
        names = matrix_names(base, layout.group_of, options.exclude)
        self._directions = Directions(base, experts, names, lambda name: self._rank(name, 1.0))
        self._covers: dict[str, tuple[Key, Cover]] = {}
        self._limits: dict[str, tuple[Key, list[float]]] = {}
        start = {knob.name: knob.start(self._count) for knob in DcMerge.KNOBS}
        for_each(names, lambda name: self._cover(name, (start["rank_share"], start["ratio"])))
        stream = Stream([base, *experts], list(layout.group_of))
        self._components = Components(stream, layout, names, self._change, _plan, weights)

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        self._components.apply(settings, names, into)

    def _rank(self, name: str, share: float) -> int:
        return self._options.rank or rank_of(self._base[name].shape, self._count, share)

    def _change(self, name: str, key: Key) -> list[torch.Tensor]:
        """The merged change of a matrix for (rank_share, ratio, density, w_1 .. w_n)."""
        cover = self._cover(name, key[:2])
        return [map_back(cover, elect(cover, self._kept(name, cover, key[:3]), key[3:]))]

    def _cover(self, name: str, key: Key) -> Cover:
        if name not in self._covers or self._covers[name][0] != key:
            self._covers.pop(name, None)
            parts = self._directions.leading(name, self._rank(name, key[0]))
            self._covers[name] = (key, cover_of(parts, self._options.smoothing, key[1]))
        return self._covers[name][1]

    def _kept(self, name: str, cover: Cover, key: Key) -> list[float]:
        """The smallest magnitude that each expert keeps of its core, for (rank_share, ratio, density)."""
        if name not in self._limits or self._limits[name][0] != key:
            shape = self._base[name].shape
            rank = self._options.rank
            side = min(shape[0], math.prod(shape[1:])) if rank is None else self._count * rank
            count = max(1, int(key[2] * side * side))
            self._limits[name] = (key, [kth_largest(core, count) for core in cover.cores])
        return self._limits[name][1]


def _plan(settings: Settings, row: int) -> Plan:
    ratios, factor = ratios_of(settings["coefficient"][row])
    knobs = [float(settings[knob][row, 0]) for knob in ("rank_share", "ratio", "density")]
    return Plan((*knobs, *ratios), (factor * float(settings["scale"][row, 0]),))


def cover_of(parts: Sequence[Svd], smoothing: str, ratio: float) -> Cover:
    """The cover of the experts' singular triples."""
    sizes, dtype = [len(part.s) for part in parts], parts[0].s.dtype
    sides = []
    for vectors in ([part.u for part in parts], [part.v for part in parts]):
        x = torch.cat(vectors, dim=1)
        orthogonal = polar(x).T.contiguous()
        within = orthogonal.double() @ x.double()  # coordinates of the singular vectors in the cover
        sides.append((orthogonal, torch.split(within, sizes, dim=1)))
    (left, u), (right, v) = sides
    spectra = [smoothed(part.s.double(), smoothing, ratio) for part in parts]
    cores = [Svd(u[i], s, v[i]).sum().to(dtype) for i, s in enumerate(spectra)]
    return Cover(left, right, cores, sizes)


def smoothed(values: torch.Tensor, smoothing: str, ratio: float) -> torch.Tensor:
    """A spectrum evened out, of the same sum; for 'linear' no steeper than it was."""
    if smoothing == "none" or not len(values):
        return values
    steepness = 1.0 if smoothing == "average" else min(ratio, float(values[0] / values[-1]))
    shape = torch.linspace(steepness, 1.0, len(values), dtype=values.dtype, device=values.device)
    return shape * (values.sum() / shape.sum())


def kth_largest(core: torch.Tensor, count: int) -> float:
    """The magnitude of the entry that is `count`-th by it; 0 where there are fewer."""
    size = core.abs().flatten()
    if count > len(size):
        return 0.0
    if count * 128 <= len(size):  # a heap of few beats a selection among all
        return float(size.topk(count).values[-1])
    return float(size.kthvalue(len(size) - count + 1).values)


def elect(cover: Cover, limits: Sequence[float], coefficients: Sequence[float]) -> list[torch.Tensor]:
    """The block (k, k) of every expert: the mean of the kept entries of all that have the sign of their sum."""
    blocks, start = [], 0
    for size in cover.sizes:
        block = slice(start, start + size)
        start += size
        kept = []
        for core, limit, weight in zip(cover.cores, limits, coefficients, strict=True):
            x = core[block, block]
            kept.append(torch.where(x.abs() >= limit, x * weight, torch.zeros_like(x)))
        stacked = torch.stack(kept)
        agreeing = stacked.sign() == stacked.sum(dim=0).sign()
        total = (stacked * agreeing).sum(dim=0)  # all zeros where the sum is zero: only zeros agree with it
        blocks.append(total / agreeing.sum(dim=0).clamp(min=1))
    return blocks


def map_back(cover: Cover, blocks: Sequence[torch.Tensor]) -> torch.Tensor:
    """U⊥ M V⊥ᵀ (out, in) of a block-diagonal M; what of it is zero is not multiplied."""
    left, right, start = [], [], 0
    for block in blocks:
        rows, cols = (block.any(dim=side).nonzero().flatten() for side in (1, 0))
        left.append(cover.left[start + rows])
        right.append(block[rows][:, cols] @ cover.right[start + cols])
        start += len(block)
    return torch.cat(left).T @ torch.cat(right)
