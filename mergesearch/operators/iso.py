"""Isotropic merging: the summed change with all its singular values made equal (Iso-C), also with task parts (Iso-CTS).

Source: Marczak et al., arXiv:2502.04959. Iso-C: A = Σ w_i τ_i = U S Vᵀ, merged = mean(S) U Vᵀ. Iso-CTS keeps the
leading directions of A and adds what is largest in each w_i τ_i outside of them. `flattening` ρ < 1 goes part of the
way: singular values S^(1-ρ), scaled to keep their sum, so that 0 is A itself. A common factor of the coefficients is a
factor on the merged change, so only their ratios need a new decomposition; the scale needs none.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypeAlias, final

import torch
from pydantic import Field

from mergesearch.operators.algebra.components import Components, Key, Plan
from mergesearch.operators.algebra.matrices import NOT_MATRICES, matrix_names, matrix_shapes, task_matrix, task_sum
from mergesearch.operators.algebra.spectral import Svd, flattened, polar, ratios_of, svd
from mergesearch.operators.base import Checked, Layout, MergeOperator, Prepared, Source, Tensors
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

Change: TypeAlias = Callable[[Tensors, Sequence[Tensors], str, Key, "Options"], torch.Tensor]
"""(base, experts, tensor name, key, options) -> the merged change (out, in)."""

_SCALE = Knob("scale", 0.0, 3.0, 1.0, Per.GROUP, searched=True, doc="α: a common factor on the merged change")
_COEFFICIENT = Knob("coefficient", 0.0, 2.0, 1.0, doc="w_i: weight of an expert's change in the sum A")
_FLATTENING = Knob("flattening", 0.0, 1.0, 1.0, Per.GROUP, doc="ρ: how equal singular values become, 1: wholly")
_RANK = (
    "Singular values below `rank_tolerance` times the largest are noise and stay out, where the reference lifts every "
    "one of them to the mean: in a merge of LoRAs these are nearly all.",
    "Embeddings and heads are excluded by default; the reference excludes what it is told to.",
)


class Options(PluginOptions):
    """Options of `iso_c` and `iso_cts`."""

    exclude: tuple[str, ...] = NOT_MATRICES  # names that get the mean change though they are matrices
    rank_tolerance: float = Field(1e-5, ge=0.0, lt=1.0)  # relative; 1e-2 for LoRAs that were merged in bfloat16


@final
class IsoC(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source("Isotropic merging, Iso-C", "arXiv:2502.04959", Checked.GOLDEN, _RANK)
    KNOBS = (_SCALE, _COEFFICIENT, _FLATTENING)
    CACHE = "P4"
    DIFFERENTIABLE = ("scale",)

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        del experts
        return _remembered(shapes, self._options)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Prepared:
        return _prepared(base, experts, layout, self._options, ("flattening",), common)


@final
class IsoCts(MergeOperator):
    """Iso-CTS: isotropic merging that keeps directions of single tasks beside common ones. For many unlike experts."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source("Isotropic merging, Iso-CTS", "arXiv:2502.04959", Checked.GOLDEN, _RANK)
    KNOBS = (
        _SCALE,
        Knob("fraction", 0.4, 1.0, 0.8, Per.GROUP, doc="f: share of the directions that the experts have in common"),
        _COEFFICIENT,
        _FLATTENING,
    )
    CACHE = "P4"
    DIFFERENTIABLE = ("scale",)

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        del experts
        return _remembered(shapes, self._options)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Prepared:
        return _prepared(base, experts, layout, self._options, ("flattening", "fraction"), common_and_task)


def _remembered(shapes: Mapping[str, tuple[int, ...]], options: Options) -> int:
    """Bytes of the change of every matrix at the last settings, in float32."""
    return 4 * sum(rows * cols for rows, cols in matrix_shapes(shapes, options.exclude).values())


def _prepared(
    base: Tensors, experts: Sequence[Tensors], layout: Layout, options: Options, knobs: Sequence[str], change: Change
) -> Prepared:
    def plan(settings: Settings, row: int) -> Plan:
        ratios, factor = ratios_of(settings["coefficient"][row])
        key = (*(float(settings[knob][row, 0]) for knob in knobs), *ratios)
        return Plan(key, (factor * float(settings["scale"][row, 0]),))

    return Components(
        Stream([base, *experts], list(layout.group_of)),
        layout,
        matrix_names(base, layout.group_of, options.exclude),
        lambda name, key: [change(base, experts, name, key, options)],
        plan,
        lambda settings, row: tuple(float(w) for w in settings["coefficient"][row] * settings["scale"][row, 0]),
    )


def common(base: Tensors, experts: Sequence[Tensors], name: str, key: Key, options: Options) -> torch.Tensor:
    """Iso-C of one matrix; key (ρ, w_1 .. w_n)."""
    rho, *weights = key
    found = _cut(svd(task_sum(base, experts, name, weights)), options.rank_tolerance)
    return found.sum(flattened(found.s, rho))


def common_and_task(base: Tensors, experts: Sequence[Tensors], name: str, key: Key, options: Options) -> torch.Tensor:
    """Iso-CTS of one matrix; key (ρ, f, w_1 .. w_n). An expert of weight 0 has no task part."""
    rho, fraction, *weights = key
    total = task_sum(base, experts, name, weights)
    shared, each = split(min(total.shape), fraction, len(experts))
    sum_svd = _cut(svd(total), options.rank_tolerance)
    floor = options.rank_tolerance * float(sum_svd.s[0]) if len(sum_svd.s) else 0.0
    parts = []
    head = sum_svd.leading(shared)
    for expert, weight in zip(experts, weights, strict=True):
        if weight != 0 and each:
            task = task_matrix(base, expert, name).mul_(weight)
            task.sub_(head.u @ (head.u.T @ task))  # on the left side only, as published
            found = svd(task)
            parts.append(found.leading(min(each, int((found.s > floor).sum()))))
    parts.append(head)
    u, s, v = (torch.cat([getattr(part, side) for part in parts], dim=-1) for side in ("u", "s", "v"))
    return Svd(polar(u), s, polar(v)).sum(flattened(s, rho))


def split(size: int, fraction: float, experts: int) -> tuple[int, int]:
    """How many directions of `size` are common, and how many each expert has of its own.

    `round` goes to the even neighbour of a half, as in the reference.
    """
    each = round((size - int(fraction * size)) / experts)
    each = min(each, size // experts)  # a half rounded up must not leave less than nothing in common
    return size - each * experts, each


def _cut(found: Svd, tolerance: float) -> Svd:
    """Without the singular values below `tolerance` times the largest."""
    return found.leading(int((found.s > tolerance * found.s[0]).sum())) if len(found.s) else found
