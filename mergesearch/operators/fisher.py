"""Fisher merging: an average weighted, entry by entry, by how much each expert's outputs depend on that entry.

Source: Matena and Raffel, arXiv:2111.09832: θ = Σ w (F + ε) θ_k / Σ w (F + ε). Not data-free: F is the diagonal of each
expert's Fisher information, measured on its data beforehand and given in `statistics`. F is read for every candidate.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveFloat

from mergesearch.errors import CheckpointError, EvaluationError
from mergesearch.operators.algebra.gram import gram, total
from mergesearch.operators.algebra.statistics import open_statistics, statistic
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.chunked import chunks, wide
from mergesearch.operators.passes.stream import Stream, offsets, row_weights
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

_LARGEST = 1e38  # a float32


class Options(PluginOptions):
    """Options of `fisher`."""

    # Expert -> a safetensors file with a non-negative tensor for every merged one, under its name. A relative path
    # starts at the current folder. null: nothing was measured, and all entries count alike.
    statistics: dict[str, str] | None = None
    normalize: bool = False  # divide each expert's F by its norm over the whole model first
    epsilon: PositiveFloat = 1e-6  # ε, as a share of the mean of F over a tensor's entries and experts
    absolute: bool = False  # ε is a plain number instead, as in the reference; LLMs' F are often smaller than 1e-6


@final
class Fisher(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "Merging models with Fisher-weighted averaging",
        "arXiv:2111.09832",
        Checked.GOLDEN,
        ("ε is a share of the mean of F unless `absolute: true`; the reference's 1e-6 outweighs F of large models.",),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 1.0, None, searched=True, doc="w_k: weight of an expert; only the ratios matter"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: how far from the base (0) to the average (1), or beyond"),
    )
    CACHE = "P2"

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        given = self._options.statistics is not None
        return 4 * experts * sum(math.prod(shape) for shape in shapes.values()) if given else 0

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Weighed":
        return Weighed(base, experts, layout, self._options)


@final
class Weighed:
    """Prepared models of `fisher` with each expert's F beside it."""

    def __init__(self, base: Tensors, experts: Sequence[Tensors], layout: Layout, options: Options) -> None:
        self._stream, self._layout, self._options = Stream([base, *experts], list(layout.group_of)), layout, options
        self._fisher: list[dict[str, torch.Tensor]] = []
        if options.statistics is not None:
            headers = open_statistics("fisher", options.statistics, layout.experts)
            for expert, header in zip(layout.experts, headers, strict=True):
                found = {}
                for name in self._stream.names:
                    tensor = statistic(header, expert, name, base[name].shape, "tensor")
                    if (tensor < 0).any():
                        raise CheckpointError(f"statistics of expert {expert!r}: {name!r} holds negative numbers")
                    like = base[name]
                    found[name] = tensor.reshape(-1).to(like.device, wide(like.dtype))
                self._fisher.append(found)
        self._inverse = {name: self._inverse_mean(name) for name in self._stream.names}
        self._share = np.array(self._shares())

    def _inverse_mean(self, name: str) -> float:
        """What F is multiplied by: 1 / its mean over entries and experts; 1 where that is 0 or ε is absolute."""
        numel = self._stream.flat(0, name).numel() * len(self._fisher)
        if self._options.absolute or numel == 0:
            return 1.0
        mean = sum(total(fisher[name]) for fisher in self._fisher) / numel
        return min(1.0 / mean, _LARGEST) if mean > 0 else 1.0

    def _shares(self) -> list[float]:
        """A factor on each expert's coefficient: 1, or the inverse norm of its F over the model, of sum 1."""
        if not self._options.normalize or not self._fisher:
            return [1.0] * len(self._layout.experts)
        squares = [[float(gram([tensor])[0, 0]) for tensor in fisher.values()] for fisher in self._fisher]
        norms = [math.sqrt(math.fsum(found)) for found in squares]
        floor = self._options.epsilon if self._options.absolute else (self._options.epsilon * max(norms) or 1.0)
        inverse = [1.0 / (norm + floor) for norm in norms]
        return [share / math.fsum(inverse) for share in inverse]

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`.

        Raises:
            EvaluationError: a coefficient below 0, or none above 0 in a group.
        """
        coefficient = settings["coefficient"]
        for row in sorted({self._layout.group_of[name] for name in names}):
            if (coefficient[row] < 0).any() or not (coefficient[row] > 0).any():
                raise EvaluationError(f"fisher: coefficients of group {self._layout.groups[row]!r} must be at least 0, "
                                      "and one above 0")  # fmt: skip
        rows = [self._layout.group_of[name] for name in names]
        weights = (coefficient * self._share)[rows]  # (T, K)
        scale = settings["scale"][rows, 0]
        if self._fisher:
            weights = weights / weights.max(axis=1, keepdims=True)
            scales = [self._inverse[name] for name in names]
            fisher_sum(self._stream, names, self._fisher, weights, scales, self._options.epsilon, scale, into)
        else:
            weights = weights / weights.sum(axis=1, keepdims=True) * scale[:, None]
            weights = np.concatenate([np.ones((len(rows), 1)), weights], axis=1)
            self._stream.weighted_sum(names, weights, into, centred=True)


def fisher_sum(
    stream: Stream,
    names: Sequence[str],
    fisher: Sequence[Mapping[str, torch.Tensor]],
    weights: NDArray[np.float64],
    inverse: Sequence[float],
    epsilon: float,
    scale: NDArray[np.float64],
    into: Tensors,
) -> None:
    """out = base + scale · Σ e (x - base) / Σ e with e = w (F · inverse + ε); model 0 is the base.

    `weights` (T, K), of which one at least is above 0 in each tensor; `inverse`, `scale`: one for each tensor.
    """
    outs = [stream.out(name, into) for name in names]
    table = np.concatenate([weights, np.array(inverse)[:, None], scale[:, None]], axis=1)  # (T, K + 2)
    table32 = table.astype(np.float32)

    def torch_pass(i: int) -> None:
        models = [stream.flat(m, names[i]) for m in range(weights.shape[1] + 1)]
        given = [f[names[i]] for f in fisher]
        _torch_pass(models, given, row_weights(outs[i], table, table32, i), epsilon, outs[i])

    def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
        from mergesearch.operators.passes import compiled_fisher

        shown = [outs[i] for i in rows]
        address, offset = stream.addresses([names[i] for i in rows], shown), offsets(shown)
        given = np.array([[f[names[i]].data_ptr() for i in rows] for f in fisher], dtype=np.int64)
        numbers, real, floor = table32[rows], np.zeros(0, np.float32), np.float32(epsilon)
        stream.split(
            offset,
            lambda a, b: compiled_fisher.fisher_sum(address, given, numbers, floor, offset, a, b, sample, real),
        )

    stream.run(outs, torch_pass, compiled_pass)
    stream.copy_back(names, outs, into)


def _torch_pass(
    models: Sequence[torch.Tensor],
    fisher: Sequence[torch.Tensor],
    numbers: Sequence[float],
    epsilon: float,
    out: torch.Tensor,
) -> None:
    """`fisher_sum` of one tensor, all flat; `numbers`: the weights, inverse and scale."""
    *weights, inverse, scale = numbers
    dtype = wide(out.dtype)
    for part in chunks(out.numel(), out.device):
        centre = models[0][part].to(dtype)
        change, mass = torch.zeros_like(centre), torch.zeros_like(centre)
        for x, given, weight in zip(models[1:], fisher, weights, strict=True):
            if weight == 0:
                continue
            each = given[part].to(dtype, copy=True).mul_(inverse).add_(epsilon).mul_(weight)
            mass.add_(each)
            change.add_(each.mul_(x[part].to(dtype, copy=True).sub_(centre)))
        out[part].copy_(change.div_(mass).mul_(scale).add_(centre))
