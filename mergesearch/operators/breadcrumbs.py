"""Model breadcrumbs: drop the smallest and the few largest changes of each tensor, add the rest. Good for many experts.

Source: Davari and Belilovsky, arXiv:2312.06795, in mergekit's per-tensor form. Of N entries in ascending order of
magnitude, ranks [b, b + int(density · N)) are kept, where b = max(0, N - int(density · N) - int(gamma · N)): the
int(gamma · N) largest go first, then as many of the smallest as the density leaves over. Where gamma is at least
1 - density no small entries go, and only the N - int(density · N) largest do. Of equal magnitudes the entry that comes
first in the tensor counts as the larger. `breadcrumbs` adds what is left, `breadcrumbs_ties` elects a sign per entry
first, as `ties` does. Where the kept entries end is remembered until density or gamma changes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, final

import numpy as np

from mergesearch.errors import EvaluationError
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.chunked import Window
from mergesearch.operators.passes.slopes import by_group, slope_products, sum_gradient
from mergesearch.operators.passes.stream import Stream
from mergesearch.operators.passes.trim import BYTES_PER_ENTRY, Trim
from mergesearch.operators.passes.windowed import window_changes, windowed_sum
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

_SOURCE = Source(
    "Model breadcrumbs",
    "arXiv:2312.06795",
    Checked.GOLDEN,
    (
        "The authors' code ranks within each row of the last dimension; here, as in mergekit, within a tensor.",
        "mergekit leaves the choice among entries of equal magnitude to an unstable sort; here the first of them "
        "counts as the largest.",
    ),
)
_KNOBS = (
    Knob("coefficient", 0.0, 1.5, 0.3, searched=True, doc="w_k: weight of an expert's kept changes"),
    Knob("density", 0.05, 0.98, 0.9, doc="share of an expert's entries that is kept"),
    Knob("gamma", 0.0, 0.2, 0.01, doc="share of the entries, the largest ones, that is dropped"),
    Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the merged change"),
)


class Options(PluginOptions):
    """Options of `breadcrumbs` and `breadcrumbs_ties`."""

    normalize: bool = False  # divide by the sum of the coefficients (of those that agree, with an election)


@final
class Breadcrumbs(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = _SOURCE
    KNOBS = _KNOBS
    CACHE = "P1"
    DIFFERENTIABLE = ("coefficient", "scale")

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        return _extra_bytes(shapes, experts)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Crumbs":
        return Crumbs(Stream([base, *experts], list(layout.group_of)), layout, self._options, elects=False)


@final
class BreadcrumbsTies(MergeOperator):
    """Breadcrumbs, then a sign elected per entry, as `ties` does: for many experts that pull in opposite directions."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = _SOURCE
    KNOBS = _KNOBS
    CACHE = "P2"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        return _extra_bytes(shapes, experts)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Crumbs":
        return Crumbs(Stream([base, *experts], list(layout.group_of)), layout, self._options, elects=True)


@final
class Crumbs:
    """Prepared models of both kinds."""

    def __init__(self, stream: Stream, layout: Layout, options: Options, elects: bool) -> None:
        self._stream, self._layout, self._options, self._elects = stream, layout, options, elects
        experts = range(len(layout.experts))
        self._trim = Trim(stream, [*experts, *experts])  # the lower edges, then the upper ones

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`.

        Raises:
            EvaluationError: a coefficient below 0 with an election and `normalize`.
        """
        rows = [self._layout.group_of[name] for name in names]
        weights, scale = settings["coefficient"][rows], settings["scale"][rows, 0]
        normalize = self._options.normalize
        windows = self._windows(settings, rows, names)
        if self._elects:
            if normalize and (weights < 0).any():
                raise EvaluationError("breadcrumbs_ties: with normalize: true, coefficients must be at least 0")
            self._stream.elect(names, weights, scale, into, normalize=normalize, windows=windows)
            return
        total = weights.sum(axis=1, keepdims=True) if normalize else np.ones((len(names), 1))
        weights = weights / np.where(np.abs(total) < 1e-8, 1.0, total) * scale[:, None]
        windowed_sum(self._stream, names, weights, windows, into)

    def pull_back(self, settings: Settings, slopes: Tensors) -> Settings:
        """See `Differentiable.pull_back`: of `coefficient` and `scale`. Not with election."""
        names = [name for name in self._layout.group_of if name in slopes]
        rows = [self._layout.group_of[name] for name in names]
        windows = self._windows(settings, rows, names) if names else {}
        products = slope_products(
            slopes, names, len(self._layout.experts), lambda name: window_changes(self._stream, name, windows[name])
        )
        grouped = by_group(products, rows, len(self._layout.groups))
        return sum_gradient(settings, grouped, normalize=self._options.normalize)

    def _windows(self, settings: Settings, rows: Sequence[int], names: Sequence[str]) -> dict[str, Window]:
        """What is kept of each tensor."""
        sizes = np.array([self._stream.flat(0, name).numel() for name in names], dtype=np.int64)[:, None]
        density, gamma = (settings[knob][rows].clip(0.0, 1.0) for knob in ("density", "gamma"))  # (T, K)
        kept, largest = (density * sizes).astype(np.int64), (gamma * sizes).astype(np.int64)
        smallest = np.maximum(0, sizes - kept - largest)
        ranks = np.concatenate([sizes - smallest, sizes - smallest - kept], axis=1)  # (T, 2K)
        edges = self._trim.edges(names, ranks)  # (T, 2, 2K)
        lower, upper = edges[:, :, : density.shape[1]], edges[:, :, density.shape[1] :]
        return dict(zip(names, np.concatenate([lower, upper], axis=1), strict=True))


def _extra_bytes(shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
    return int(sum(math.prod(shape) for shape in shapes.values()) * experts * BYTES_PER_ENTRY)
