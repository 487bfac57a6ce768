"""How far a surrogate with gradients is to be trusted: by what it predicted and what was then seen.

Two questions, both answered from the records alone, so that a replay answers them alike. Are the gradients true? Over a
step s the guide must change by about (g + g')s/2, whatever the surrogate. How far may a step go? The error of the
prediction grows as the third power of the distance; its factor, fitted to all predictions so far, becomes the cubic
term of an adaptive regularisation (Cartis, Gould, Toint, Math. Programming 2011), which gives every preference a radius
of its own.
"""

from dataclasses import dataclass, replace

import numpy as np

from mergesearch.strategies.surrogates.gradient_surrogate import Records, Surrogate, Vector, nearest_rows

_MEMORY = 0.85  # weight of a prediction against the one after it
_FAILED = 0.7  # of the cap is left after a failure
_GOOD, _POOR = 0.35, 1.0  # error of a prediction relative to the change seen
_STEPS_NEEDED = 4  # steps over which gradients and changes are compared before gradients are distrusted
_AGREEMENT = 0.3  # least share of the seen changes that the gradients must explain


@dataclass(frozen=True, eq=False)
class Trust:
    """`cap`: greatest distance of a new point from a measured one. `cubic` (M,): error of a guide = cubic * distance³.

    `ratio`: latest predicted-against-seen error, relative to the change seen; 0.0 before the first.
    """

    cap: float
    first: float
    greatest: float
    cubic: Vector
    above: Vector
    below: float = 0.0
    ratio: float = 0.0

    def failed(self) -> "Trust":
        """After an evaluation failed: smaller steps, but never tiny ones, since failures may have other causes."""
        return replace(self, cap=max(_FAILED * self.cap, min(self.cap, 0.1 * self.first)))

    def seen(self, surrogate: Surrogate, point: Vector, guides: Vector) -> "Trust":
        """After `guides` (M,) were seen at `point` (D,), which `surrogate` did not know."""
        predicted = surrogate.guides(point[None])[0]
        nearest = int(np.argmin(surrogate.shares(point[None])[1]))
        distance = float(np.linalg.norm(point - surrogate.nodes[nearest]))
        error = np.abs(predicted - guides)
        here = surrogate.guides(surrogate.nodes[nearest][None])[0]
        change = float(np.abs(guides - here).sum())
        if distance < 1e-9 or not np.isfinite(error).all():
            return self
        above = _MEMORY * self.above + error * distance**3
        below = _MEMORY * self.below + distance**6
        ratio = float(error.sum()) / max(change, 1e-300)
        cap = self.cap
        if 0.5 * cap <= distance <= 2.0 * cap:
            cap = min(2.0 * cap, self.greatest) if ratio < _GOOD else 0.5 * cap if ratio > _POOR else cap
        return replace(self, cap=cap, cubic=above / below, above=above, below=below, ratio=min(ratio, 1e6))


def first_trust(objectives: int, radius: float, dim: int) -> Trust:
    """Before anything is known: steps of `radius` per axis (root mean square), at most 0.5 ever."""
    zeros = np.zeros(objectives)
    first = radius * float(np.sqrt(dim))
    return Trust(first, first, 0.5 * float(np.sqrt(dim)), zeros, zeros)


@dataclass(frozen=True, eq=False)
class Agreement:
    """How well gradients explain the changes of the guides so far: sums over steps, (M,) each."""

    both: Vector
    expected: Vector
    seen: Vector
    steps: int = 0

    def after(self, before: Records, newest: Records) -> "Agreement":
        """With the steps from the records `before` that are nearest to the one record `newest`."""
        earlier = nearest_rows(before.points, newest.points[0])
        if len(earlier) == 0:
            return self
        steps = newest.points[0] - before.points[earlier]
        expected = 0.5 * np.einsum("nmd,nd->nm", newest.gradients + before.gradients[earlier], steps)
        seen = newest.guides - before.guides[earlier]
        both = self.both + np.sum(expected * seen, axis=0)
        squares = np.sum(np.square(expected), axis=0), np.sum(np.square(seen), axis=0)
        return Agreement(both, self.expected + squares[0], self.seen + squares[1], self.steps + 1)

    @property
    def cosine(self) -> Vector:
        """(M,) from -1 to 1. 1: as it should be, or a guide that never changed; about 0: nonsense; -1: a wrong sign."""
        scale = np.sqrt(self.expected * self.seen)
        found: Vector = np.where(scale > 1e-300, self.both / np.maximum(scale, 1e-300), 1.0)
        return found

    @property
    def faulty(self) -> tuple[int, ...]:
        """Objectives whose gradients do not explain how their guides change."""
        return tuple(int(j) for j in np.flatnonzero(self.cosine < _AGREEMENT)) if self.steps >= _STEPS_NEEDED else ()


def no_agreement(objectives: int) -> Agreement:
    """Before the first step."""
    zeros = np.zeros(objectives)
    return Agreement(zeros, zeros, zeros)
