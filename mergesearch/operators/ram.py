"""RAM: a change that one expert alone makes is kept whole, shared ones are averaged. For experts trained by RL.

Source: "Reinforced Agent Merging", arXiv:2601.13572. Such experts change few entries, and hardly the same ones. Expert
k is active where |τ_k| > ε; an entry with one active expert gets its change, with more their mean, with none the base.
`ram_plus` also enlarges the changes that an expert makes alone, by λ_k = 1 + r · clip(ρ_k, 0, α), where ρ_k = entries
it shares / entries it has alone. Coefficients are ours: w_k on every change of an expert, `shared` on all means.

ε is absolute. A change is the difference of the stored values in float32, so what a checkpoint's rounding swallowed is
exactly 0 and inactive; but in bfloat16 any change of a weight near 0.1 is about 5e-4 or more, above any such ε.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import ClassVar, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.marks import count_marks, mark_above
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Scale, Settings

_TITLE, _WHERE = "Reinforced Agent Merging", "arXiv:2601.13572"
_KNOBS = (
    Knob("coefficient", 0.0, 1.5, 1.0, searched=True, doc="w_k: how much of an expert's change is added"),
    Knob("epsilon", 1e-7, 1e-3, 1e-5, scale=Scale.LOG, doc="ε: an expert is active where it changes more than this"),
    Knob("shared", 0.0, 2.0, 1.0, Per.GROUP, doc="factor on the mean where two experts or more are active"),
    Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a common factor on the merged change"),
)


class Options(PluginOptions):
    """`ram` has no options."""


class PlusOptions(PluginOptions):
    """Options of `ram_plus`."""

    ratio_scope: Literal["tensor", "global"] = "tensor"  # over what ρ is counted; the authors: global, with alpha 1


@final
class Ram(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(_TITLE, _WHERE, Checked.GOLDEN)
    KNOBS = _KNOBS
    CACHE = "P1"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        return sum(prod(shape) for shape in shapes.values()) * -(-experts // 8)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Active":
        return Active(Stream([base, *experts], list(layout.group_of)), layout, None)


@final
class RamPlus(MergeOperator):
    """RAM+: RAM that enlarges what one expert alone changes. For experts trained by RL that share part of it."""

    Options: ClassVar[type[PluginOptions]] = PlusOptions
    SOURCE: ClassVar[Source] = Source(
        _TITLE + " Plus",
        _WHERE,
        Checked.GOLDEN,
        ("The authors' script divides by zero where an expert changes no entry alone; here its ρ then is past any α.",),
    )
    KNOBS = (
        *_KNOBS,
        Knob("r", 0.0, 0.5, 0.1, searched=True, doc="how much the changes of one expert alone are enlarged"),
        Knob("alpha", 0.0, 1.0, 0.2, doc="α: upper end of the ratio ρ of shared to unshared changes"),
    )
    CACHE = "P1"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, PlusOptions)
        self._scope = options.ratio_scope
        self.WHOLE_MODEL = self._scope == "global"  # then a group's ε moves every tensor's ρ

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        return sum(prod(shape) for shape in shapes.values()) * -(-experts // 8)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Active":
        return Active(Stream([base, *experts], list(layout.group_of)), layout, self._scope)


@final
class Active:
    """Prepared models of `ram` and `ram_plus`: where each expert is active at the last ε, a bit per entry and expert.

    `scope`: over what ρ is counted; None: no enlargement.
    """

    def __init__(self, stream: Stream, layout: Layout, scope: Literal["tensor", "global"] | None) -> None:
        self._stream, self._layout, self._scope = stream, layout, scope
        self._masks: dict[str, torch.Tensor] = {}  # uint8 (planes, N): bit k % 8 of row k // 8 is expert k's
        self._epsilons: dict[str, tuple[float, ...]] = {}  # at which each mask was made
        self._counts: dict[str, NDArray[np.int64]] = {}  # (2, K): entries that an expert changes alone, and with others

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        rows = [self._layout.group_of[name] for name in names]
        for name in self._stream.names if self._scope == "global" else names:
            self._activate(name, tuple(float(e) for e in settings["epsilon"][self._layout.group_of[name]]))
        weights = settings["coefficient"][rows] * settings["scale"][rows, :1]  # (T, K)
        alone = weights
        if self._scope is not None:
            ratio = np.clip(self._ratios(names), 0.0, settings["alpha"][rows])
            alone = weights * (1.0 + settings["r"][rows] * ratio)
        shared = weights * settings["shared"][rows, :1]
        self._stream.masked_sum(names, shared, self._masks, into, average=True, alone=alone)

    def _activate(self, name: str, epsilons: tuple[float, ...]) -> None:
        """Mark where each expert is active, unless that is known."""
        if self._epsilons.get(name) == epsilons:
            return
        self._epsilons.pop(name, None)
        base, experts = self._stream.flat(0, name), len(epsilons)
        if name not in self._masks:
            self._masks[name] = torch.zeros((-(-experts // 8), base.numel()), dtype=torch.uint8, device=base.device)
        for k, epsilon in enumerate(epsilons):
            mark_above(self._stream, name, k, epsilon, self._masks[name])
        if self._scope is not None:
            self._counts[name] = count_marks(self._stream, self._masks[name], experts)
        self._epsilons[name] = epsilons

    def _ratios(self, names: Sequence[str]) -> NDArray[np.float64]:
        """ρ (T, K): shared over unshared entries, 0 where both are 0, infinite where the expert has none alone."""
        if self._scope == "global":
            everywhere = sum((self._counts[name] for name in self._stream.names), np.zeros((2, 1), np.int64))
            counted = np.repeat(everywhere[None], len(names), axis=0)  # (T, 2, K)
        else:
            counted = np.stack([self._counts[name] for name in names]) if names else np.zeros((0, 2, 1), np.int64)
        unshared, shared = counted[:, 0].astype(np.float64), counted[:, 1].astype(np.float64)
        none = np.where(shared > 0, np.inf, 0.0)
        return np.where(unshared > 0, shared / np.maximum(unshared, 1.0), none)
