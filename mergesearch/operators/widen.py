"""WIDEN: adds each expert's change column by column, weighted by how much the column changed in length and direction.

Source: Yu et al., arXiv:2408.03092; made for experts of which one was pre-trained on, whose changes are large. In each
expert the columns of a matrix are ranked by |change of length| and by 1 - cos with the base's column. Softmax over the
experts of rank / columns gives a weight, but ranks above `ratio` times their mean count `calibration`; the mean of the
two weights multiplies the column's change. Token embeddings are ranked by token. A vector's entries are weighted by
|change| itself in the same way.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import ClassVar, final

import torch

from mergesearch.operators.algebra.gram import total, vector_products
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.stream import Stream
from mergesearch.operators.passes.vectors import Vectors, entries_of, vector_sum, vectors_of
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

TOKENS = ("*embed*", "*wte*", "*wpe*", "*.shared.*", "shared.*")
"""Patterns of matrices with a row for each token or position."""


class Options(PluginOptions):
    """Options of `widen`."""

    tokens: tuple[str, ...] = TOKENS  # names of matrices whose rows, not columns, are ranked and weighted


@final
class Widen(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "WIDEN",
        "arXiv:2408.03092",
        Checked.GOLDEN,
        (
            "Lengths and cosines are float64 and equal values rank in the order of the columns; the reference's "
            "float32 can swap near-ties, which moves a whole column.",
        ),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, 1.0, searched=True, doc="w_k: a further weight on an expert's change"),
        Knob("ratio", 0.5, 2.0, 1.0, Per.GROUP, doc="a rank above this share of the mean rank is important"),
        Knob("calibration", 0.2, 1.2, 1.0, Per.GROUP, doc="the weight of what is important"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the change from the base"),
    )
    CACHE = "P1"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        counts = (_vectors(name, shape, self._options).count for name, shape in shapes.items())
        return sum(count * experts * 16 for count in counts)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Ranked":
        return Ranked(base, experts, layout, self._options)


@final
class Ranked:
    """Prepared models of `widen`: the ranks of all columns, and their weights at the last ratio and calibration."""

    def __init__(self, base: Tensors, experts: Sequence[Tensors], layout: Layout, options: Options) -> None:
        self._stream, self._layout = Stream([base, *experts], list(layout.group_of)), layout
        self._vectors = {n: _vectors(n, tuple(base[n].shape), options) for n in self._stream.names}
        self._matrices = {name for name in self._stream.names if base[name].ndim >= 2}
        self._ranks = {name: self._rank(name) for name in self._stream.names if name in self._matrices}
        self._mean = {name: self._mean_change(name) for name in self._stream.names if name not in self._matrices}
        self._made: dict[str, tuple[tuple[float, float], torch.Tensor]] = {}

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        weights = []
        for name in names:
            row = self._layout.group_of[name]
            importance = self._importance(
                name, float(settings["ratio"][row, 0]), float(settings["calibration"][row, 0])
            )
            factor = settings["coefficient"][row] * settings["scale"][row, 0]  # (K,)
            each = importance * torch.from_numpy(factor).to(importance.device)[:, None]
            weights.append(torch.cat([torch.ones_like(each[:1]), each]))  # (1 + K, V), the base's is unused
        vector_sum(self._stream, names, self._vectors, weights, into, centred=True)

    def _flat(self, name: str) -> list[torch.Tensor]:
        return [self._stream.flat(m, name) for m in range(len(self._layout.experts) + 1)]

    def _rank(self, name: str) -> torch.Tensor:
        """(2, K, V) int32: place of each vector among the V by change of length, and by change of direction."""
        experts = range(1, len(self._layout.experts) + 1)
        pairs = [(0, 0), *((0, k) for k in experts), *((k, k) for k in experts)]
        square, *rest = vector_products(self._flat(name), pairs, self._vectors[name])
        before, places = square.sqrt(), []
        for inner, squared in zip(rest[: len(experts)], rest[len(experts) :], strict=True):
            after = squared.sqrt()
            product = before * after
            cosine = torch.where(product > 0, inner / torch.where(product > 0, product, 1.0), 0.0)
            turn = torch.where((before == 0) & (after == 0), 0.0, 1.0 - cosine)
            both = torch.stack([(after - before).abs(), turn])
            places.append(both.argsort(dim=1, stable=True).argsort(dim=1).to(torch.int32))
        return torch.stack(places, dim=1)

    def _mean_change(self, name: str) -> list[float]:
        """Mean |change| of the entries of a vector for each expert."""
        base, *experts = self._flat(name)
        return [total(expert.double() - base.double()) / max(base.numel(), 1) for expert in experts]

    def _importance(self, name: str, ratio: float, calibration: float) -> torch.Tensor:
        """(K, V) float64: weight of each vector of each expert's change; made anew only where a knob changed."""
        if name in self._made and self._made[name][0] == (ratio, calibration):
            return self._made[name][1]
        if name in self._matrices:
            ranks, count = self._ranks[name], self._vectors[name].count
            soft = torch.softmax(ranks.double() / max(count, 1), dim=1)
            important = ranks > ratio * (count - 1) / 2  # the mean of 0 ... V - 1, without rounding at ratio 1
            found = soft.masked_fill(important, calibration).mean(dim=0)
        else:
            base, *experts = self._flat(name)
            change = torch.stack([(expert.double() - base.double()).abs() for expert in experts])  # (K, N)
            mean = torch.tensor(self._mean[name], dtype=torch.float64, device=change.device)[:, None]
            found = torch.softmax(change, dim=0).masked_fill(change > ratio * mean, calibration)
        self._made[name] = ((ratio, calibration), found)
        return found


def _vectors(name: str, shape: tuple[int, ...], options: Options) -> Vectors:
    """What of a tensor is weighted: columns, the rows of token embeddings, or single entries of a vector."""
    if len(shape) < 2:
        return entries_of(shape[0] if shape else 1)
    by_token = len(shape) == 2 and any(fnmatchcase(name, pattern) for pattern in options.tokens)
    return vectors_of(shape, "last" if by_token else "first")
