"""From an operator and models to merged weights: once for state dicts, many times for a live model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from mergesearch.checkpoints.compare import is_head
from mergesearch.checkpoints.groups import Granularity, layer_groups
from mergesearch.checkpoints.load import is_finite
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError, SpecError
from mergesearch.operators import OPERATORS
from mergesearch.operators.base import Layout, MergeOperator, Tensors
from mergesearch.plugins import did_you_mean, load, parse_options
from mergesearch.space import Settings

Values: TypeAlias = "float | Sequence[float] | Mapping[str, Values]"
"""A number for all; one for each expert in order; or by name of expert, group or knob, each again such a value."""


def make_operator(kind: str, options: Mapping[str, object]) -> MergeOperator:
    """The operator of that kind with checked options.

    Raises:
        SpecError: an unknown kind or option.
    """
    cls = load("operator", OPERATORS, kind)
    operator: MergeOperator = cls(parse_options(f"operator {kind!r}", cls.Options, options))
    return operator


def wrong_count(kind: str, operator: MergeOperator, experts: int) -> str:
    """What is wrong with that number of experts, '' if nothing is."""
    low, high = operator.MIN_EXPERTS, operator.MAX_EXPERTS
    if low <= experts and (high is None or experts <= high):
        return ""
    wanted = f"at least {low}" if high is None else f"exactly {low}" if low == high else f"{low} to {high}"
    return f"operator {kind!r} merges {wanted} expert(s) beside the base, got {experts}"


def merge(
    operator: str,
    base: Tensors,
    experts: Mapping[str, Tensors] | Sequence[Tensors],
    coefficients: Values,
    *,
    groups: Granularity = "model",
    heads: Sequence[str] = (),
    **options: object,
) -> dict[str, torch.Tensor]:
    """Merge state dicts. Inputs are left unchanged; tensors that share memory in the base share it in the result.

    Args:
        operator: a kind in `mergesearch list operators`; `options` are its options.
        experts: name -> state dict; experts in a list are called '0', '1', ...
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
    names = mergeable(base, named, heads)
    tied = _tied(names, base, named)
    merged_names = [name for name in names if tied[name] == name]
    grouping = layer_groups({n: tuple(base[n].shape) for n in merged_names}, groups)
    layout = Layout(tuple(named), grouping.groups, grouping.group_of)
    settings = settings_of(merger, layout, coefficients)
    result = {
        n: t.detach().clone(memory_format=torch.contiguous_format) for n, t in base.items() if tied.get(n, n) == n
    }
    merger.prepare(base, list(named.values()), layout).apply(settings, list(layout.group_of), result)
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


def settings_of(operator: MergeOperator, layout: Layout, coefficients: Values) -> dict[str, NDArray[np.float64]]:
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


@final
class CandidateBuilder:
    """Builds candidates into a live model, again and again.

    Tensors of groups whose settings are those of the last candidate are left as they stand: they hold those same bits.
    Nothing else may write to the merged tensors of `live`. One thread at a time.
    """

    def __init__(
        self, operator: MergeOperator, base: Tensors, experts: Sequence[Tensors], layout: Layout, live: Tensors
    ) -> None:
        missing = [name for name in layout.group_of if name not in live]
        if missing:
            raise CheckpointError(f"the live model has no tensor {missing[0]!r} ({len(missing)} are missing)")
        memory = {model[n].data_ptr() for model in (base, *experts) for n in layout.group_of if n in model}
        shared = [n for n in layout.group_of if live[n].numel() and live[n].data_ptr() in memory]
        if shared:
            raise CheckpointError(
                f"live tensor {shared[0]!r} shares memory with a base or expert; give the model its own"
            )
        # Of names that are one tensor in the live model, one is written: a file holds only one of them.
        first: dict[int, str] = {}
        for name in sorted(layout.group_of, key=lambda n: n not in base):
            first.setdefault(live[name].data_ptr(), name)
        kept = {n: g for n, g in layout.group_of.items() if not live[n].numel() or first[live[n].data_ptr()] == n}
        self._layout = Layout(layout.experts, layout.groups, kept)
        self._names: list[list[str]] = [[] for _ in layout.groups]
        for name, group in kept.items():
            self._names[group].append(name)
        self._live = {name: live[name] for name in kept}
        self._whole_model = operator.WHOLE_MODEL
        self._prepared = operator.prepare(base, experts, self._layout)
        self._rows: list[tuple[bytes, ...] | None] = [None] * len(layout.groups)

    def build(self, settings: Settings) -> int:
        """Write the candidate into the live model; returns how many groups had to be written.

        Raises:
            EvaluationError: these settings cannot be built. The next call then writes all it needs.
        """
        # Adding 0.0 turns -0.0 into 0.0, so that equal numbers have equal bytes.
        tables = [np.asarray(settings[knob], dtype=np.float64) + 0.0 for knob in sorted(settings)]
        rows = [tuple(table[g].tobytes() for table in tables) for g in range(len(self._names))]
        stale = [g for g, row in enumerate(rows) if row != self._rows[g]]
        if self._whole_model and stale:
            stale = list(range(len(rows)))
        if not stale:
            return 0
        for g in stale:
            self._rows[g] = None
        with torch.no_grad():
            self._prepared.apply(settings, [name for g in stale for name in self._names[g]], self._live)
        for g in stale:
            self._rows[g] = rows[g]
        return len(stale)

    def forget(self) -> None:
        """Write everything at the next build: something else wrote to the live model."""
        self._rows = [None] * len(self._rows)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that one worker needs to hold base, experts and live model, and bytes that are free now."""

    needed: int
    available: int

    @property
    def fits(self) -> bool:
        """Whether all of it stays in memory. If not, a CPU worker streams from the mapped files, more slowly."""
        return self.needed <= self.available


def memory_needed(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    layout: Layout,
    operator: MergeOperator | None = None,
    device: torch.device | str = "cpu",
) -> MemoryPlan:
    """Plan from headers alone: live model, merged tensors of base and experts, and what `operator` remembers."""
    merged = [base.headers[name] for name in layout.group_of]
    needed = base.nbytes + (1 + len(experts)) * sum(info.numel * info.dtype.itemsize for info in merged)
    if operator is not None:
        needed += operator.extra_bytes({name: base.headers[name].shape for name in layout.group_of}, len(experts))
    device = torch.device(device)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return MemoryPlan(needed, int(free))
