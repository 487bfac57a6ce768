"""Inner products of models in float64, tensor by tensor or vector by vector, the same on any number of threads.

What the operators on the sphere need of the models: all else they do with the (n, n) numbers found here.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.passes.chunked import chunks
from mergesearch.operators.passes.vectors import Vectors, blocks

_SUMMED = 1 << 14
"""Entries per sum on a CPU: few enough that torch takes one thread, so the order of adding is fixed."""
_SUMMED_ELSEWHERE = 1 << 22


def summed(device: torch.device) -> int:
    """Entries per sum. Fixed, unlike `passes.chunked.CHUNK`: the order of adding must not depend on it."""
    return _SUMMED if device.type == "cpu" else _SUMMED_ELSEWHERE


def gram(tensors: Sequence[torch.Tensor], centre: torch.Tensor | None = None) -> NDArray[np.float64]:
    """(n, n): ⟨x_i - centre, x_j - centre⟩ of n flat tensors (N,); zeros where N is 0."""
    n, device = len(tensors), tensors[0].device
    terms: dict[tuple[int, int], list[float]] = {(i, j): [] for i in range(n) for j in range(i, n)}
    for part in chunks(tensors[0].numel(), device, summed(device)):
        wide = _centred([x[part] for x in tensors], None if centre is None else centre[part])
        for (i, j), sums in terms.items():
            sums.append(float((wide[i] * wide[j]).sum()))
    table = np.zeros((n, n))
    for (i, j), sums in terms.items():
        table[i, j] = table[j, i] = math.fsum(sums)
    return table


def vector_gram(tensors: Sequence[torch.Tensor], vectors: Vectors, centre: torch.Tensor | None = None) -> torch.Tensor:
    """(n, n, V) float64: `gram` of each of the V vectors of n flat tensors."""
    n = len(tensors)
    pairs = [(i, j) for i in range(n) for j in range(i, n)]
    found = dict(zip(pairs, vector_products(tensors, pairs, vectors, centre), strict=True))
    return torch.stack([torch.stack([found[min(i, j), max(i, j)] for j in range(n)]) for i in range(n)])


def vector_products(
    tensors: Sequence[torch.Tensor],
    pairs: Sequence[tuple[int, int]],
    vectors: Vectors,
    centre: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """For each pair (i, j): ⟨x_i - centre, x_j - centre⟩ of each of the V vectors, (V,) float64."""
    device = tensors[0].device
    if vectors.count == 1:
        whole = gram(tensors, centre)
        return [torch.tensor([whole[pair]], dtype=torch.float64, device=device) for pair in pairs]
    sums = [torch.zeros(vectors.count, dtype=torch.float64, device=device) for _ in pairs]
    form = (vectors.rows, vectors.cols)
    for block in blocks(*form, summed(device)):
        middle = None if centre is None else centre.view(form)[block]
        wide = _centred([x.view(form)[block] for x in tensors], middle)
        place = block[0] if vectors.by_row else block[1]
        for (i, j), products in zip(pairs, sums, strict=True):
            products[place] += (wide[i] * wide[j]).sum(dim=1 if vectors.by_row else 0)
    return sums


def total(tensor: torch.Tensor) -> float:
    """Σ |x| of a flat tensor, in float64."""
    device = tensor.device
    return math.fsum(
        float(tensor[part].double().abs().sum()) for part in chunks(tensor.numel(), device, summed(device))
    )


def cosines(table: NDArray[np.float64], floor: float = 0.0, norm_instead: float = 1.0) -> NDArray[np.float64]:
    """(..., n, n) cosines of a Gram table, clipped to [-1, 1]. A norm at or below `floor` counts as `norm_instead`."""
    norms = np.sqrt(np.maximum(np.diagonal(table, axis1=-2, axis2=-1), 0.0))
    norms = np.where(norms > floor, norms, norm_instead)
    found: NDArray[np.float64] = np.clip(table / (norms[..., :, None] * norms[..., None, :]), -1.0, 1.0)
    return found


def _centred(tensors: Sequence[torch.Tensor], centre: torch.Tensor | None) -> list[torch.Tensor]:
    if centre is None:
        return [x.double() for x in tensors]
    middle = centre.double()
    return [x.double() - middle for x in tensors]
