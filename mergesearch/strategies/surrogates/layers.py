"""What the weights say about layers before anything is scored: contiguous blocks, and which layers matter.

Source: BAMBO and AP-BMM, arXiv:2512.09972 and its code: the partition and the importance prior. Of the importance only
the half that the weights give is here; the other half needs the models' hidden states.
"""

import math

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import SpecError
from mergesearch.strategies.base import Problem
from mergesearch.types import Vector

_RANKS = ((0.15, 0.5), (0.40, 1.0), (0.70, 2.0), (1.0, 5.0))  # share of the axes, most important first -> length-scale


def depth_partition(distances: Vector, blocks: int, alpha: float = 1.0, beta: float = 0.005) -> tuple[list[int], float]:
    """Ends of `blocks` contiguous, non-empty blocks of layers, and the cost, least of all partitions.

    Cost: sum over blocks of alpha sum (d_l - block's mean)^2 + beta (block's sum - total / blocks)^2 over distances
    (L,) min-max scaled by the caller. Of equal partitions the one with the earliest cuts. O(L^2 blocks).
    """
    count = len(distances)
    if not 1 <= blocks <= count:
        raise SpecError(f"{count} layers make 1 to {count} blocks, not {blocks}")
    first = np.concatenate([[0.0], np.cumsum(distances)])
    second = np.concatenate([[0.0], np.cumsum(np.square(distances))])
    share = first[-1] / blocks

    def block(i: int, j: int) -> float:
        total = first[j] - first[i]
        return float(alpha * (second[j] - second[i] - total * total / (j - i)) + beta * (total - share) ** 2)

    cost = np.full((count + 1, blocks + 1), math.inf)
    cut = np.zeros((count + 1, blocks + 1), dtype=np.int64)
    cost[0, 0] = 0.0
    for b in range(1, blocks + 1):
        for j in range(b, count + 1):
            options = [cost[i, b - 1] + block(i, j) for i in range(b - 1, j)]
            cut[j, b] = b - 1 + int(np.argmin(options))
            cost[j, b] = min(options)
    ends, j = [], count
    for b in range(blocks, 0, -1):
        ends.append(j)
        j = int(cut[j, b])
    return ends[::-1], float(cost[count, blocks])


def robust_share(values: Vector) -> Vector:
    """Logistic function of (x - median) / (1.4826 MAD), (L,); 0.5 everywhere where the deviation is 0."""
    middle = float(np.median(values))
    deviation = 1.4826 * float(np.median(np.abs(values - middle)))
    z = (values - middle) / deviation if deviation > 0 else np.zeros(len(values))
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(z, -500.0, 500.0))), dtype=np.float64)


def smoothed(values: Vector) -> Vector:
    """Running mean (L,) with weights 1/4, 1/2, 1/4; the ends are repeated."""
    padded = np.pad(values, 1, mode="edge")
    return 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]


def importance(change: NDArray[np.float64]) -> NDArray[np.float64]:
    """Importance (G, K) in 0.05 .. 1 of relative changes ||task vector|| / ||base|| (G, K), groups in depth order."""
    columns = [np.clip(smoothed(robust_share(column)), 0.05, 1.0) for column in change.T]
    return np.stack(columns, axis=1)


def ranked_lengths(weight: Vector) -> Vector:
    """Length-scales (D,) by rank of importance (D,): 0.5 for the top 15 %, 1 up to 40 %, 2 up to 70 %, 5 beyond.

    Axes of equal importance share the rank of the first of them.
    """
    place = np.array([float(np.mean(weight > w)) for w in weight])
    return np.array([next(length for share, length in _RANKS if p < share) for p in place])


def prior_lengths(problem: Problem) -> Vector | None:
    """Length-scales (D,) that the weights suggest; None where the geometry or the axes' meaning is not known.

    An axis has the mean importance of the groups and experts that it moves; one that moves none, the least.
    """
    if problem.geometry is None or problem.space is None or not problem.space.slots:
        return None
    square = np.einsum("gkk->gk", problem.geometry.gram)
    base = np.maximum(problem.geometry.base, np.finfo(np.float64).tiny)[:, None]
    table = importance(np.sqrt(np.maximum(square, 0.0) / base))
    weight = np.full(problem.dim, 0.05)
    for axis in range(problem.dim):
        cells = np.concatenate([table[slot.axis == axis] for slot in problem.space.slots])
        if len(cells):
            weight[axis] = float(cells.mean())
    return ranked_lengths(weight)
