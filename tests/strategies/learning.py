"""Small analytic studies for the gradient learners: bowls with noisy batches, and a loop that runs a strategy."""

from dataclasses import dataclass, field

import numpy as np

from mergesearch.space import Knob, KnobRange, Per, Scale, build_space
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.make import make_strategy
from mergesearch.types import Candidate, Direction, Objective

EXAMPLES = 64


def space(experts=3, groups=4, init=0.3, high=1.0, per=Per.EXPERT_GROUP):
    """Coefficients of every expert in every group."""
    names = [f"e{k}" for k in range(experts)], [f"g{g}" for g in range(groups)]
    knob = Knob("coefficient", 0.0, high, init, searched=True)
    return build_space([knob], *names, {"coefficient": KnobRange(0.0, high, init, per, Scale.LINEAR)}, {})


@dataclass
class Bowl:
    """Two objectives, one bowl each; every example has a bottom of its own around `best` (D,) in natural units.

    The losses told are the bowl's, their gradients `sign` times its; `hidden` (D,) is the bottom of the metric where
    it is not that of the loss.
    """

    best: np.ndarray
    of_space: object = None
    noise: float = 0.2
    sign: float = 1.0
    hidden: object = None
    fails: object = staticmethod(lambda number: False)
    spread: np.ndarray = field(init=False)

    def __post_init__(self):
        self.spread = self.noise * np.random.default_rng(3).standard_normal((EXAMPLES, len(self.best)))
        self.spread -= self.spread.mean(axis=0)

    def problem(self, evaluations=60, start=None, gradients=("loss", "kl", "entropy"), **more):
        """The study."""
        objectives = (Objective("a", Direction.MIN), Objective("b", Direction.MIN))
        begin = self.of_space.start if start is None else start
        return Problem(len(self.best), objectives, begin, evaluations, gradients=gradients, space=self.of_space, **more)

    def values(self, point):
        """Natural values of a point."""
        return np.asarray(point) if self.of_space is None else self.of_space.values(point)

    def metric(self, point):
        """The loss that counts, over all examples."""
        return float(np.mean((self.values(point) - (self.best if self.hidden is None else self.hidden)) ** 2))

    def __call__(self, candidate):
        if self.fails(candidate.number):
            return None
        rows = candidate.request.rows(EXAMPLES)
        values, dim = self.values(candidate.point), len(self.best)
        apart = values - (self.best + self.spread[rows])
        slopes = np.ones(dim) if self.of_space is None else self.of_space.slopes(candidate.point)
        loss = self.metric(candidate.point)
        guide, slope = float(np.mean(apart**2)), 2.0 * apart.mean(axis=0) / dim * slopes
        wanted = bool(candidate.request.gradient)
        return Observation(
            np.array([loss, 2.0 * loss]),
            np.full(2, 1e-4),
            np.full(2, float(len(rows))),
            np.array([guide, 2.0 * guide]) if wanted else None,
            self.sign * np.array([slope, 2.0 * slope]) if wanted else None,
        )


@dataclass
class Run:
    """A finished run: the strategy, its log and what was spent."""

    strategy: object
    log: list
    spent: float

    def told(self, origin):
        """Candidates of an origin."""
        return [candidate for what, candidate, _ in self.log if what == "told" and candidate.origin == origin]


def run(kind, bowl, evaluations=60, workers=1, seed=0, of=None, **options):
    """Runs a strategy as the controller does: nothing is asked that does not fit, one evaluation is kept for the end.

    The result that comes first is another one in every round.
    """
    of = of or bowl.problem(evaluations)
    subject = make_strategy(kind, of, seed, options)
    log, busy, spent, number = [], [], 0.0, 0
    while True:
        proposal = subject.ask(number) if len(busy) < workers else None
        if proposal is not None:
            cost = proposal.request.cost(of.gradient_cost)
            if spent + cost <= of.evaluations - 1.0 + 1e-9:
                candidate = Candidate(number, proposal.point, proposal.origin, proposal.request, cost)
                subject.asked(candidate)
                log.append(("asked", candidate, None))
                busy.append(candidate)
                number, spent = number + 1, spent + cost
                continue
        if not busy:
            return Run(subject, log, spent)
        candidate = busy.pop(number % len(busy))
        observation = bowl(candidate)
        subject.tell(candidate, observation)
        log.append(("told", candidate, observation))


def again(kind, of, log, seed=0, **options):
    """A fresh strategy that was told the log."""
    subject = make_strategy(kind, of, seed, options)
    for what, candidate, observation in log:
        if what == "asked":
            subject.asked(candidate)
        else:
            subject.tell(candidate, observation)
    return subject
