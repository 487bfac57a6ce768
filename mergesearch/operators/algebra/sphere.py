"""Operators whose candidate is a weighted sum with one weight for each tensor and expert, found from a Gram table."""

from collections.abc import Callable, Sequence
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import EvaluationError
from mergesearch.operators.algebra.gram import gram
from mergesearch.operators.base import Layout, Tensors
from mergesearch.operators.passes.stream import Stream, scaled
from mergesearch.space import Settings

Table: TypeAlias = NDArray[np.float64]
Factors: TypeAlias = Callable[[Table, Settings, list[int]], Table]
"""(Gram tables (T, K, K), settings, the row of each of T tensors in them) -> weights (T, K)."""


@final
class GramSum:
    """Prepared; see `operators/base.py`. Knows the Gram table of each tensor's experts, or of their task vectors."""

    def __init__(
        self, base: Tensors, experts: Sequence[Tensors], layout: Layout, factors: Factors, *, task_vectors: bool
    ) -> None:
        self._stream, self._layout = Stream([base, *experts], list(layout.group_of)), layout
        self._factors, self._task_vectors = factors, task_vectors
        self._gram = {name: self._gram_of(name) for name in self._stream.names}

    def _gram_of(self, name: str) -> Table:
        models = [self._stream.flat(m, name) for m in range(len(self._layout.experts) + 1)]
        return gram(models[1:], models[0] if self._task_vectors else None)

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`.

        Raises:
            EvaluationError: coefficients that sum to 0 and are to be divided by their sum.
        """
        if not names:
            return
        rows = [self._layout.group_of[name] for name in names]
        factors = self._factors(np.stack([self._gram[name] for name in names]), settings, rows)
        scale = settings["scale"][rows, 0]
        if self._task_vectors:
            weights = np.concatenate([np.ones((len(rows), 1)), factors * scale[:, None]], axis=1)
        else:
            weights = scaled(np.concatenate([np.zeros((len(rows), 1)), factors], axis=1), scale)
        self._stream.weighted_sum(names, weights, into, centred=self._task_vectors)


def shares(kind: str, settings: Settings, rows: list[int], normalize: bool) -> Table:
    """(T, K) coefficients of each tensor, divided by their sum if `normalize`.

    Raises:
        EvaluationError: they sum to 0 and are to be divided by it.
    """
    coefficient: Table = settings["coefficient"][rows]
    if not normalize:
        return coefficient
    sums = coefficient.sum(axis=1, keepdims=True)
    if (np.abs(sums) < 1e-8).any():
        raise EvaluationError(f"{kind}: coefficients of a group sum to 0, so no average exists; raise one of them")
    divided: Table = coefficient / sums
    return divided


def matvec(table: Table, vector: Table) -> Table:
    """(T, n): table (T, n, n) times vector (T, n), added up in the order of the columns whatever T is."""
    total = np.zeros_like(vector)
    for j in range(vector.shape[1]):
        total = total + table[:, :, j] * vector[:, j : j + 1]
    return total


def dot(a: Table, b: Table) -> Table:
    """(T,): Σ_j a_j b_j, added up in order."""
    total = np.zeros(len(a))
    for j in range(a.shape[1]):
        total = total + a[:, j] * b[:, j]
    return total
