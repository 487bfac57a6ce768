"""Which tensors a matrix method works on, and how they become matrices."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch

from mergesearch.operators.base import Tensors

NOT_MATRICES = ("*embed*", "*wte*", "*wpe*", "*lm_head*", "*classifier*", "score.*", "*.shared.*", "shared.*")
"""Patterns of embeddings and heads: each row stands for one token or class, so a spectrum over rows means little."""


def matrix_names(base: Tensors, names: Iterable[str], exclude: Sequence[str]) -> list[str]:
    """Of `names`, the tensors with two or more dimensions of more than one entry that match no `exclude` pattern."""
    return [
        name
        for name in names
        if base[name].ndim >= 2
        and min(as_matrix(base[name]).shape) > 1
        and not any(fnmatchcase(name, pattern) for pattern in exclude)
    ]


def as_matrix(tensor: torch.Tensor) -> torch.Tensor:
    """(out, in); a convolution (out, in, ...) becomes (out, rest)."""
    return tensor.reshape(tensor.shape[0], -1) if tensor.numel() else tensor.reshape(tensor.shape[0], 0)


def task_matrices(base: Tensors, experts: Sequence[Tensors], name: str) -> list[torch.Tensor]:
    """The task vector (out, in) of every expert, in float64: factorisations need it up to a few thousand columns."""
    centre = as_matrix(base[name].detach()).double()
    return [as_matrix(expert[name].detach()).double() - centre for expert in experts]
