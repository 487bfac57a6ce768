"""Singular values and polar factors of changes, in float64, by way of the Gram matrix of the shorter side.

A stored weight has at most 24 significant bits, so a Gram matrix in float64 loses nothing of it, and its eigenvectors
cost half to a third of a singular value decomposition. Directions whose singular value is below `FLOOR` times the
largest are noise and left out: what these functions return has the numerical rank of the matrix, with no arbitrary
vectors in it. The signs of singular vectors are as the library leaves them: they cancel in every result built here.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from mergesearch.operators.algebra.one_thread import one_thread

FLOOR = 1e-6
"""Singular values below this share of the largest one count as zero; rounding moves them by about 1e-8 of it."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Svd:
    """X = U diag(S) Vᵀ: `u` (out, r), `s` (r,) falling and above zero, `v` (in, r)."""

    u: torch.Tensor
    s: torch.Tensor
    v: torch.Tensor

    def leading(self, count: int, dtype: torch.dtype | None = None) -> "Svd":
        """The first `count` triples, or all if there are fewer, in memory of their own."""
        dtype = dtype or self.s.dtype
        return Svd(*(x[..., :count].to(dtype).contiguous().clone() for x in (self.u, self.s, self.v)))

    def sum(self, values: torch.Tensor | None = None) -> torch.Tensor:
        """U diag(values) Vᵀ, of its own singular values if none are given."""
        return (self.u * (self.s if values is None else values)) @ self.v.T


def svd(matrix: torch.Tensor) -> Svd:
    """The thin singular value decomposition of a float64 matrix (out, in), to its numerical rank."""
    if matrix.shape[0] < matrix.shape[1]:
        turned = svd(matrix.T)
        return Svd(turned.v, turned.s, turned.u)
    values, vectors = torch.linalg.eigh(matrix.T @ matrix)  # rising
    v = vectors.flip(-1)[:, : _rank(values)]
    u = matrix @ v
    s = torch.linalg.vector_norm(u, dim=0)  # nearer to the truth than the root of a small eigenvalue
    return falling(Svd(u.div_(s), s, v))


def falling(found: Svd) -> Svd:
    """With singular values in falling order, as they nearly always are already."""
    if bool((found.s[1:] <= found.s[:-1]).all()):
        return found
    order = torch.sort(found.s, descending=True, stable=True).indices
    return Svd(found.u[:, order], found.s[order], found.v[:, order])


def polar(columns: torch.Tensor) -> torch.Tensor:
    """The polar factor A Bᵀ of X = A Σ Bᵀ (m, c), over its numerical rank; in the dtype of X."""
    x = columns.double()
    if x.shape[0] < x.shape[1]:
        return (_power(x @ x.T, -0.5).to(columns.dtype)) @ columns
    return columns @ _power(x.T @ x, -0.5).to(columns.dtype)


def _power(gram: torch.Tensor, exponent: float) -> torch.Tensor:
    """gram^exponent over its numerical rank."""
    values, vectors = torch.linalg.eigh(gram)
    rank = _rank(values)
    kept, q = values[len(values) - rank :], vectors[:, len(values) - rank :]
    powered: torch.Tensor = (q * kept**exponent) @ q.T
    return powered


def _rank(values: torch.Tensor) -> int:
    """How many eigenvalues (rising) of a Gram matrix belong to singular values that are not noise."""
    if not len(values) or not float(values[-1]) > 0.0:
        return 0
    return int((values > FLOOR**2 * values[-1]).sum())


def for_each(items: Sequence[ItemT], work: Callable[[ItemT], ResultT]) -> list[ResultT]:
    """`work` on every item, in order. On a CPU as many items at a time as torch has threads, each item on one: that
    is faster than many threads on one small matrix, and gives the same bits whatever their number."""
    threads = min(torch.get_num_threads(), len(items))
    with one_thread(), torch.no_grad():
        if threads <= 1:
            return [work(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, items))


def flattened(values: torch.Tensor, rho: float) -> torch.Tensor:
    """Singular values `values`^(1 - rho), scaled to keep their sum: unchanged at rho 0, all at their mean at 1."""
    if not len(values) or rho == 0.0:
        return values
    powered = (values / values.max()) ** (1.0 - rho)
    return powered * (values.sum() / powered.sum())


def rank_of(shape: Sequence[int], experts: int, share: float) -> int:
    """int(share · min(out, in) / experts), at least 1: how many triples of each expert fit beside each other."""
    short = min(shape[0], math.prod(shape[1:]))
    return min(max(1, int(short * share / experts)), short)


def ratios_of(coefficients: Sequence[float]) -> tuple[tuple[float, ...], float]:
    """Coefficients over the one of largest magnitude, and that one: equal ones always have the ratios 1."""
    largest = max(map(float, coefficients), key=abs)
    if largest == 0.0:
        return (0.0,) * len(coefficients), 0.0
    return tuple(float(w) / largest for w in coefficients), largest
