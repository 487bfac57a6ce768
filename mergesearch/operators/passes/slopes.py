"""How gradients pass back through a merge: dot products of the slopes ∂L/∂W with what the settings multiply.

A merge that is a weighted sum W = base + Σ w_c term_c has ∂L/∂w_c = <∂L/∂W, term_c>, so one backward pass of the model
and one reading of the terms serve every axis; no graph through the merge is needed. Terms are formed as `apply` forms
them, chunk by chunk; products and their sums are float64, on whatever device the models are.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.base import Tensors
from mergesearch.operators.passes.chunked import chunks, wide
from mergesearch.operators.passes.stream import Stream
from mergesearch.space import Settings

Products: TypeAlias = NDArray[np.float64]
"""(T, C): <slope, term> of each of T tensors and C terms."""

Parts: TypeAlias = Iterator[tuple[slice, Iterator[tuple[int, torch.Tensor]]]]
"""For each chunk of a flat tensor: its slice, and (c, that chunk of term c)."""


def slope_products(slopes: Tensors, names: Sequence[str], terms: int, parts: Callable[[str], Parts]) -> Products:
    """<slope, term> of `names`, all of which have a slope, with each of `terms` terms; `parts(name)` gives these."""
    found = np.zeros((len(names), terms))
    for i, name in enumerate(names):
        slope = slopes[name].detach().reshape(-1)
        total = torch.zeros(terms, dtype=torch.float64, device=slope.device)  # read once a tensor: a GPU need not wait
        for part, chunk in parts(name):
            exact = slope[part].double()
            for c, term in chunk:
                total[c] += torch.dot(exact, term.double())
        found[i] = total.cpu().numpy()
    return found


def changes(stream: Stream, name: str) -> Parts:
    """The experts' changes x - base of a tensor; model 0 of the stream is the base."""
    base = stream.flat(0, name)
    for part in chunks(base.numel(), base.device):
        yield part, _changes(stream, name, part)


def base_and_changes(stream: Stream, name: str) -> Parts:
    """As `changes`, but term 0 is the base itself."""
    base = stream.flat(0, name)
    for part in chunks(base.numel(), base.device):
        yield part, _base_and_changes(stream, name, part)


def whole_terms(terms: Sequence[torch.Tensor], name: str) -> Parts:
    """Terms of one tensor that stand in memory, each of its size."""
    del name
    for part in chunks(terms[0].numel(), terms[0].device) if terms else ():
        yield part, ((c, term.reshape(-1)[part]) for c, term in enumerate(terms))


def by_group(products: Products, rows: Sequence[int], groups: int) -> Products:
    """(groups, C): the products (T, C) summed over the tensors of each group; `rows[t]` is the group of tensor t."""
    found = np.zeros((groups, products.shape[1]))
    np.add.at(found, list(rows), products)
    return found


def sum_gradient(settings: Settings, products: Products, *, normalize: bool) -> Settings:
    """The gradient of base + scale · Σ w_k term_k, over Σ w_k if `normalize` and that is not nearly 0 (below 1e-8).

    `products` (G, K): <slope, term_k> of each group. Gives 'coefficient' (G, K), and 'scale' in column 0.
    """
    coefficient, scale = settings["coefficient"], settings["scale"][:, :1]
    total = coefficient.sum(axis=1, keepdims=True)
    divided = (np.abs(total) >= 1e-8) & normalize
    total = np.where(divided, total, 1.0)
    change = (coefficient * products).sum(axis=1, keepdims=True) / total  # (G, 1): <slope, merged change at scale 1>
    return {
        "coefficient": scale / total * (products - np.where(divided, change, 0.0)),
        "scale": in_first_column(change[:, 0], coefficient.shape[1]),
    }


def in_first_column(values: NDArray[np.float64], experts: int) -> NDArray[np.float64]:
    """(G, experts): where the gradient (G,) of a knob that does not vary by expert stands."""
    table = np.zeros((len(values), experts))
    table[:, 0] = values
    return table


def _changes(stream: Stream, name: str, part: slice) -> Iterator[tuple[int, torch.Tensor]]:
    base = stream.flat(0, name)[part]
    centre = base.to(wide(base.dtype))
    for k in range(stream.models - 1):
        yield k, stream.flat(k + 1, name)[part].to(centre.dtype, copy=True).sub_(centre)


def _base_and_changes(stream: Stream, name: str, part: slice) -> Iterator[tuple[int, torch.Tensor]]:
    yield 0, stream.flat(0, name)[part]
    for k, change in _changes(stream, name, part):
        yield k + 1, change
