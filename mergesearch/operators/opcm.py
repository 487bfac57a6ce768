"""OPCM: experts arrive one after another, and each adds only what is new to the leading directions of those before it.

Source: Tang et al., arXiv:2501.09522. With N = w_1 τ_1 and then, for each further expert t in the order of `arrival`,
N ← N + τ̃, where N = U S Vᵀ, r is the first index with (S_0 + .. + S_r) / ΣS > α, and τ̃ is w_t τ_t without the block
of its first r rows and columns and without the diagonal in the basis U, V. The result has the mean norm of the w_t τ_t
over the whole model: the rescaling that the paper does after each arrival cancels in N, so every matrix can be merged
by itself, and one factor over all is left for the end. Other tensors: N = Σ w_t τ_t.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.algebra.gram import gram
from mergesearch.operators.algebra.matrices import NOT_MATRICES, matrix_names, matrix_shapes, task_matrix
from mergesearch.operators.algebra.spectral import Svd, for_each, svd
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.chunked import wide
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

Arrivals: TypeAlias = tuple[tuple[int, float], ...]
"""(expert, its weight over that of the first) in the order of arrival."""


class Options(PluginOptions):
    """Options of `opcm`."""

    exclude: tuple[str, ...] = NOT_MATRICES  # names that are only summed though they are matrices


@final
class Opcm(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "OPCM: merging models on the fly",
        "arXiv:2501.09522",
        Checked.GOLDEN,
        (
            "The diagonal is cleared along directions in which the merge so far has a singular value; beyond them it "
            "depends on the basis that a decomposition happens to return, which the reference takes.",
            "Heads are not projected by default; the reference projects every linear layer.",
            "The order is that of the knob `arrival`; the reference shuffles.",
        ),
    )
    KNOBS = (
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, searched=True, doc="λ: a common factor on the merged change"),
        Knob("alpha", 0.1, 0.95, 0.5, Per.STUDY, searched=True, doc="α: share of ΣS that an arrival leaves untouched"),
        Knob("arrival", 0.0, 1.0, 0.5, Per.EXPERT, doc="experts arrive from low to high; equal ones in their order"),
        Knob("coefficient", 0.0, 2.0, 1.0, doc="w_t: a factor on an expert's change"),
    )
    CACHE = "P4"
    WHOLE_MODEL = True  # the norm of the whole update

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        """The last candidate's N of every matrix after the second and each further arrival, in float32."""
        forms = matrix_shapes(shapes, self._options.exclude).values()
        return 4 * max(experts - 1, 0) * sum(rows * cols for rows, cols in forms)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Sequential":
        return Sequential(base, experts, layout, self._options)


@final
class Sequential:
    """Prepared models of `opcm`. Remembers each matrix' N after every arrival of the last candidate, so that one which
    shares the first arrivals goes on from there. N does not depend on a common factor of the weights."""

    def __init__(self, base: Tensors, experts: Sequence[Tensors], layout: Layout, options: Options) -> None:
        self._base, self._experts, self._layout = base, experts, layout
        self._stream = Stream([base, *experts], list(layout.group_of))
        several = len(experts) > 1
        self._matrices = matrix_names(base, layout.group_of, options.exclude) if several else []
        grams = for_each(self._stream.names, self._gram)
        self._grams = dict(zip(self._stream.names, grams, strict=True))
        self._steps: dict[str, list[torch.Tensor]] = {name: [] for name in self._matrices}  # N after arrival 2, 3, ...
        self._squares: dict[str, float] = {}  # ‖N‖² after the last
        self._key: dict[str, tuple[float, Arrivals]] = {}  # (α, arrivals) of these steps

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        alpha = float(settings["alpha"][0, 0])
        arrival = settings["arrival"][0]
        order = sorted(range(len(arrival)), key=lambda k: (float(arrival[k]), k))
        plans = [arrivals(order, weights) for weights in settings["coefficient"]]
        group_of = self._layout.group_of
        wanted = {name: (alpha, plans[group_of[name]][0]) for name in self._matrices}
        for_each([n for n in self._matrices if self._key.get(n) != wanted[n]], lambda n: self._merge(n, *wanted[n]))
        factor = self._factor(settings["coefficient"], [first for _, first in plans])
        scale = settings["scale"][:, 0] * factor
        matrices = [name for name in names if name in self._steps]
        found = {name: self._steps[name][-1:] for name in matrices}
        rows = [group_of[name] for name in matrices]
        self._stream.component_sum(matrices, found, [(float(scale[g] * plans[g][1]),) for g in rows], into)
        rest = [name for name in names if name not in self._steps]
        weights = np.zeros((len(rest), 1 + len(order)))
        for i, name in enumerate(rest):
            weights[i, 1:] = settings["coefficient"][group_of[name]] * scale[group_of[name]]
        self._stream.weighted_sum(rest, weights, into, centred=True)

    def _gram(self, name: str) -> NDArray[np.float64]:
        """(K, K) inner products of the experts' changes."""
        flat = [self._stream.flat(k, name) for k in range(1 + len(self._experts))]
        return gram(flat[1:], flat[0])

    def _factor(self, coefficient: NDArray[np.float64], first: Sequence[float]) -> float:
        """The mean norm of the w_t τ_t over the norm of N, both over the whole model; 0 where N is 0."""
        tasks, merged = np.zeros(coefficient.shape[1]), []
        for name, group in self._layout.group_of.items():
            w, table = coefficient[group], self._grams[name]
            tasks += w * w * np.diagonal(table)
            merged.append(first[group] ** 2 * self._squares[name] if name in self._steps else float(w @ table @ w))
        norm = math.sqrt(max(math.fsum(merged), 0.0))
        return float(np.sqrt(tasks).mean()) / norm if norm > 0.0 else 0.0

    def _merge(self, name: str, alpha: float, wanted: Arrivals) -> None:
        """Bring the steps of one matrix to the wanted arrivals, from the last that they share."""
        steps, (old_alpha, old) = self._steps[name], self._key.pop(name, (alpha, ()))
        shared = 0
        if old_alpha == alpha:
            while shared < len(old) and old[shared] == wanted[shared]:
                shared += 1
        del steps[max(shared - 1, 0) :]
        shape = self._base[name].shape
        for expert, weight in wanted[1 + len(steps) :]:
            if steps:
                before = steps[-1].view(shape[0], -1).double()
            else:
                before = task_matrix(self._base, self._experts[wanted[0][0]], name).mul_(wanted[0][1])
            task = task_matrix(self._base, self._experts[expert], name).mul_(weight)
            steps.append(before.add_(cleaned(task, before, alpha)).reshape(-1).to(wide(self._base[name].dtype)))
        self._squares[name] = float(gram(steps[-1:])[0, 0])
        self._key[name] = (alpha, wanted)


def arrivals(order: Sequence[int], weights: NDArray[np.float64]) -> tuple[Arrivals, float]:
    """The arrivals with weights over the first that is not 0, and that weight."""
    first = next((float(weights[k]) for k in order if weights[k] != 0), 0.0)
    return tuple((k, float(weights[k]) / first if first else 0.0) for k in order), first


def cleaned(task: torch.Tensor, merged: torch.Tensor, alpha: float) -> torch.Tensor:
    """τ̃ (out, in): what an arrival may add to the matrix merged so far; all of it where that is 0."""
    found = svd(merged)
    if not len(found.s):
        return task
    above = torch.nonzero(found.s.cumsum(0) / found.s.sum() > alpha)
    r = int(above[0]) if len(above) else 0
    inner = found.u.T @ task @ found.v  # the part of τ in the basis that is taken out again
    taken = torch.diag(inner.diagonal())
    taken[:r, :r] = inner[:r, :r]
    return task - Svd(found.u @ taken, torch.ones_like(found.s), found.v).sum()
