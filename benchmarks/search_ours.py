"""Our strategies, driven through ask, asked and tell as the controller drives them, without store and workers."""

from dataclasses import dataclass

from search_runs import Recorder, Target

from mergesearch.controller.search import make_strategy
from mergesearch.results import RECOMMENDED
from mergesearch.strategies import STRATEGIES
from mergesearch.strategies.base import Need, Problem, Strategy
from mergesearch.types import Candidate

GRADIENTS = "+gradients"


@dataclass(frozen=True)
class Ours:
    """A strategy kind, and whether it may ask for gradients; written 'ours/auto' or 'ours/auto+gradients'."""

    kind: str
    gradients: bool

    @classmethod
    def parse(cls, name: str) -> "Ours":
        """Inverse of the written form."""
        kind = name.removeprefix("ours/")
        return cls(kind.removesuffix(GRADIENTS), kind.endswith(GRADIENTS))

    @property
    def exists(self) -> bool:
        """Whether this version of mergesearch has the kind."""
        return self.kind in STRATEGIES


def new_strategy(ours: Ours, target: Target, budget: float, seed: int) -> Strategy:
    """The strategy with everything that a study would tell it."""
    problem = Problem(
        target.dim,
        target.objectives,
        target.start,
        budget,
        target.seeds,
        target.gradients if ours.gradients else (),
        target.gradient_cost,
        target.space,
        target.geometry(),
    )
    return make_strategy(ours.kind, problem, seed, {})


def run_ours(name: str, recorder: Recorder, seed: int) -> Strategy:
    """Spend the recorder's budget, the last evaluation on what the strategy recommends."""
    strategy = new_strategy(Ours.parse(name), recorder.target, recorder.budget, seed)
    examples = Need.EXAMPLES in strategy.NEEDS
    recorder.recommend = strategy.recommend
    for number, (origin, observation) in enumerate(recorder.target.baselines()):
        baseline = Candidate(number, None, origin)
        strategy.tell(baseline, observation)
        recorder.spent += 1.0
    cost_of = recorder.target.gradient_cost
    while (proposal := strategy.ask(recorder.evaluations)) is not None:
        cost = proposal.request.cost(cost_of)
        if recorder.spent + cost > recorder.budget - 1.0 + 1e-9:
            break
        candidate = Candidate(recorder.evaluations, proposal.point, proposal.origin, proposal.request, cost)
        strategy.asked(candidate)
        strategy.tell(candidate, recorder.add(candidate, examples))
    best = strategy.recommend()
    if best is not None:
        candidate = Candidate(recorder.evaluations, best, RECOMMENDED)
        strategy.asked(candidate)
        strategy.tell(candidate, recorder.add(candidate, examples))
    return strategy
