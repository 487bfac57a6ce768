"""From an operator and models to merged weights: once for state dicts, many times for a live model."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.checkpoints.adapted import adapted_names
from mergesearch.checkpoints.adapter import Adapter, ExpertTensors, is_adapter
from mergesearch.checkpoints.compare import is_head
from mergesearch.checkpoints.groups import Granularity, groups_among, layer_groups
from mergesearch.checkpoints.load import is_finite
from mergesearch.errors import CheckpointError, SpecError
from mergesearch.operators import OPERATORS
from mergesearch.operators.base import (
    AdapterOperator,
    AnyOperator,
    Layout,
    MergeOperator,
    Prepared,
    Tensors,
)
from mergesearch.plugins import did_you_mean, load, parse_options
from mergesearch.space import Per

Values: TypeAlias = "float | Sequence[float] | Mapping[str, Values]"
"""A number for all; one for each expert in order; or by name of expert, group or knob, each again such a value."""


def make_operator(kind: str, options: Mapping[str, object]) -> AnyOperator:
    """The operator of that kind with checked options.

    Raises:
        SpecError: an unknown kind or option.
    """
    cls = load("operator", OPERATORS, kind)
    operator: AnyOperator = cls(parse_options(f"operator {kind!r}", cls.Options, options))
    return operator


def wrong_count(kind: str, operator: AnyOperator, experts: int) -> str:
    """What is wrong with that number of experts, '' if nothing is."""
    low, high = operator.MIN_EXPERTS, operator.MAX_EXPERTS
    if low <= experts and (high is None or experts <= high):
        return ""
    wanted = f"at least {low}" if high is None else f"exactly {low}" if low == high else f"{low} to {high}"
    return f"operator {kind!r} merges {wanted} expert(s) beside the base, got {experts}"


def wrong_experts(kind: str, operator: AnyOperator, adapters: Mapping[str, bool]) -> str:
    """What is wrong with experts of these forms (name -> whether it is an adapter), '' if nothing is."""
    adapter = next((name for name, flag in adapters.items() if flag), None)
    model = next((name for name, flag in adapters.items() if not flag), None)
    if adapter is not None and not isinstance(operator, AdapterOperator):
        return (
            f"operator {kind!r} merges whole models, but expert {adapter!r} is a LoRA adapter: use an operator for "
            f"adapters such as 'lora_soups' or 'knots', or merge the adapter into its base first and give that"
        )
    if model is not None and not isinstance(operator, MergeOperator):
        return (
            f"operator {kind!r} merges LoRA adapters, but expert {model!r} is a whole model: use an operator for whole "
            f"models such as 'task_arithmetic', or give the adapter itself"
        )
    if adapter is not None and model is not None:
        return (
            f"operator {kind!r} merges either adapters or whole models, but expert {adapter!r} is an adapter and "
            f"{model!r} a whole model: merge the adapter into its base first and give that"
        )
    return ""


def prepare(operator: AnyOperator, base: Tensors, experts: Sequence[ExpertTensors], layout: Layout) -> Prepared:
    """The experts prepared for any number of candidates: all adapters, or all whole models (see `wrong_experts`)."""
    if isinstance(operator, AdapterOperator) and any(map(is_adapter, experts)):
        return operator.prepare_adapters(base, cast("Sequence[Adapter]", experts), layout)
    if not isinstance(operator, MergeOperator):
        raise SpecError(f"{type(operator).__name__} merges LoRA adapters, these experts are whole models")
    return operator.prepare(base, cast("Sequence[Tensors]", experts), layout)


def merge(
    operator: str,
    base: Tensors,
    experts: Mapping[str, ExpertTensors] | Sequence[ExpertTensors],
    coefficients: Values,
    *,
    groups: Granularity = "model",
    heads: Sequence[str] = (),
    **options: object,
) -> dict[str, torch.Tensor]:
    """Merge state dicts. Inputs are left unchanged; tensors that share memory in the base share it in the result.

    Args:
        operator: a kind in `mergesearch list operators`; `options` are its options.
        experts: name -> state dict, or name -> adapter (tensor name -> LowRank) for operators on adapters; experts in
            a list are called '0', '1', ... What no adapter names is the base's.
        coefficients: values of the operator's main knob: one number; one for each expert, in order or by name; or a
            mapping by group. A mapping by knob gives each knob such a value; knobs not named keep their default.
        groups: by what coefficients may differ, as under `space.groups` in a study; 'tensor': by tensor name.
        heads: patterns such as 'classifier.*'; tensors that match are the base's own. Integer buffers must agree.

    Raises:
        SpecError: an unknown kind, option, knob, group or expert, or a wrong number of values.
        CheckpointError: models that do not fit, or a tensor that is not finite.
        EvaluationError: an operator that cannot build these settings.
    """
    named = dict(experts) if isinstance(experts, Mapping) else {str(i): e for i, e in enumerate(experts)}
    if not named:
        raise SpecError("merge: give at least one expert")
    merger = make_operator(operator, options)
    if fault := wrong_count(operator, merger, len(named)):
        raise SpecError(fault)
    if fault := wrong_experts(operator, merger, {name: is_adapter(expert) for name, expert in named.items()}):
        raise SpecError(fault)
    if is_adapter(next(iter(named.values()))):
        tied: dict[str, str] = {}
        adapters = cast("dict[str, Adapter]", named)
        merged_names = [name for name in adapted_names(base, adapters) if not is_head(name, heads)]
        shapes = {n: tuple(t.shape) for n, t in base.items() if t.is_floating_point() and not is_head(n, heads)}
        grouping = groups_among(merged_names, shapes, groups)
    else:
        models = cast("dict[str, Tensors]", named)
        names = mergeable(base, models, heads)
        tied = _tied(names, base, models)
        merged_names = [name for name in names if tied[name] == name]
        grouping = layer_groups({n: tuple(base[n].shape) for n in merged_names}, groups)
    layout = Layout(tuple(named), grouping.groups, grouping.group_of)
    settings = settings_of(merger, layout, coefficients)
    result = {
        n: t.detach().clone(memory_format=torch.contiguous_format) for n, t in base.items() if tied.get(n, n) == n
    }
    prepare(merger, base, list(named.values()), layout).apply(settings, list(layout.group_of), result)
    return {name: result[tied.get(name, name)] for name in base}


def mergeable(base: Tensors, experts: Mapping[str, Tensors], heads: Sequence[str] = ()) -> list[str]:
    """Names of the float tensors to merge, sorted: no heads, no integer buffers.

    Raises:
        CheckpointError: names, shapes or dtypes differ, a tensor is not finite, or an integer buffer is not the same in
            all models.
    """
    names = sorted(name for name in base if not is_head(name, heads))
    for who, expert in experts.items():
        odd = sorted(set(names) ^ {name for name in expert if not is_head(name, heads)})
        if odd:
            side = "lacks" if odd[0] in base else "alone has"
            raise CheckpointError(f"expert {who!r} {side} tensor {odd[0]!r} ({len(odd)} names differ from the base)")
        for name in names:
            a, b = base[name], expert[name]
            if a.shape != b.shape or a.dtype != b.dtype:
                forms = f"{tuple(b.shape)} {b.dtype}, in the base {tuple(a.shape)} {a.dtype}"
                raise CheckpointError(f"expert {who!r}: tensor {name!r} is {forms}")
            if not a.is_floating_point() and not torch.equal(a, b):
                raise CheckpointError(
                    f"expert {who!r}: buffer {name!r} of {a.dtype} differs from the base's; it must agree"
                )
    for who, model in (("the base", base), *((f"expert {w!r}", e) for w, e in experts.items())):
        for name in names:
            if not is_finite(model[name]):
                raise CheckpointError(f"{who}: tensor {name!r} holds NaN or infinity")
    return [name for name in names if base[name].is_floating_point()]


def _tied(names: Iterable[str], base: Tensors, experts: Mapping[str, Tensors]) -> dict[str, str]:
    """Each name -> the first name that shares its memory in the base."""
    first: dict[tuple[object, ...], str] = {}
    tied = {}
    for name in names:
        tensor = base[name]
        key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.numel())
        tied[name] = first.setdefault(key, name) if tensor.numel() else name
        leader = tied[name]
        for who, expert in experts.items():
            if leader != name and not torch.equal(expert[leader], expert[name]):
                raise CheckpointError(
                    f"{leader!r} and {name!r} are one tensor in the base, but differ in expert {who!r}"
                )
    return tied


def settings_of(operator: AnyOperator, layout: Layout, coefficients: Values) -> dict[str, NDArray[np.float64]]:
    """Settings (knob -> (G, K)) from what a caller of `merge` wrote; see there."""
    shape = (len(layout.groups), len(layout.experts))
    knobs = {knob.name: knob for knob in operator.KNOBS}
    main = next(knob.name for knob in operator.KNOBS if knob.searched)
    given: Mapping[str, Values] = {main: coefficients}
    if isinstance(coefficients, Mapping) and coefficients and set(coefficients) <= set(knobs):
        given = coefficients
    settings = {k: np.full(shape, knob.start(shape[1])) for k, knob in knobs.items()}
    for knob, values in given.items():
        _fill(settings[knob], values, layout, knob)
        table, per = settings[knob], knobs[knob].per
        if per in (Per.STUDY, Per.EXPERT) and (table != table[:1]).any():
            raise SpecError(f"{knob}: has one value for all groups (it varies per {per})")
        if per in (Per.STUDY, Per.GROUP) and (table != table[:, :1]).any():
            raise SpecError(f"{knob}: has one value for all experts (it varies per {per})")
    return settings


def _fill(table: NDArray[np.float64], values: Values, layout: Layout, knob: str) -> None:
    """Write `values` into (G, K) `table`, or into one row (1, K) of it."""
    if not isinstance(values, Mapping):
        numbers = np.asarray(values, dtype=np.float64)
        if numbers.shape not in ((), (table.shape[1],)):
            raise SpecError(f"{knob}: one number, or {table.shape[1]} (one for each expert), not {numbers.shape}")
        if not np.isfinite(numbers).all():
            raise SpecError(f"{knob}: {values} is not finite")
        table[:] = numbers
        return
    columns = {name: i for i, name in enumerate(layout.experts)}
    rows = {name: i for i, name in enumerate(layout.groups)} if len(table) == len(layout.groups) else {}
    by_expert = set(values) <= set(columns)
    for name, value in values.items():
        if by_expert:
            if isinstance(value, Mapping | Sequence):
                raise SpecError(f"{knob}: expert {name!r} takes one number, got {value!r}")
            _fill(table[:, columns[name] : columns[name] + 1], float(value), layout, knob)
        elif name in rows:
            _fill(table[rows[name] : rows[name] + 1], value, layout, knob)
        else:
            raise SpecError(f"{knob}: no expert or group {name!r}{did_you_mean(name, [*columns, *rows])}")
