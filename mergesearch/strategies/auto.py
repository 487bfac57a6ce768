"""Chooses the strategy by axes, objectives, budget and whether gradients are to be had, and says why. The default.

The rules follow the figures in docs/benchmarks.md. What was chosen is the first note of a study.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast, final

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy
from mergesearch.strategies.make import make_strategy
from mergesearch.types import Candidate, Vector

FEW_GRADIENTS = 4  # evaluations with a gradient that a budget must hold for gradients to pay
MOST_AXES = 200  # up to which local quadratics are fitted by values alone


class Options(PluginOptions):
    """`gradients`: use them where the study can give them. `loss`: the differentiable loss to follow; None: the first
    that the study offers."""

    gradients: bool = True
    loss: str | None = None


@dataclass(frozen=True)
class Choice:
    """A strategy's kind and options, and a sentence that says why."""

    kind: str
    why: str
    options: Mapping[str, Any] = field(default_factory=dict)


def choose(problem: Problem, options: Options) -> Choice:
    """The strategy for a problem."""
    many = "one objective" if len(problem.objectives) == 1 else f"{len(problem.objectives)} objectives"
    regime = f"{problem.dim} axes, {many}, a budget of {problem.evaluations:g} evaluations"
    if options.gradients and problem.gradients and problem.evaluations >= FEW_GRADIENTS * problem.gradient_cost:
        loss = options.loss or problem.gradients[0]
        why = f"{regime}, and gradients of {loss!r} to be had, each of which says something of every axis"
        return Choice("gradient_map", why, {"loss": options.loss} if options.loss else {})
    without = ", no gradients" if not problem.gradients else ", gradients left aside"
    if problem.dim <= MOST_AXES:
        why = "local quadratics need the fewest evaluations" + (" for a front" if len(problem.objectives) > 1 else "")
        return Choice("quadratic", f"{regime}{without}: {why}")
    if len(problem.objectives) == 1:
        return Choice("cma_es", f"{regime}{without}: beyond {MOST_AXES} axes its mean is the best pick")
    return Choice("nsga2", f"{regime}{without}: beyond {MOST_AXES} axes a population around the start is sturdiest")


@final
class Auto(Strategy):
    """Strategy; see `strategies/base.py` for the contract. It passes everything on to the one it chose."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = True

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self.choice = choose(problem, cast(Options, options))
        self._chosen = make_strategy(self.choice.kind, problem, seed, self.choice.options)

    def ask(self, number: int) -> Proposal | None:
        """As the chosen strategy."""
        return self._chosen.ask(number)

    def asked(self, candidate: Candidate) -> None:
        """As the chosen strategy."""
        self._chosen.asked(candidate)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """As the chosen strategy."""
        self._chosen.tell(candidate, observation)

    def recommend(self) -> Vector | None:
        """As the chosen strategy."""
        return self._chosen.recommend()

    def diagnostics(self) -> Mapping[str, float]:
        """As the chosen strategy."""
        return self._chosen.diagnostics()

    def notes(self) -> tuple[str, ...]:
        """What was chosen and why, then the notes of the chosen strategy."""
        return (f"auto chose {self.choice.kind}: {self.choice.why}", *self._chosen.notes())
