"""Which tensors a matrix method works on, and how they become matrices."""

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch

from mergesearch.operators.base import Tensors

NOT_MATRICES = ("*embed*", "*wte*", "*wpe*", "*lm_head*", "*classifier*", "score.*", "*.shared.*", "shared.*")
"""Patterns of embeddings and heads: each row stands for one token or class, so a spectrum over rows means little."""


def matrix_names(base: Tensors, names: Iterable[str], exclude: Sequence[str]) -> list[str]:
    """Of `names`, the tensors with two or more dimensions of more than one entry that match no `exclude` pattern."""
    return list(matrix_shapes({name: tuple(base[name].shape) for name in names}, exclude))


def matrix_shapes(shapes: Mapping[str, tuple[int, ...]], exclude: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Name -> (out, in) of the tensors that `matrix_names` finds."""
    flat = {name: (shape[0], math.prod(shape[1:])) for name, shape in shapes.items() if len(shape) >= 2}
    return {
        name: form
        for name, form in flat.items()
        if min(form) > 1 and not any(fnmatchcase(name, pattern) for pattern in exclude)
    }


def as_matrix(tensor: torch.Tensor) -> torch.Tensor:
    """(out, in); a convolution (out, in, ...) becomes (out, rest)."""
    return tensor.reshape(tensor.shape[0], -1) if tensor.numel() else tensor.reshape(tensor.shape[0], 0)


def task_matrix(base: Tensors, expert: Tensors, name: str) -> torch.Tensor:
    """The task vector (out, in) of one expert, in float64: factorisations need it up to a few thousand columns."""
    return as_matrix(expert[name].detach()).double() - as_matrix(base[name].detach()).double()


def task_matrices(base: Tensors, experts: Sequence[Tensors], name: str) -> list[torch.Tensor]:
    """The task vector (out, in) of every expert, in float64."""
    return [task_matrix(base, expert, name) for expert in experts]


def task_sum(base: Tensors, experts: Sequence[Tensors], name: str, weights: Sequence[float]) -> torch.Tensor:
    """Σ w_k τ_k (out, in) in float64, one expert in memory at a time; a weight of 0 is not read."""
    total = torch.zeros_like(as_matrix(base[name]), dtype=torch.float64)
    for expert, weight in zip(experts, weights, strict=True):
        if weight != 0:
            total.add_(task_matrix(base, expert, name), alpha=weight)
    return total
