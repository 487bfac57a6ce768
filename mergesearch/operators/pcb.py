"""PCB: each entry of each expert is scored by its size and by its agreement with the others; the best scores share it.

Source: Du et al., "Parameter Competition Balancing", arXiv:2410.02396. Over the whole model by default, as published;
`scope: tensor` scores each tensor by itself, a variant for models whose layers differ much in size. The scores depend
on the density alone, so at a fixed density a candidate is one sum over the few entries that have one. `coefficient` is
the λ_k that the authors search.
"""

from collections.abc import Mapping, Sequence
from math import ceil, prod
from typing import ClassVar, Literal, final

from mergesearch.operators.algebra.balance import Balance
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.entrywise import Few, few_sum
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Scale, Settings

_MOST = 0.4  # upper end of the density


class Options(PluginOptions):
    """Options of `pcb`."""

    scope: Literal["global", "tensor"] = "global"  # over what entries are ranked; 'tensor' is a variant of ours


@final
class Pcb(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "PCB-Merging",
        "arXiv:2410.02396",
        Checked.GOLDEN,
        (
            "The authors' vision script (limits at 1 % instead of 0.01 %, signed values in the second term) differs "
            "from their published function, which is the one built here.",
            "The authors divide 0 by 0 where all sizes or all scores of an expert are equal; here such a size counts "
            "as 0, and such a score as 1 if it is above 0, else as 0.",
        ),
    )
    KNOBS = (
        Knob("coefficient", 0.8, 1.3, 1.0, searched=True, doc="λ_k: factor on an expert's share of the merged change"),
        Knob("density", 0.01, _MOST, 0.1, Per.EXPERT, Scale.LOGIT, doc="r: share of an expert's entries with a score"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the merged change"),
    )
    CACHE = "P1"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._scope = options.scope

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        entries = sum(prod(shape) for shape in shapes.values())
        return experts * ceil(_MOST * entries) * 8  # a place (int32) and a value (float32) for each

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Balanced":
        return Balanced(Stream([base, *experts], list(layout.group_of)), layout, self._scope)


@final
class Balanced:
    """Prepared models of `pcb`: the few entries of each expert that have a score at the last densities."""

    def __init__(self, stream: Stream, layout: Layout, scope: Literal["global", "tensor"]) -> None:
        self._stream, self._layout = stream, layout
        every = [name for name in stream.names if stream.flat(0, name).numel()]
        ranked = [every] if scope == "global" else [[name] for name in every]
        experts = len(layout.experts)
        self.balances = [Balance(stream, names, experts) for names in ranked if names]
        self._changes: dict[str, list[Few]] = {}
        self._densities: dict[str, tuple[float, ...]] = {}  # at which each tensor's changes were made

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        densities = tuple(float(d) for d in settings["density"][0])
        wanted = set(names)
        for balance in self.balances:
            if not wanted.isdisjoint(balance.names):
                self._make(balance, densities)
        rows = [self._layout.group_of[name] for name in names]
        weights = settings["coefficient"][rows] * settings["scale"][rows, :1]  # (T, K)
        full = [i for i, name in enumerate(names) if name in self._changes]  # the others have no entries
        few_sum(self._stream, [names[i] for i in full], self._changes, weights[full], into)

    def bytes_read(self) -> int:
        """Bytes that the next candidate reads beside the base, if the densities stay as they are."""
        few = [change for changes in self._changes.values() for change in changes]
        return sum(t.numel() * t.element_size() for change in few for t in (change.where, change.value))

    def _make(self, balance: Balance, densities: tuple[float, ...]) -> None:
        """The changes of all tensors that are ranked together, unless they are known."""
        if all(self._densities.get(name) == densities for name in balance.names):
            return
        for name in balance.names:
            self._densities.pop(name, None)
            self._changes.pop(name, None)
        limits = balance.limits(densities)
        for name in balance.names:
            self._changes[name] = balance.changes(name, limits)
            self._densities[name] = densities
