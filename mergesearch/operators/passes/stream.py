"""One pass over the tensors of several models: what the weighted-sum family and TIES share.

Large CPU models in bfloat16 or float32 go through the compiled loops, all else through torch; both give the same bits,
so which one ran never shows in a result.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.errors import EvaluationError
from mergesearch.operators.base import Tensors
from mergesearch.operators.passes import chunked
from mergesearch.operators.passes.chunked import Rule, Window, open_window

Weights: TypeAlias = NDArray[np.float64]
"""(T, M): a weight for each of T tensors and M models."""

_COMPILED_FROM = 1 << 22
"""Elements from which the compiled loops are used: below, loading them costs more than a search saves."""
_SAMPLE: dict[torch.dtype, NDArray[Any]] = {
    torch.bfloat16: np.zeros(0, np.uint16),
    torch.float32: np.zeros(0, np.float32),
}
PLAIN = Rule()
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

    @property
    def models(self) -> int:
        """How many there are."""
        return len(self._flat)

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
            chunked.weighted_sum(models, row_weights(outs[i], weights, weights32, i), outs[i], centred)

        def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
            from mergesearch.operators.passes import compiled_sums

            address = self.addresses([names[i] for i in rows], [outs[i] for i in rows])
            offset, weight = offsets([outs[i] for i in rows]), weights32[rows]
            self.split(offset, lambda a, b: compiled_sums.weighted_sum(address, weight, offset, a, b, centred, sample))

        self.run(outs, torch_pass, compiled_pass)
        self.copy_back(names, outs, into)

    def elect(
        self,
        names: Sequence[str],
        weights: Weights,
        scale: NDArray[np.float64],
        into: Tensors,
        *,
        normalize: bool = True,
        votes: Weights | None = None,
        windows: Mapping[str, Window] | None = None,
        rule: Rule = PLAIN,
    ) -> None:
        """out = base + scale · Σ δ / Σ w over kept entries of the elected sign (`chunked.elect`); model 0 is the base.

        `weights` (len(names), experts), `scale` (len(names),). `windows[name]`: see `chunked.Window`; absent: all kept.
        `votes` (len(names), experts): weights of the election, if others. Without `normalize` there is no division,
        whatever the rule's floor.
        """
        votes = weights if votes is None else votes
        weights32, votes32, scale32 = (x.astype(np.float32) for x in (weights, votes, scale))
        rule, windows = rule if normalize else replace(rule, floor=np.inf), windows or {}
        outs = [self.out(name, into) for name in names]

        def torch_pass(i: int) -> None:
            base, *experts = (flat[names[i]] for flat in self._flat)
            weight, vote = row_weights(outs[i], weights, weights32, i), row_weights(outs[i], votes, votes32, i)
            factor = row_weights(outs[i], scale, scale32, i)
            chunked.elect(base, experts, vote, weight, factor, windows.get(names[i]), rule, outs[i])

        def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
            from mergesearch.operators.passes import compiled_votes

            chosen = [names[i] for i in rows]
            address, offset = self.addresses(chosen, [outs[i] for i in rows]), offsets([outs[i] for i in rows])
            everything = open_window(1 if rule.spreads else weights.shape[1])
            window = np.stack([windows.get(name, everything) for name in chosen])
            vote, weight, factor = votes32[rows], weights32[rows], scale32[rows]
            # The least positive float32 is the bound that leaves 0 out.
            lowest, floor = np.float32(0.0 if rule.zero_is_positive else 1e-45), np.float32(rule.floor)
            models = address, window, rule.spreads, vote, weight, factor, lowest, floor, offset
            self.split(offset, lambda a, b: compiled_votes.elect(*models, a, b, sample))

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
        outs, alone = [self.out(name, into) for name in names], weights if alone is None else alone
        weights32, alone32 = weights.astype(np.float32), alone.astype(np.float32)

        def torch_pass(i: int) -> None:
            base, *experts = (flat[names[i]] for flat in self._flat)
            shared = row_weights(outs[i], weights, weights32, i)
            single = row_weights(outs[i], alone, alone32, i)
            chunked.masked_sum(base, experts, shared, single, masks.get(names[i]), average, outs[i])

        def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
            from mergesearch.operators.passes import compiled_masks

            address = self.addresses([names[i] for i in rows], [outs[i] for i in rows])
            planes = plane_addresses([masks.get(names[i]) for i in rows], weights.shape[1])
            offset, shared, single = offsets([outs[i] for i in rows]), weights32[rows], alone32[rows]
            self.split(
                offset,
                lambda a, b: compiled_masks.masked_sum(
                    address, planes, shared, single, offset, a, b, average, sample, _BYTE
                ),
            )

        self.run(outs, torch_pass, compiled_pass)
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
        changes = [[c.reshape(-1) for c in components[name]] for name in names]

        def rounded(i: int) -> list[float]:
            exact = np.asarray(weights[i], dtype=np.float64)
            row: list[float] = (exact if outs[i].dtype == torch.float64 else exact.astype(np.float32)).tolist()
            return row

        def torch_pass(i: int) -> None:
            chunked.component_sum(self._flat[0][names[i]], changes[i], rounded(i), outs[i])

        def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
            from mergesearch.operators.passes import compiled_sums

            address = self.addresses([names[i] for i in rows], [outs[i] for i in rows])[[0, -1]]
            first = np.cumsum([0, *(len(changes[i]) for i in rows)], dtype=np.int64)
            component = np.array([c.data_ptr() for i in rows for c in changes[i]], dtype=np.int64)
            weight = np.array([w for i in rows for w in rounded(i)], dtype=np.float32)
            offset, wide = offsets([outs[i] for i in rows]), _SAMPLE[torch.float32]
            self.split(
                offset,
                lambda a, b: compiled_sums.component_sum(address, first, component, weight, offset, a, b, sample, wide),
            )

        plain = {i for i, group in enumerate(changes) if any(not _is_row(c) for c in group)}
        self.run(outs, torch_pass, compiled_pass, plain)
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
        """Copy flat results into live tensors that are not contiguous."""
        for name, out in zip(names, outs, strict=True):
            if not into[name].is_contiguous():
                into[name].detach().copy_(out.view(into[name].shape))

    def run(
        self,
        outs: Sequence[torch.Tensor],
        torch_pass: Callable[[int], None],
        compiled_pass: Callable[[list[int], NDArray[Any]], None],
        plain: Collection[int] = (),
    ) -> None:
        """Each tensor through its path; the compiled one takes all of a dtype in one call, except those in `plain`."""
        rest = set(range(len(outs)))
        if self.compiled:
            for dtype, sample in _SAMPLE.items():
                rows = [i for i in sorted(rest.difference(plain)) if outs[i].dtype == dtype]
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
        step = -(-total // (4 * threads) // 4096) * 4096 or 4096
        bounds = [*range(0, total, step), total]
        list(self._pool(threads).map(work, bounds[:-1], bounds[1:]))

    def each(self, work: Callable[[Any], None], items: Sequence[Any]) -> None:
        """`work(item)` for every item on as many threads as torch uses."""
        threads = torch.get_num_threads()
        if threads == 1 or len(items) < 2:
            for item in items:
                work(item)
        else:
            list(self._pool(threads).map(work, items))

    def _pool(self, threads: int) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(threads, thread_name_prefix="mergesearch-build")
        return self._threads


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


def plane_addresses(masks: Sequence[torch.Tensor | None], experts: int) -> NDArray[np.int64]:
    """(P, T): where the planes of each tensor's mask begin, 0 where it has none; P planes for so many experts."""
    planes = np.zeros((-(-experts // 8), len(masks)), dtype=np.int64)
    for column, mask in enumerate(masks):
        if mask is not None:
            planes[:, column] = [plane.data_ptr() for plane in mask]
    return planes


def _is_row(component: torch.Tensor) -> bool:
    """Whether the compiled loops can read it."""
    return component.dtype == torch.float32 and component.is_contiguous() and component.device.type == "cpu"


def row_weights(out: torch.Tensor, exact: NDArray[np.float64], rounded: NDArray[np.float32], i: int) -> Any:
    """Row i as Python floats: rounded to float32 first, unless the tensor itself is float64."""
    return (exact if out.dtype == torch.float64 else rounded)[i].tolist()
