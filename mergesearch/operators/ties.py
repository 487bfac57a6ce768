"""TIES: trim small changes, elect a sign per entry, average the changes that agree with it. Good against interference.

Source: Yadav et al., arXiv:2306.01708. `scope: tensor` is mergekit's form: the int(density · N) largest entries of each
tensor, weighted before the election. `scope: global` is the authors': one threshold per expert over the whole model
(which keeps int(density · N) + 1 entries), election at equal weights. Their 'mean' is `normalize: true`, 'sum' false.
Where the kept entries end depends on the density alone and is remembered: while only coefficients change, a candidate
is one pass over the models; a density that changes costs one more. Of equal magnitudes those that come first are kept.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import EvaluationError
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.chunked import Rule, Window, open_window
from mergesearch.operators.passes.largest import kth_largest
from mergesearch.operators.passes.stream import Stream
from mergesearch.operators.passes.trim import BYTES_PER_ENTRY, Trim
from mergesearch.operators.passes.windowed import majority
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings


class Options(PluginOptions):
    """Options of `ties`."""

    scope: Literal["tensor", "global"] = "tensor"  # over what the largest entries are taken
    normalize: bool = True  # divide by the sum of the agreeing coefficients; makes them scale-free


@final
class Ties(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source("TIES-Merging", "arXiv:2306.01708", Checked.GOLDEN)
    KNOBS = (
        Knob("coefficient", 0.0, 1.5, 1.0, searched=True, doc="w_k: weight of an expert's change"),
        Knob("density", 0.05, 1.0, 0.2, doc="share of an expert's entries that is kept; one per expert if global"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the merged change"),
    )
    CACHE = "P2"  # a global density stands in every group's row, so a change of it reaches them all

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        if self._options.scope == "global":
            return 0
        return int(sum(math.prod(shape) for shape in shapes.values()) * experts * BYTES_PER_ENTRY)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Trimmed":
        return Trimmed(Stream([base, *experts], list(layout.group_of)), layout, self._options)


@final
class Trimmed:
    """Prepared models of `ties`. Where the changes that are kept end is remembered until the density changes."""

    def __init__(self, stream: Stream, layout: Layout, options: Options) -> None:
        self._stream, self._layout, self._options = stream, layout, options
        self._trim = Trim(stream, range(len(layout.experts)))
        self._thresholds: dict[tuple[int, float], int] = {}  # global: bits of the smallest magnitude that is kept
        self._majority: tuple[tuple[float, ...], int] | None = None  # global: at which densities, and its sign

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`.

        Raises:
            EvaluationError: a coefficient below 0 (with `normalize` or a global scope), or densities that differ
                between groups under a global scope.
        """
        options, coefficient = self._options, settings["coefficient"]
        rows = [self._layout.group_of[name] for name in names]
        if (options.normalize or options.scope == "global") and (coefficient[rows] < 0).any():
            raise EvaluationError("ties: coefficients must be at least 0, except with scope 'tensor', normalize: false")
        weights, scale = coefficient[rows], settings["scale"][rows, 0]
        if options.scope == "tensor":
            windows = largest(self._stream, self._trim, names, settings["density"][rows])
            self._stream.elect(names, weights, scale, into, normalize=options.normalize, windows=windows)
            return
        window, zero_is_positive = self._trim_globally(settings["density"])
        self._stream.elect(
            names, weights, scale, into,
            normalize=options.normalize,
            votes=np.ones_like(weights),
            windows=dict.fromkeys(names, window),
            rule=Rule(zero_is_positive=zero_is_positive),
        )  # fmt: skip

    def _trim_globally(self, density: NDArray[np.float64]) -> tuple[Window, bool]:
        """What passes each expert's threshold over the whole model, and whether balances of 0 count as positive."""
        if (density != density[:1]).any():
            raise EvaluationError(
                "ties with scope 'global' has one density per expert; set it 'per: expert' or 'study'"
            )
        wanted, stream = tuple(float(d) for d in density[0]), self._stream
        window = open_window(len(wanted))
        missing = [(k, d) for k, d in enumerate(wanted) if (k, d) not in self._thresholds]
        found = {(k, d): t for (k, d), t in self._thresholds.items() if wanted[k] == d}
        stream.each(lambda job: found.__setitem__(job, self._threshold(*job)), missing)
        self._thresholds = found
        window[0] = [found[k, d] - 1 for k, d in enumerate(wanted)]
        if self._majority is None or self._majority[0] != wanted:
            self._majority = wanted, majority(stream, dict.fromkeys(stream.names, window))
        return window, self._majority[1] > 0

    def _threshold(self, k: int, density: float) -> int:
        """Bits of the smallest magnitude that expert k keeps: the (int(density · N) + 1)-th largest, 0 if all are."""
        stream = self._stream
        kept = int(density * sum(stream.flat(0, name).numel() for name in stream.names))
        if density >= 1.0:
            return 0
        pairs = [(stream.flat(0, name), stream.flat(k + 1, name)) for name in stream.names]
        return kth_largest(pairs, kept + 1, stream.compiled)[0]


def largest(stream: Stream, trim: Trim, names: Sequence[str], density: NDArray[np.float64]) -> dict[str, Window]:
    """Windows that keep the max(1, int(density · N)) largest entries of each tensor and expert, none at density 0.

    `density` (len(names), K).
    """
    sizes = np.array([stream.flat(0, name).numel() for name in names], dtype=np.int64)[:, None]
    ranks = np.where(density > 0, np.maximum(1, (np.minimum(density, 1.0) * sizes).astype(np.int64)), 0)
    edges = trim.edges(names, ranks)  # (len(names), 2, K)
    windows = np.repeat(open_window(density.shape[1])[None], len(names), axis=0)
    windows[:, :2] = edges
    return dict(zip(names, windows, strict=True))
