"""LiNeS: scales the changes that any other operator makes by depth, less in the first layers than in the last.

Source: Wang et al., arXiv:2410.17146. Layer l of L gets α + β · l/(L - 1) times the merged change, everything outside
the layers α times. A transform: `of` is the operator that merges. Two numbers describe a whole table by layer, so it is
a good first search by depth; for a single expert the paper takes β = 1 - α.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, cast, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mergesearch.checkpoints.groups import layer_depths
from mergesearch.errors import SpecError
from mergesearch.operators import OPERATORS
from mergesearch.operators.base import (
    Checked,
    Compressed,
    Differentiable,
    Layout,
    MergeOperator,
    Prepared,
    Source,
    Tensors,
)
from mergesearch.operators.passes.slopes import in_first_column
from mergesearch.operators.task_arithmetic import TaskArithmetic
from mergesearch.plugins import PluginOptions, load, parse_options
from mergesearch.space import Knob, Per, Settings

_KNOBS = (
    Knob("alpha", 0.0, 1.0, 0.5, Per.STUDY, searched=True, doc="α: factor in the first layer and outside the layers"),
    Knob("beta", -0.3, 1.2, 0.5, Per.STUDY, searched=True, doc="β: what the last layer gets more than the first"),
)
_OWN = tuple(knob.name for knob in _KNOBS)


class Options(PluginOptions):
    """Options of `lines`. In a study: `merge: {operator: lines, of: ties, with_options: {scope: global}}`."""

    of: str = "task_arithmetic"  # the operator whose merged change is scaled; not an operator for adapters
    with_options: dict[str, object] = Field(default_factory=dict)  # its options


@final
class Lines(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract. An instance has the knobs of the operator it wraps."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "LiNeS",
        "arXiv:2410.17146",
        Checked.GOLDEN,
        (
            "A tensor's layer is found from the repeated numbers in the names, not from '.{l}.' anywhere in a name, "
            "which also meets the experts of a mixture.",
            "One layer alone gets α + β; the reference divides by zero.",
            "The paper's rule for α when merging, (‖Σ τ‖₁ / ‖τ_merged‖₁) / K, is left out, since it depends on the "
            "candidate: search α instead.",
        ),
    )
    KNOBS: tuple[Knob, ...] = (*_KNOBS, *TaskArithmetic.KNOBS)
    CACHE = TaskArithmetic.CACHE
    DIFFERENTIABLE: tuple[str, ...] = (*_OWN, *TaskArithmetic.DIFFERENTIABLE)

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        if options.of == "lines":
            raise SpecError("operator 'lines' cannot wrap itself; give 'of' the operator that merges")
        cls = load("operator", OPERATORS, options.of)
        if not hasattr(cls, "prepare"):
            raise SpecError(f"operator 'lines' scales merged tensors, but 'of: {options.of}' merges LoRA adapters")
        where = f"operator 'lines', with_options of {options.of!r}"
        inner: MergeOperator = cls(parse_options(where, cls.Options, options.with_options))
        self._inner = inner
        self._outer = {_renamed(knob).name: knob.name for knob in inner.KNOBS}
        self.KNOBS = (*_KNOBS, *(_renamed(knob) for knob in inner.KNOBS))
        self.CACHE, self.WHOLE_MODEL, self.COMPRESSES = inner.CACHE, inner.WHOLE_MODEL, inner.COMPRESSES
        exact = tuple(_renamed(knob).name for knob in inner.KNOBS if knob.name in inner.DIFFERENTIABLE)
        self.DIFFERENTIABLE = (*_OWN, *exact) if exact else ()
        self.MIN_EXPERTS, self.MAX_EXPERTS = inner.MIN_EXPERTS, inner.MAX_EXPERTS

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        return self._inner.extra_bytes(shapes, experts)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Prepared:
        depths = layer_depths({name: tuple(base[name].shape) for name in layout.group_of})
        rows: dict[tuple[int, float | None], int] = {}  # (group, share of the depth) -> refined row; None: no layer
        group_of = {}
        for name, group in layout.group_of.items():
            group_of[name] = rows.setdefault((group, depth_share(*depths[name]) if name in depths else None), len(rows))
        names = tuple(layout.groups[g] if s is None else f"{layout.groups[g]} at depth {s:g}" for g, s in rows)
        inner = self._inner.prepare(base, experts, Layout(layout.experts, names, group_of))
        table = Refined(self._outer, tuple(rows))
        if self.COMPRESSES:
            return ScaledCodes(cast(Compressed, inner), table)
        return ScaledSlopes(cast(Differentiable, inner), table) if self.DIFFERENTIABLE else Scaled(inner, table)


@final
class Refined:
    """Settings of `lines` (G, K) to those of the operator it wraps (R, K), a row for each group and depth."""

    def __init__(self, knobs: Mapping[str, str], rows: Sequence[tuple[int, float | None]]) -> None:
        self._knobs = dict(knobs)  # name in `lines` -> name of the operator's own
        self._groups = [group for group, _ in rows]
        self._inside = np.array([share is not None for share in (s for _, s in rows)])
        self._share = np.array([0.0 if share is None else share for _, share in rows])

    def __call__(self, settings: Settings) -> Settings:
        factor = self._factor(settings)
        inner = {own: settings[name][self._groups] for name, own in self._knobs.items()}
        return inner | {"scale": inner["scale"] * factor[:, None]}

    def pull_back(self, settings: Settings, inner: Settings) -> Settings:
        """The gradient with respect to our settings (G, K), from that with respect to the operator's own (R, K)."""
        found = {}
        for name, own in self._knobs.items():
            if own in inner:
                factor = self._factor(settings)[:, None] if own == "scale" else 1.0
                found[name] = np.zeros_like(settings[name])
                np.add.at(found[name], self._groups, inner[own] * factor)
        scale = next(name for name, own in self._knobs.items() if own == "scale")
        along = inner["scale"][:, 0] * settings[scale][self._groups, 0]  # (R,)
        for knob, sums in (("alpha", along), ("beta", along[self._inside] * self._share[self._inside])):
            total = np.zeros(len(settings[knob]))
            total[0] = sums.sum()
            found[knob] = in_first_column(total, settings[knob].shape[1])
        return found

    def _factor(self, settings: Settings) -> NDArray[np.float64]:
        """(R,): what the depth makes of the scale."""
        alpha, beta = (settings[knob][self._groups, 0] for knob in ("alpha", "beta"))
        return np.asarray(alpha + np.where(self._inside, beta * self._share, 0.0))


@final
class Scaled:
    """Prepared models of `lines`."""

    def __init__(self, inner: Prepared, table: Refined) -> None:
        self._inner, self._table = inner, table

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        self._inner.apply(self._table(settings), names, into)


@final
class ScaledSlopes:
    """Prepared models of `lines` around an operator through which gradients pass back."""

    def __init__(self, inner: Differentiable, table: Refined) -> None:
        self._inner, self._table = inner, table

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        self._inner.apply(self._table(settings), names, into)

    def pull_back(self, settings: Settings, slopes: Tensors) -> Settings:
        """See `Differentiable.pull_back`: of `alpha`, `beta` and what the operator itself gives."""
        return self._table.pull_back(settings, self._inner.pull_back(self._table(settings), slopes))


@final
class ScaledCodes:
    """Prepared models of `lines` around an operator that keeps a code of each expert."""

    def __init__(self, inner: Compressed, table: Refined) -> None:
        self._inner, self._table = inner, table

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        self._inner.apply(self._table(settings), names, into)

    def rebuild(self, settings: Settings, expert: int, names: Sequence[str], into: Tensors) -> None:
        """See `Compressed.rebuild`."""
        self._inner.rebuild(self._table(settings), expert, names, into)

    def stored_bytes(self, settings: Settings) -> int:
        """See `Compressed.stored_bytes`."""
        return self._inner.stored_bytes(self._table(settings))


def depth_share(index: int, count: int) -> float:
    """l / (L - 1), and 1 for a single layer, which is the last as well as the first."""
    return index / (count - 1) if count > 1 else 1.0


def _renamed(knob: Knob) -> Knob:
    """A knob of the wrapped operator under a name that is not one of ours."""
    return replace(knob, name=f"inner_{knob.name}") if knob.name in {k.name for k in _KNOBS} else knob
