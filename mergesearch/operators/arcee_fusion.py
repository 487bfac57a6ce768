"""Arcee Fusion: of one expert, only the entries whose change matters most for their row. For grafting a fine-tune.

Source: Arcee AI, mergekit's `arcee_fusion` (2024). A row is the last dimension (a whole 1-D tensor). Importance
I = |b - a| · KL(softmax b ‖ softmax a), each probability plus 1e-8; an entry is kept where I ≥ Q2 + c (Q3 - Q1), the
quartiles taken over the tensor, c the `threshold` (1.5 in mergekit). θ = a + mask ⊙ (b - a).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.errors import SpecError
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.chunked import CHUNK
from mergesearch.operators.passes.ranks import Ranked
from mergesearch.operators.passes.stream import Stream, offsets
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

_SUMMED = 1 << 14  # entries per sum on a CPU: few enough that torch takes one thread, so the order of adding is fixed
_FLOOR = 1e-8  # added to every probability


class Options(PluginOptions):
    """`arcee_fusion` has no options."""


@final
class ArceeFusion(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "Arcee Fusion",
        "mergekit, Arcee AI 2024",
        Checked.GOLDEN,
        (
            "mergekit takes the quartiles of a random million entries of a larger tensor; here they are exact.",
            "mergekit takes softmax and divergence in float32, whose rounding is as large as the divergence of two "
            "nearly equal rows; here they are taken in float64.",
        ),
    )
    KNOBS = (
        Knob("threshold", 0.0, 4.0, 1.5, searched=True, doc="c: spreads (Q3 - Q1) above the median from which to keep"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: a factor on the kept change"),
    )
    CACHE = "P1"
    MAX_EXPERTS = 1

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        del experts
        return sum(math.prod(shape) + 4 * math.prod(shape[:-1]) for shape in shapes.values())

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Fused":
        if len(experts) != 1:
            raise SpecError(f"operator 'arcee_fusion' takes 1 expert beside the base, got {len(experts)}; use 'ties'")
        names = list(layout.group_of)
        return Fused(Stream([base, *experts], names), layout, {name: _row_length(base[name]) for name in names})


@final
class Fused:
    """Prepared models of `arcee_fusion`: divergence of each row, quartiles of each tensor, mask at the last threshold.

    `length[name]`: entries in a row.
    """

    def __init__(self, stream: Stream, layout: Layout, length: Mapping[str, int]) -> None:
        self._stream, self._layout, self._length = stream, layout, length
        self._divergence = {
            name: _divergence(stream.flat(0, name), stream.flat(1, name), length[name]) for name in length
        }
        self._quartiles = {name: self._quartiles_of(name) for name in length if stream.flat(0, name).numel()}
        self._masks: dict[str, torch.Tensor] = {}  # uint8 (1, N): 1 where the change is kept
        self._thresholds: dict[str, float] = {}  # at which each mask was made

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        rows = [self._layout.group_of[name] for name in names]
        self._choose({name: float(settings["threshold"][row, 0]) for name, row in zip(names, rows, strict=True)})
        self._stream.masked_sum(names, settings["scale"][rows, :1], self._masks, into)

    def _choose(self, thresholds: Mapping[str, float]) -> None:
        """Mark what is kept in each tensor at its threshold, unless that is known."""
        stream = self._stream
        names = [n for n, c in thresholds.items() if n in self._quartiles and self._thresholds.get(n) != c]
        bases, least = [stream.flat(0, name) for name in names], np.zeros(len(names), np.float32)
        for i, name in enumerate(names):
            self._thresholds.pop(name, None)
            if name not in self._masks:
                self._masks[name] = torch.zeros((1, bases[i].numel()), dtype=torch.uint8, device=bases[i].device)
            first, median, third = self._quartiles[name]
            least[i] = median + thresholds[name] * (third - first)

        def torch_pass(i: int) -> None:
            for part, importance in self._importance(names[i]):
                self._masks[names[i]][0, part] = importance >= float(least[i])

        def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
            from mergesearch.operators.passes import compiled_marks

            chosen, mark = [names[i] for i in rows], compiled_marks.mark_products
            address = stream.addresses(chosen, [self._masks[n] for n in chosen])
            offset = offsets([bases[i] for i in rows])
            factors = np.array([self._divergence[n].data_ptr() for n in chosen], dtype=np.int64)
            length, bound = np.array([self._length[n] for n in chosen], dtype=np.int64), least[rows]
            wide, byte = np.zeros(0, np.float32), np.zeros(0, np.uint8)
            models = address, factors, length, bound, offset
            stream.split(offset, lambda a, b: mark(*models, a, b, sample, wide, byte))

        stream.run(bases, torch_pass, compiled_pass)
        self._thresholds.update((name, thresholds[name]) for name in names)

    def _quartiles_of(self, name: str) -> tuple[float, float, float]:
        last = self._stream.flat(0, name).numel() - 1
        ranked = Ranked(lambda: ([importance] for _, importance in self._importance(name)), 1)
        [[first, median, third]] = ranked.values([[last // 4, last // 2, 3 * last // 4]])
        return first, median, third

    def _importance(self, name: str) -> Iterator[tuple[slice, torch.Tensor]]:
        """I of a tensor as (entries, float32 values), chunk by chunk."""
        base, expert, divergence = self._stream.flat(0, name), self._stream.flat(1, name), self._divergence[name]
        for part, rows in _row_parts(base.numel(), self._length[name], CHUNK.get(base.device.type, CHUNK["cuda"])):
            size = (expert[part].float() - base[part].float()).abs_()
            yield part, size.view(rows.stop - rows.start, -1).mul_(divergence[rows, None]).view(-1)


def _row_length(tensor: torch.Tensor) -> int:
    """Entries in a softmax row; a scalar is a row of its own."""
    return int(tensor.shape[-1]) if tensor.ndim else 1


def _row_parts(numel: int, length: int, size: int) -> Iterator[tuple[slice, slice]]:
    """(entries, rows): several whole rows of about `size` entries together, or a part of one row longer than that."""
    if length <= size:
        step = size // length * length if length else 1
        for start in range(0, numel, step):
            stop = min(start + step, numel)
            yield slice(start, stop), slice(start // length, stop // length)
        return
    for row in range(numel // length):
        for start in range(row * length, (row + 1) * length, size):
            yield slice(start, min(start + size, (row + 1) * length)), slice(row, row + 1)


def _divergence(base: torch.Tensor, expert: torch.Tensor, length: int) -> torch.Tensor:
    """KL of each row's softmax, expert against base, float32 (rows,); at least 0. The same on any number of threads."""
    result = torch.zeros(base.numel() // length if length else 0, dtype=torch.float32, device=base.device)
    size = _SUMMED if base.device.type == "cpu" else CHUNK["cuda"]
    for part, rows in _row_parts(base.numel(), length, max(size, length)):  # whole rows only
        q, p = (torch.softmax(x[part].double().view(-1, length), dim=-1).add_(_FLOOR) for x in (base, expert))
        terms = p * (p / q).log_()
        if length <= size:
            result[rows] = terms.sum(dim=-1).clamp_(min=0).float()
        else:
            sums = [float(some.sum()) for some in torch.split(terms.view(-1), size)]
            result[rows] = max(math.fsum(sums), 0.0)
    return result
