"""The interference loss of WUDI, solved in the eigenvectors of its Gram matrix.

L(M) = Σ w_i ‖(M - τ_i) τ_iᵀ‖²_F / ‖τ_i‖²_F over matrices M, τ_i (out, in): the rows of τ_i stand in for the inputs that
the layer sees. With C = Σ w_i τ_iᵀτ_i / ‖τ_i‖² (in, in) and D = Σ w_i τ_i τ_iᵀτ_i / ‖τ_i‖² (out, in) its minimisers
satisfy M C = D. Along each eigenvector of C a filter f in [0, 1] says how far M goes from a start M0 to the minimiser.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

RankRule: TypeAlias = Literal[
    "ratio", "participation_sqrt", "participation", "stable_rank", "entropy", "cumvar", "gavish_donoho"
]

SMALLEST = 1e-8
"""Least eigenvalue of C that is told from 0. C is divided by ‖τ‖², so it is a share of the weights, not a size of τ."""


@dataclass(frozen=True)
class Spectrum:
    """C = Q diag(e) Qᵀ with e ascending (in,); `start` = Σ τ_i Q and `target` = D Q, both (out, in)."""

    values: torch.Tensor
    vectors: torch.Tensor
    start: torch.Tensor
    target: torch.Tensor


def gram(tasks: Sequence[torch.Tensor], weights: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """C (in, in) and D (out, in) of task vectors (out, in) in float64; a task vector of only 0 adds nothing."""
    like = tasks[0]
    c = like.new_zeros(like.shape[1], like.shape[1])
    d = torch.zeros_like(like)
    for task, weight in zip(tasks, weights, strict=True):
        norm = float(task.square().sum())
        if weight == 0 or norm == 0:
            continue
        own = task.T @ task
        c.add_(own, alpha=weight / norm)
        d.addmm_(task, own, alpha=weight / norm)
    return c, d


def spectrum(tasks: Sequence[torch.Tensor], weights: Sequence[float], dtype: torch.dtype) -> Spectrum:
    """The eigenvectors of C and what M needs along them: made in float64, kept as `dtype`."""
    c, d = gram(tasks, weights)
    values, vectors = torch.linalg.eigh(c)
    start = sum((task for task, weight in zip(tasks, weights, strict=True) if weight != 0), torch.zeros_like(d))
    kept = (vectors.to(dtype), (start @ vectors).to(dtype), (d @ vectors).to(dtype))
    return Spectrum(values.clamp_(min=0), *kept)


def solve(found: Spectrum, scale: float, start: float, keep: int, time: float | None) -> torch.Tensor:
    """M (out, in) for weights `scale` times those of `found` and M0 = `start` · Σ τ_i.

    f = 1 - exp(-e · time), or 1 without a time, along the `keep` largest eigenvalues, else 0.
    """
    values = (found.values * scale).clamp(min=SMALLEST)
    share = torch.ones_like(values) if time is None else -torch.expm1(-values * time)
    share[: len(values) - keep] = 0
    along = found.start * (start * (1.0 - share)).to(found.start.dtype)
    along.add_(found.target * (share / values * scale).to(found.target.dtype))
    return along @ found.vectors.T


def rank(values: torch.Tensor, shape: tuple[int, ...], rule: RankRule, ratio: float, share: float) -> int:
    """How many of the largest eigenvalues of C to keep, 1 to `in`.

    `values`: e, ascending (in,), of a matrix (out, in) of this `shape`. `ratio`: kept share of `in` under the rule
    'ratio', rounded up where it passes a whole number by 0.001. `share`: kept share of Σ e under the rule 'cumvar'.
    """
    e = values.clamp(min=SMALLEST).flip(0)
    y = e.sqrt()
    if rule == "ratio":
        kept = math.floor(len(e) * ratio + 0.999)
    elif rule == "participation_sqrt":
        kept = math.ceil(float(y.sum().square() / e.sum()))
    elif rule == "participation":
        kept = math.ceil(float(e.sum().square() / e.square().sum()))
    elif rule == "stable_rank":
        kept = math.ceil(float(e.square().sum() / e[0].square()))
    elif rule == "entropy":
        p = e / e.sum()
        kept = math.ceil(float((-(p * p.log()).sum()).exp()))
    elif rule == "cumvar":
        kept = 1 + int((e.cumsum(0) / e.sum() < share).sum())
    else:
        kept = int((y > _gavish_donoho(shape) * y.median()).sum())
    return min(max(kept, 1), len(e))


def _gavish_donoho(shape: tuple[int, ...]) -> float:
    """ω of Gavish and Donoho, arXiv:1305.5870; the median of the noise as the authors of ASWUDI have it."""
    beta = min(shape) / max(shape)
    middle = (2.0 + math.sqrt(3.0)) if beta >= 0.9999 else max((1.0 - beta) ** 2 + beta, 1e-3)
    best = 2.0 * (beta + 1.0) + 8.0 * beta / ((beta + 1.0) + math.sqrt(beta * beta + 14.0 * beta + 1.0))
    return math.sqrt(best / middle)
