"""Self Positioning: one weight per expert and one overall length, on the slerp path of the task vectors; few numbers.

Reference: Li et al., arXiv:2410.15035. V <- slerp(V, tau_i; w_i), w_i = a_i / (mean of a before i + a_i), with weights
sin((1 - w) W) / sin W and sin(w W) / sin W for the angle W; the model is base + s V, and SGD moves a and s against
loss + mu s. Angles come from the inner products of all weights (`Problem.geometry`); without it, or where two vectors
are nearly parallel, the path is a straight line. As V is a weighted sum of task vectors, gradients of the coefficients
give those of (a, s) by the chain rule (central differences of the map, which is cheap and smooth). All groups share
the weights; where the start differs between groups, its differences stay. The path depends on the order of experts.

Ours: the a are kept at a mean of 1; steps have momentum 0.9 and are in units of the first gradient's length, so that
one rate suits all losses; mu is in the same units. K + 1 numbers: a derivative-free search is as good for K <= 5.

An ask takes 0.1 s of CPU time with 96 experts, one axis each, and 1.3 s with 384.
"""

from collections.abc import Mapping
from typing import ClassVar, cast, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from mergesearch.errors import SpecError
from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Need, Observation, Problem, Proposal, Strategy
from mergesearch.strategies.learning.natural import Natural
from mergesearch.strategies.learning.rules import Pace, Settings, chosen_loss, chosen_monitor
from mergesearch.strategies.learning.steps import Learner
from mergesearch.types import Candidate, Vector

_PARALLEL = 1e-4  # sine of an angle below which the path is straight
_MOMENTUM, _H = 0.9, 1e-5
_SMALLEST = 1e-3  # of the a, whose mean is 1
_LEAST = 0.05  # of the largest coefficient: what counts for an expert at 0


class Options(PluginOptions):
    """`loss`: the differentiable loss to follow; None: the study's first. `learning_rate`: of SGD on (a, s), in
    units of the first gradient. `mu`: penalty on the length s, in the same units. `steps`: aimed at; the batches are
    made so large that the budget gives about as many. `batch`: least examples of an objective in a batch.
    `batches_per_step`: gradients averaged per step; None: as many as are asked for at once, at most 8. `monitor`: what
    ranks the iterates, the study's 'metric' or a differentiable loss."""

    loss: str | None = None
    learning_rate: float = Field(default=0.02, gt=0, le=1)
    mu: float = Field(default=0.0, ge=0, lt=1)
    steps: PositiveInt = 60
    batch: PositiveInt = 16
    batches_per_step: PositiveInt | None = None
    monitor: str = "metric"


def slerp_weights(a: Vector, gram: NDArray[np.float64] | None) -> Vector:
    """c (K,) with V = sum of c_k tau_k, of weights a (K,) > 0 and the inner products (K, K) of the task vectors.

    Without `gram` the straight line. Equal a do not mean equal c: the last of three gets half, as in the paper. A task
    vector of zeros counts as parallel.
    """
    c = np.zeros(len(a))
    c[0] = 1.0
    for i in range(1, len(a)):
        w = a[i] / (a[:i].mean() + a[i])
        angle = _angle(c, i, gram)
        before, own = 1.0 - w, w
        if angle is not None:
            before, own = np.sin((1.0 - w) * angle) / np.sin(angle), np.sin(w * angle) / np.sin(angle)
        c *= before
        c[i] = own
    return c


def weights_of(coefficients: Vector, gram: NDArray[np.float64] | None) -> tuple[Vector, float]:
    """a (K,), with a_0 = 1, and s such that s x slerp_weights(a) are these coefficients (K,) > 0: the inverse."""
    a, c = np.ones(len(coefficients)), np.zeros(len(coefficients))
    c[0], scale = 1.0, float(coefficients[0])
    for i in range(1, len(coefficients)):
        ratio = coefficients[i] / scale  # own / before
        angle = _angle(c, i, gram)
        w = ratio / (1.0 + ratio)
        before = 1.0 - w
        if angle is not None:
            w = float(np.arctan2(ratio * np.sin(angle), 1.0 + ratio * np.cos(angle))) / angle
            before = np.sin((1.0 - w) * angle) / np.sin(angle)
        a[i] = a[:i].mean() * w / (1.0 - w)
        scale = scale / before
        c = coefficients * (np.arange(len(c)) <= i) / scale
    return a, scale


def _angle(c: Vector, i: int, gram: NDArray[np.float64] | None) -> float | None:
    """Between V = sum of c_k tau_k and tau_i; None where a straight line serves (parallel, or nothing known)."""
    if gram is None:
        return None
    lengths = np.sqrt(max(float(c @ gram @ c), 0.0) * max(float(gram[i, i]), 0.0))
    if lengths == 0.0:
        return None
    angle = float(np.arccos(np.clip((c @ gram[:, i]) / lengths, -1.0, 1.0)))
    return angle if np.sin(angle) > _PARALLEL else None


@final
class PathRule:
    """Rule of `rules.py`: SGD with momentum on (a, s), for the K' experts that have axes."""

    def __init__(
        self, natural: Natural, begin: Vector, gram: NDArray[np.float64] | None, rate: float, mu: float
    ) -> None:
        self._natural, self._rate, self._mu = natural, rate, mu
        self._kept = np.unique(natural.expert[natural.expert >= 0])
        self._gram = None if gram is None else gram[np.ix_(self._kept, self._kept)]
        self._place = np.where(natural.expert >= 0, np.searchsorted(self._kept, natural.expert), -1)
        self._unit = 0.0
        self.values, self._base, self._from = begin, begin, begin
        self._numbers = self._momentum = np.zeros(len(self._kept) + 1)
        self.restart(begin)

    def step(self, gradients: NDArray[np.float64], weights: Vector, pace: Pace) -> None:
        """One step of the K + 1 numbers."""
        own = self._place >= 0
        flat = np.bincount(self._place[own], weights=(weights @ gradients)[own], minlength=len(self._kept))
        slope = flat @ self._jacobian()
        self._unit = self._unit or float(np.linalg.norm(slope))
        slope = slope / max(self._unit, 1e-300) if self._unit else slope
        slope[-1] += self._mu
        longest = np.linalg.norm(slope)
        slope = slope * (3.0 / longest) if longest > 3.0 else slope  # a noisy batch is no reason for a leap
        self._momentum = _MOMENTUM * self._momentum + slope
        self._numbers = self._numbers - self._rate * pace.cosine() * pace.shrink * pace.windows * self._momentum
        self._numbers = _within(self._numbers)
        moved = (self._coefficients(self._numbers) - self._from)[self._place]
        self.values = self._natural.clip(np.where(own, self._base + moved, self._base))

    def restart(self, values: Vector) -> None:
        """Goes on from these values: the numbers that give their means, and what is left over beside them."""
        self.values = self._natural.clip(values)
        mean = self._natural.by_expert(self.values)[self._kept]
        a, s = weights_of(np.maximum(mean, max(_LEAST * float(np.abs(mean).max()), 1e-6)), self._gram)
        self._numbers = _within(np.append(a, s))
        self._momentum = np.zeros(len(self._numbers))
        self._base, self._from = self.values, self._coefficients(self._numbers)

    def diagnostics(self) -> Mapping[str, float]:
        """The length factor s."""
        return {"length": float(self._numbers[-1])}

    def _coefficients(self, numbers: Vector) -> Vector:
        return np.asarray(numbers[-1] * slerp_weights(numbers[:-1], self._gram))

    def _jacobian(self) -> NDArray[np.float64]:
        """(K', K' + 1): of the coefficients by (a, s)."""
        columns = []
        for move in _H * np.eye(len(self._numbers)):
            ahead, behind = self._coefficients(self._numbers + move), self._coefficients(self._numbers - move)
            columns.append((ahead - behind) / (2.0 * _H))
        return np.stack(columns, axis=1)


def _within(numbers: Vector) -> Vector:
    """(a, s) with a > 0 of mean 1, which changes no ratio, and s at least 0."""
    a = np.maximum(numbers[:-1] / max(float(numbers[:-1].mean()), _SMALLEST), _SMALLEST)
    return np.append(a, max(float(numbers[-1]), 0.0))


@final
class SelfPositioning(Strategy):
    """Strategy; see `strategies/base.py` for the contract and `steps.py` for how it asks."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = False
    NEEDS: ClassVar[frozenset[Need]] = frozenset({Need.GRADIENTS, Need.GEOMETRY})

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        chosen = cast(Options, options)
        loss = chosen_loss("self_positioning", problem, chosen.loss, problem.gradients or ("loss",))
        monitor = chosen_monitor("self_positioning", problem, chosen.monitor)
        natural = Natural(problem)
        if not (natural.expert >= 0).any():
            raise SpecError(
                "strategy 'self_positioning' weighs experts, and no axis is one expert's coefficient; "
                "let 'coefficient' vary per expert or per expert_group in the study's space"
            )
        geometry = problem.geometry
        gram = geometry.gram.sum(axis=0) if geometry and geometry.gram.shape[1] == natural.experts else None
        rule = PathRule(natural, natural.values(problem.start), gram, chosen.learning_rate, chosen.mu)
        settings = Settings(loss, chosen.steps, chosen.batch, chosen.batches_per_step, monitor)
        self._learner = Learner(problem, seed, settings, rule, natural)

    def ask(self, number: int) -> Proposal | None:
        """The next check or batch; None while a step is awaited."""
        return self._learner.ask(number)

    def asked(self, candidate: Candidate) -> None:
        """Remembers what the candidate is for."""
        self._learner.asked(candidate)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Adds one result."""
        self._learner.tell(candidate, observation)

    def recommend(self) -> Vector | None:
        """The best monitored point, the start among them."""
        return self._learner.recommend()

    def diagnostics(self) -> Mapping[str, float]:
        """Figures of the learner, and the length factor."""
        return self._learner.diagnostics()

    def notes(self) -> tuple[str, ...]:
        """What it decided."""
        return self._learner.notes()
