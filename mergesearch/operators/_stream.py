"""One pass over the tensors of several models: what the weighted-sum family and TIES share.

Large CPU models in bfloat16 or float32 go through the compiled loops, all else through torch; both give the same bits,
so which one ran never shows in a result.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.errors import EvaluationError
from mergesearch.operators import _chunked
from mergesearch.operators.base import Tensors

Weights: TypeAlias = NDArray[np.float64]
"""(T, M): a weight for each of T tensors and M models."""

_COMPILED_FROM = 1 << 22
"""Elements from which the compiled loops are used: below, loading them costs more than a search saves."""
_SAMPLE: dict[torch.dtype, NDArray[Any]] = {
    torch.bfloat16: np.zeros(0, np.uint16),
    torch.float32: np.zeros(0, np.float32),
}
_BYTE = np.zeros(0, np.uint8)


@final
class Stream:
    """Several models with the same float tensors, read side by side.

    `models[m][name]` is kept by reference as a flat view. `compiled` chooses the path; None: by size and device.
    """

    def __init__(self, models: Sequence[Tensors], names: Sequence[str], compiled: bool | None = None) -> None:
        self._flat = [{name: model[name].detach().reshape(-1) for name in names} for model in models]
        self.names = tuple(names)
        on_cpu = all(x.device.type == "cpu" for x in self._flat[0].values())
        large = sum(x.numel() for x in self._flat[0].values()) >= _COMPILED_FROM
        self.compiled = (large if compiled is None else compiled) and on_cpu
        self._threads: ThreadPoolExecutor | None = None

    def flat(self, model: int, name: str) -> torch.Tensor:
        """Tensor `name` of a model as a flat view."""
        return self._flat[model][name]

    def weighted_sum(self, names: Sequence[str], weights: Weights, into: Tensors, *, centred: bool) -> None:
        """out = Σ w x over all models, or base + Σ w (x - base) if `centred` (model 0 is the base, its weight unused).

        `weights` (len(names), models).
        """
        weights32 = weights.astype(np.float32)
        outs = [self.out(name, into) for name in names]

        def torch_pass(i: int) -> None:
            models = [flat[names[i]] for flat in self._flat]
            _chunked.weighted_sum(models, row_weights(outs[i], weights, weights32, i), outs[i], centred)

        def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
            from mergesearch.operators import _compiled

            address = self.addresses([names[i] for i in rows], [outs[i] for i in rows])
            offset, weight = offsets([outs[i] for i in rows]), weights32[rows]
            self.split(offset, lambda a, b: _compiled.weighted_sum(address, weight, offset, a, b, centred, sample))

        self.run(outs, torch_pass, compiled_pass)
        self.copy_back(names, outs, into)

    def elect(
        self,
        names: Sequence[str],
        weights: Weights,
        scale: NDArray[np.float64],
        masks: Mapping[str, torch.Tensor],
        into: Tensors,
        *,
        normalize: bool,
    ) -> None:
        """out = base + scale · Σ δ / Σ w over kept entries of the elected sign (`_chunked.elect`); model 0 is the base.

        `weights` (len(names), experts), `scale` (len(names),). `masks[name]`: uint8 (planes, N), absent: all kept.
        """
        weights32, scale32 = weights.astype(np.float32), scale.astype(np.float32)
        outs = [self.out(name, into) for name in names]

        def torch_pass(i: int) -> None:
            base, *experts = (flat[names[i]] for flat in self._flat)
            weight, factor = row_weights(outs[i], weights, weights32, i), row_weights(outs[i], scale, scale32, i)
            _chunked.elect(base, experts, weight, factor, masks.get(names[i]), normalize, outs[i])

        def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
            from mergesearch.operators import _compiled

            address = self.addresses([names[i] for i in rows], [outs[i] for i in rows])
            offset, weight, factor = offsets([outs[i] for i in rows]), weights32[rows], scale32[rows]
            planes = np.zeros((-(-weights.shape[1] // 8), len(rows)), dtype=np.int64)
            for column, i in enumerate(rows):
                if (mask := masks.get(names[i])) is not None:
                    planes[:, column] = [plane.data_ptr() for plane in mask]
            self.split(
                offset,
                lambda a, b: _compiled.elect(address, planes, weight, factor, offset, a, b, normalize, sample, _BYTE),
            )

        self.run(outs, torch_pass, compiled_pass)
        self.copy_back(names, outs, into)

    def masked_sum(
        self,
        names: Sequence[str],
        weights: Weights,
        masks: Mapping[str, torch.Tensor],
        into: Tensors,
        *,
        average: bool = False,
        alone: Weights | None = None,
    ) -> None:
        """out = base + Σ w m (x - base) over the experts that keep an entry; model 0 is the base.

        `weights` (len(names), experts). `masks[name]`: uint8 (planes, N), bit k % 8 of plane k // 8 set where expert k
        keeps the entry; absent: all do. `average`: divided by how many keep it. `alone` (len(names), experts): the
        weights where one expert alone keeps an entry, if they differ.
        """
        outs = [self.out(name, into) for name in names]
        alone = weights if alone is None else alone
        for i, name in enumerate(names):
            base, *experts = (flat[name] for flat in self._flat)
            shared, single = (row_weights(outs[i], w, w.astype(np.float32), i) for w in (weights, alone))
            _chunked.masked_sum(base, experts, shared, single, masks.get(name), average, outs[i])
        self.copy_back(names, outs, into)

    def component_sum(
        self,
        names: Sequence[str],
        components: Mapping[str, Sequence[torch.Tensor]],
        weights: Sequence[Sequence[float]],
        into: Tensors,
    ) -> None:
        """out = base + Σ_c w_c · component_c; model 0 is the base.

        `components[name]`: any number of contiguous changes of the tensor's size, float32 (float64 for a float64
        base); `weights[i]`: one for each component of `names[i]`. A weight of 0 is not read.
        """
        outs = [self.out(name, into) for name in names]
        for i, name in enumerate(names):
            changes = [c.reshape(-1) for c in components[name]]
            _chunked.component_sum(self._flat[0][name], changes, list(weights[i]), outs[i])
        self.copy_back(names, outs, into)

    def out(self, name: str, into: Tensors) -> torch.Tensor:
        """The live tensor as a flat view, or a flat buffer of its size where it is not contiguous."""
        live, base = into[name].detach(), self._flat[0][name]
        if live.numel() != base.numel() or live.dtype != base.dtype or live.device != base.device:
            raise EvaluationError(
                f"tensor {name!r} of the live model is {tuple(live.shape)} {live.dtype} on {live.device}, "
                f"its base has {base.numel()} elements of {base.dtype} on {base.device}; load both alike"
            )
        return live.view(-1) if live.is_contiguous() else torch.empty_like(base)

    def copy_back(self, names: Sequence[str], outs: Sequence[torch.Tensor], into: Tensors) -> None:
        for name, out in zip(names, outs, strict=True):
            if not into[name].is_contiguous():
                into[name].detach().copy_(out.view(into[name].shape))

    def _run(
        self,
        outs: Sequence[torch.Tensor],
        torch_pass: Callable[[int], None],
        compiled_pass: Callable[[list[int], NDArray[Any]], None],
    ) -> None:
        """Each tensor through its path; the compiled one takes all tensors of a dtype in one call."""
        rest = set(range(len(outs)))
        if self.compiled:
            for dtype, sample in _SAMPLE.items():
                rows = [i for i in sorted(rest) if outs[i].dtype == dtype]
                if rows:
                    compiled_pass(rows, sample)
                rest.difference_update(rows)
        for i in sorted(rest):
            torch_pass(i)

    def addresses(self, names: Sequence[str], outs: Sequence[torch.Tensor]) -> NDArray[np.int64]:
        """(models + 1, T): where each model's tensors begin, then the outputs."""
        rows = [[flat[name].data_ptr() for name in names] for flat in self._flat]
        return np.array([*rows, [out.data_ptr() for out in outs]], dtype=np.int64)

    def split(self, offset: NDArray[np.int64], work: Callable[[int, int], None]) -> None:
        """`work(begin, end)` over all elements on as many threads as torch uses, in parts of whole cache lines."""
        total, threads = int(offset[-1]), torch.get_num_threads()
        if threads == 1:
            work(0, total)
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(threads, thread_name_prefix="mergesearch-build")
        step = -(-total // (4 * threads) // 4096) * 4096 or 4096
        bounds = [*range(0, total, step), total]
        list(self._threads.map(work, bounds[:-1], bounds[1:]))


def scaled(weights: Weights, scale: NDArray[np.float64]) -> Weights:
    """Weights (T, 1 + K) of base + scale · (Σ w x - base), where those of Σ w x (base first) are given; scale (T,).

    At scale 1 they are unchanged to the bit, at 0 the base alone is left.
    """
    factor = scale[:, None]
    moved = weights * factor
    moved[:, 0] += 1.0 - scale
    return np.where(factor == 1.0, weights, moved)


def offsets(outs: Sequence[torch.Tensor]) -> NDArray[np.int64]:
    """(T + 1,): where each tensor begins when all are laid end to end."""
    return np.cumsum([0, *(out.numel() for out in outs)], dtype=np.int64)


def row_weights(out: torch.Tensor, exact: NDArray[np.float64], rounded: NDArray[np.float32], i: int) -> Any:
    """Row i as Python floats: rounded to float32 first, unless the tensor itself is float64."""
    return (exact if out.dtype == torch.float64 else rounded)[i].tolist()
