"""What a candidate would score on all examples, estimated from its score on the first few of them.

Three estimators of rising ambition: the shifted mean, a regression on candidates that were scored in full (a control
variate), and item response theory with two abilities (MERGE³, arXiv:2502.10436), whose items are fitted here on the
candidates scored so far, since published item parameters exist for public benchmarks only.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from mergesearch.types import Vector

Matrix = NDArray[np.float64]

ABILITIES = 2
_RIDGE = 1.0  # of items and abilities: unit priors
_SWEEPS = 12


def regressed(part: float, parts: Vector, wholes: Vector) -> tuple[float, float]:
    """Mean over all examples and the standard deviation of what it misses, from the mean over the first ones.

    `parts` and `wholes` (k,) are those of candidates scored in full. Their differences shift the estimate; from five
    on a slope is fitted, shrunk towards 1. One: its own difference; none: the part itself, error unknown (inf).
    """
    if len(parts) == 0:
        return part, math.inf
    x, y = parts - parts.mean(), wholes - wholes.mean()
    slope = 1.0
    if len(parts) >= 5:
        prior = 0.5 * float(x @ x) + 1e-12
        slope = (float(x @ y) + prior) / (float(x @ x) + prior)
    missed = y - slope * x
    deviation = float(np.sqrt(missed @ missed / max(len(parts) - 2, 1))) if len(parts) > 2 else math.inf
    return float(wholes.mean() + slope * (part - parts.mean())), deviation


@dataclass(frozen=True, eq=False)
class Items:
    """Parameters of n items: P(right) = sigmoid(a·θ - b). `a` (n, 2), `b` (n,)."""

    a: Matrix
    b: Vector

    def chances(self, ability: Vector) -> Vector:
        """P(right) of every item (n,) for an ability (2,)."""
        return np.asarray(expit(self.a @ ability - self.b), dtype=np.float64)


def fit_items(right: Matrix, seed: int = 0) -> Items:
    """Items from which of them candidates got right: `right` (k, n) of 0 and 1. Alternates ridged Newton steps."""
    k, n = right.shape
    generator = np.random.Generator(np.random.Philox(seed))
    ability = np.column_stack([_logit(right.mean(axis=1)), 0.3 * generator.standard_normal(k)])
    ability -= ability.mean(axis=0)
    items = np.column_stack([np.ones(n), np.zeros(n), -_logit(right.mean(axis=0))])  # a1, a2, b
    for _ in range(_SWEEPS):
        items = _newton(items, np.column_stack([ability, -np.ones(k)]), right.T, centre=np.array([1.0, 0.0, 0.0]))
        ability = _newton(ability, items[:, :2], right, centre=np.zeros(2), offset=items[:, 2])
    return Items(items[:, :2].copy(), items[:, 2].copy())


def _newton(rows: Matrix, features: Matrix, right: Matrix, centre: Vector, offset: Vector | None = None) -> Matrix:
    """One ridged Newton step of a logistic regression for each of `rows` (r, p) on `features` (f, p); right (r, f)."""
    shift = 0.0 if offset is None else offset
    chance = expit(rows @ features.T - shift)
    slope = (right - chance) @ features - _RIDGE * (rows - centre)
    weight = chance * (1.0 - chance)
    curve = np.einsum("rf,fp,fq->rpq", weight, features, features) + _RIDGE * np.eye(rows.shape[1])
    step = np.linalg.solve(curve, slope[:, :, None])[:, :, 0]
    return np.asarray(rows + np.clip(step, -2.0, 2.0), dtype=np.float64)


def _logit(share: Vector) -> Vector:
    clipped = np.clip(share, 0.02, 0.98)
    return np.asarray(np.log(clipped / (1.0 - clipped)), dtype=np.float64)


def ability_of(items: Items, right: Vector) -> Vector:
    """The most likely ability (2,) of a candidate that answered the first len(right) items so, under a unit prior."""
    a, b = items.a[: len(right)], items.b[: len(right)]

    def loss(theta: Vector) -> tuple[float, Vector]:
        z = a @ theta - b
        value = float(np.logaddexp(0.0, z).sum() - right @ z) + _RIDGE * float(theta @ theta)
        return value, a.T @ (expit(z) - right) + 2.0 * _RIDGE * theta

    return np.asarray(minimize(loss, np.zeros(ABILITIES), jac=True, method="L-BFGS-B").x, dtype=np.float64)


def mp_irt(items: Items, ability: Vector, accuracy: float, seen: int, total: int) -> float:
    """The multi-purpose estimate: what was seen, and the model's chances on what was not.

    (n/N)·accuracy + (1 - n/N)·mean chance of the unseen items; `items` are the unseen ones.
    """
    share = seen / total
    return share * accuracy + (1.0 - share) * float(items.chances(ability).mean())


def gmp_irt(items: Items, ability: Vector, accuracy: float, seen: int, total: int) -> float:
    """Half of what was seen, half of `mp_irt`: the cure for merges that are worse than any ability can say."""
    return 0.5 * accuracy + 0.5 * mp_irt(items, ability, accuracy, seen, total)
