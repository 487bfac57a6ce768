"""SCE: keep the entries where experts differ most, weigh each by its energy, erase minority signs. Needs no weights.

Source: FuseChat (Wan et al.), arXiv:2408.07990. *Select*: the int(density · n) positions of largest variance across the
experts' changes, where n positions have one above 0 (all positions at density 1). *Calculate*: c_k, expert k's share of
the squared changes in them. *Erase*: changes against the sign of their sum. What is left is averaged with the weights
w_k c_k^ρ. Of equal variances the positions that come first are selected. Positions and c_k are remembered until the
density changes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import EvaluationError
from mergesearch.operators.algebra.squares import squares
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.chunked import Rule, Window, open_window
from mergesearch.operators.passes.stream import Stream
from mergesearch.operators.passes.trim import BYTES_PER_ENTRY, SPREAD, Trim
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

_FLOOR = 1e-6


class Options(PluginOptions):
    """Options of `sce`."""

    mask_applies_to: Literal["deltas_and_weights", "weights_only"] = "deltas_and_weights"  # authors' code: the latter
    reference_floors: bool = False  # mergekit's 1e-6: below it c_k are equal (Σ mean square), a divisor counts as 1


@final
class Sce(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "FuseChat: SCE",
        "arXiv:2408.07990",
        Checked.GOLDEN,
        (
            "mergekit takes equal coefficients wherever the mean squared changes sum to less than 1e-6, always so for "
            "changes the size of a language model's; here only where they are 0 (option `reference_floors`).",
        ),
    )
    KNOBS = (
        Knob("density", 0.02, 1.0, 1.0, Per.GROUP, searched=True, doc="τ: share of the differing positions selected"),
        Knob("coefficient", 0.0, 1.5, 1.0, searched=True, doc="w_k: a factor on an expert's own coefficient c_k"),
        Knob("power", 0.0, 2.0, 1.0, Per.GROUP, doc="ρ: exponent of c_k; 0: the energy does not count"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the merged change"),
    )
    CACHE = "P2"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        del experts
        return int(sum(math.prod(shape) for shape in shapes.values()) * BYTES_PER_ENTRY)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Selected":
        return Selected(Stream([base, *experts], list(layout.group_of)), layout, self._options)


@final
class Selected:
    """Prepared models of `sce`."""

    def __init__(self, stream: Stream, layout: Layout, options: Options) -> None:
        self._stream, self._layout, self._options = stream, layout, options
        self._trim = Trim(stream, [SPREAD])
        self._energy: dict[str, tuple[float, NDArray[np.float64]]] = {}  # at the last density: Σ τ² of each expert

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`.

        Raises:
            EvaluationError: a coefficient below 0.
        """
        rows = [self._layout.group_of[name] for name in names]
        coefficient, density = settings["coefficient"][rows], settings["density"][rows, 0]
        if (coefficient < 0).any():
            raise EvaluationError("sce: coefficients must be at least 0, since the result is divided by their sum")
        windows = self._windows(names, density)
        weights = coefficient * self._shares(names, density, windows) ** settings["power"][rows, :1]
        spreads = self._options.mask_applies_to == "deltas_and_weights"
        rule = Rule(floor=_FLOOR if self._options.reference_floors else 0.0, spreads=spreads)
        self._stream.elect(
            names, weights, settings["scale"][rows, 0], into,
            votes=np.ones_like(weights), windows=windows if spreads else {}, rule=rule,
        )  # fmt: skip

    def _windows(self, names: Sequence[str], density: NDArray[np.float64]) -> dict[str, Window]:
        """Which variances are selected, of the tensors of which not all are."""
        chosen = [i for i, d in enumerate(density) if d < 1.0]
        some = [names[i] for i in chosen]
        ranks = (density[chosen].clip(min=0.0) * self._trim.positive(some, 0)).astype(np.int64)
        edges = self._trim.edges(some, ranks[:, None])  # (some, 2, 1)
        windows = np.repeat(open_window(1)[None], len(some), axis=0)
        windows[:, :2] = edges
        return dict(zip(some, windows, strict=True))

    def _shares(
        self, names: Sequence[str], density: NDArray[np.float64], windows: Mapping[str, Window]
    ) -> NDArray[np.float64]:
        """(len(names), K): c_k of each tensor, which sum to 1."""
        wanted = [min(float(d), 1.0) for d in density]
        stale = [n for n, d in zip(names, wanted, strict=True) if self._energy.get(n, (None,))[0] != d]
        found = squares(self._stream, stale, {name: windows[name] for name in stale if name in windows})
        density_of = dict(zip(names, wanted, strict=True))
        self._energy.update({name: (density_of[name], row) for name, row in zip(stale, found, strict=True)})
        energy = np.array([self._energy[name][1] for name in names]).reshape(len(names), len(self._layout.experts))
        total = energy.sum(axis=1, keepdims=True)
        equal = total == 0
        if self._options.reference_floors:
            sizes = np.array([max(self._stream.flat(0, name).numel(), 1) for name in names])[:, None]
            equal |= total / sizes < _FLOOR
        return np.where(equal, 1.0 / energy.shape[1], energy / np.where(total == 0, 1.0, total))
