"""Quadratic surrogates of differentiable losses, one per objective, that meet measured values AND gradients.

Every gradient gives D equations of its loss's Hessian H: between two points, H (x - x') = g(x) - g(x'). From such pairs
a diagonal is fitted first, then the symmetric matrix Z nearest to zero with (diagonal + Z) s = y in the least squares
sense: Powell's symmetric update for many pairs at once, with a ridge because gradients of mini-batches are noisy. In
the eigenbasis of the steps its normal equations Z G + G Z + 2 ridge Z = R'S + S'R have a closed solution, so that no
D x D matrix is ever formed. Between the measured points the surrogate blends their Taylor expansions, which share H, by
inverse distance (modified Shepard interpolation), so that losses which are not quadratic are followed too.

The combination is this project's own; its parts are Powell's symmetric Broyden update (Nonlinear Programming, 1970) and
Shepard's interpolation of expansions (Franke and Nielson, 1980).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

_RIDGE = 0.02  # weight of 'no further curvature' beside pairs, which count 1 each where they are close together
_PARTNERS = 2  # earlier points that each point is compared with
_DIAGONAL_RIDGE = 2.0  # pairs' worth of evidence, per axis, that one curvature holds for all axes
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Records:
    """What evaluations with gradients gave, in the order told: points (N, D), guides (N, M), gradients (N, M, D)."""

    points: Matrix
    guides: Matrix
    gradients: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.points)

    def chosen(self, rows: NDArray[np.int64] | slice) -> "Records":
        """Only these rows."""
        return Records(self.points[rows], self.guides[rows], self.gradients[rows])


@dataclass(frozen=True, eq=False)
class Curvature:
    """Hessians of M objectives: H_j = diag(diagonal_j) + Q A_j Q' + P_j Q' + Q P_j', with Q (D, r) orthonormal."""

    diagonal: Matrix  # (M, D)
    basis: Matrix  # Q (D, r)
    inner: NDArray[np.float64]  # A (M, r, r)
    outer: NDArray[np.float64]  # P (M, D, r)

    def times(self, x: Matrix) -> NDArray[np.float64]:
        """H_j x for rows x (k, D): (M, k, D)."""
        turned = x @ self.basis  # (k, r)
        inner = turned @ self.inner + x @ self.outer  # (M, k, r)
        product: NDArray[np.float64] = x * self.diagonal[:, None, :] + inner @ self.basis.T
        return product + turned @ self.outer.transpose(0, 2, 1)

    def weighted(self, x: Matrix, weights: Matrix) -> Matrix:
        """sum_j w_kj H_j x_k for rows x (k, D) and weights (k, M): (k, D)."""
        turned = x @ self.basis  # (k, r)
        inner = turned @ self.inner + x @ self.outer  # (M, k, r)
        found: Matrix = x * (weights @ self.diagonal) + np.einsum("mkr,km->kr", inner, weights) @ self.basis.T
        for j in range(len(self.outer)):
            found += (weights[:, j, None] * turned) @ self.outer[j].T
        return found

    def bound(self) -> Vector:
        """Upper bounds (M,) of the largest absolute eigenvalues."""
        outer = np.sqrt(np.sum(np.square(self.outer), axis=(1, 2)))
        inner = np.sqrt(np.sum(np.square(self.inner), axis=(1, 2)))
        found: Vector = np.abs(self.diagonal).max(axis=1) + inner + outer
        return found


def nearest_rows(points: Matrix, point: Vector) -> NDArray[np.int64]:
    """The few rows of `points` (N, D) nearest to `point` (D,), those at the same place left out."""
    distance = np.sum(np.square(points - point), axis=1)
    near = np.argsort(distance, kind="stable")
    kept: NDArray[np.int64] = near[distance[near] > 1e-16][:_PARTNERS]
    return kept


def partners(points: Matrix) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (later, earlier) of rows: each row with the nearest earlier ones."""
    earlier = [nearest_rows(points[:i], points[i]) for i in range(len(points))]
    later = np.repeat(np.arange(len(points)), [len(rows) for rows in earlier])
    return later, np.concatenate(earlier)


def curvature(records: Records, centre: Vector, reach: float, floor: float) -> Curvature:
    """Hessians fitted to all pairs of neighbouring records.

    Pairs whose middle is further than `reach` from `centre` (D,) count less: the Hessian is wanted there. Pairs closer
    together than `floor` count less, since their differences are mostly noise.
    """
    objectives, dim = records.gradients.shape[1:]
    later, earlier = partners(records.points)
    if len(later) == 0:
        empty = np.zeros((objectives, dim, 0))
        return Curvature(np.zeros((objectives, dim)), np.zeros((dim, 0)), np.zeros((objectives, 0, 0)), empty)
    steps = records.points[later] - records.points[earlier]  # (n, D)
    changes = (records.gradients[later] - records.gradients[earlier]).transpose(1, 0, 2)  # (M, n, D)
    length = np.sum(np.square(steps), axis=1)
    middle = 0.5 * (records.points[later] + records.points[earlier]) - centre
    nearness = 1.0 / (1.0 + np.sum(np.square(middle), axis=1) / reach**2) / (1.0 + length / reach**2)
    root = np.sqrt(nearness / (length + floor**2))[:, None]
    steps, changes = steps * root, changes * root
    diagonal = _diagonal(steps, changes)
    _, sizes, turn = np.linalg.svd(steps, full_matrices=False)
    kept = sizes > 1e-6 * max(float(sizes[0]), _TINY)
    basis, eigen = turn[kept].T, np.square(sizes[kept])  # (D, r), (r,)
    rest = changes - steps * diagonal[:, None, :]  # (M, n, D)
    right = rest.transpose(0, 2, 1) @ (steps @ basis)  # R'S Q: (M, D, r)
    inside = basis.T @ right  # (M, r, r)
    inner = (inside + inside.transpose(0, 2, 1)) / (eigen[:, None] + eigen + 2.0 * _RIDGE)
    outer = (right - basis @ inside) / (eigen + 2.0 * _RIDGE)
    return Curvature(diagonal, basis, inner, outer)


def _diagonal(steps: Matrix, changes: NDArray[np.float64]) -> Matrix:
    """Curvature of each axis (M, D), drawn towards their common value; at least a tenth of it."""
    squares = np.sum(np.square(steps), axis=0)  # (D,)
    products = np.sum(steps * changes, axis=1)  # (M, D)
    common = np.maximum(products.sum(axis=1) / max(float(squares.sum()), _TINY), 0.0)[:, None]  # (M, 1)
    weight = _DIAGONAL_RIDGE * float(squares.mean()) + _TINY
    curved: Matrix = np.maximum((products + weight * common) / (squares + weight), 0.1 * common)
    return curved


@dataclass(frozen=True, eq=False)
class Surrogate:
    """Guides of all objectives as functions of the point: blended Taylor expansions about `nodes` (N, D).

    F_j(x) = sum_i phi_i(x) (level_ij + slope_ij x) + x'H_j x / 2, with phi_i(x) falling as distance^-4, in sum 1;
    distances below `smooth` count as equal, so that the noise of neighbours is averaged.
    """

    nodes: Matrix
    level: Matrix  # (N, M)
    slope: NDArray[np.float64]  # (N, M, D)
    hessian: Curvature
    smooth: float

    def shares(self, x: Matrix) -> tuple[Matrix, Matrix]:
        """phi (k, N) and squared distances (k, N) of points x (k, D)."""
        squares = np.sum(np.square(x), axis=1)[:, None] + np.sum(np.square(self.nodes), axis=1) - 2.0 * x @ self.nodes.T
        squares = np.maximum(squares, 0.0)
        weight = 1.0 / np.square(squares + self.smooth**2)
        return weight / weight.sum(axis=1, keepdims=True), squares

    def guides(self, x: Matrix) -> Matrix:
        """Predicted guides (k, M) at points x (k, D)."""
        share, _ = self.shares(x)
        count, objectives, dim = self.slope.shape
        linear = (x @ self.slope.reshape(count * objectives, dim).T).reshape(len(x), count, objectives) + self.level
        curved = np.sum(self.hessian.times(x) * x, axis=2).T  # (k, M)
        found: Matrix = np.sum(share[:, :, None] * linear, axis=1) + 0.5 * curved
        return found

    def descent(self, x: Matrix, weights: Matrix) -> tuple[Matrix, Matrix, NDArray[np.int64]]:
        """Slopes (k, D) of the sums with `weights` (k, M) at x (k, D), squared distances to and rows of the nearest
        nodes (k,). The shares' own change is left out, so that a minimum is where the blended gradients vanish."""
        share, squares = self.shares(x)
        count, objectives, dim = self.slope.shape
        mix = (share[:, :, None] * weights[:, None, :]).reshape(len(x), count * objectives)
        linear = mix @ self.slope.reshape(count * objectives, dim)
        curved = self.hessian.weighted(x, weights)
        nearest = np.argmin(squares, axis=1)
        return linear + curved, squares[np.arange(len(x)), nearest], nearest


def surrogate(records: Records, centre: Vector, reach: float, smooth: float) -> Surrogate:
    """The surrogate of all records (N of at least 1), its curvature fitted for the region of `reach` about `centre`."""
    hessian = curvature(records, centre, reach, smooth)
    bent = hessian.times(records.points).transpose(1, 0, 2)  # H_j x_i: (N, M, D)
    slope = records.gradients - bent
    level = records.guides - np.einsum("nmd,nd->nm", records.gradients - 0.5 * bent, records.points)
    return Surrogate(records.points, level, slope, hessian, smooth)
