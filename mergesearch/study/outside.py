"""A study without models and its strategy. Loads no library of models, so that its controller starts quickly."""

from pydantic import ValidationError

from mergesearch.errors import SpecError
from mergesearch.plugins import Fault, faults, load
from mergesearch.strategies import STRATEGIES
from mergesearch.strategies.base import Problem
from mergesearch.study.black_box import BlackBoxSpec, parse_black_box
from mergesearch.study.text import Source


def parse_outside(source: Source) -> BlackBoxSpec:
    """The study without models in `source`, its strategy's options too. Raises SpecError with line and column."""
    spec = parse_black_box(source)
    try:
        plugin = load("strategy", STRATEGIES, spec.strategy.kind)
    except SpecError as error:
        raise source.error([Fault(("strategy", "kind"), str(error))]) from None
    try:
        plugin.Options.model_validate(spec.strategy.options)
    except ValidationError as error:
        found = [Fault(("strategy", *fault.path), fault.sentence) for fault in faults(plugin.Options, error)]
        raise source.error(found) from None
    return spec


def black_box_problem(spec: BlackBoxSpec, *, gradients: bool = False) -> Problem:
    """What the strategy of a study without models is told; `gradients`: whether its scorers send them."""
    space, budget = spec.space, spec.budget
    losses = ("loss",) if gradients else ()
    cost = budget.gradient_cost
    return Problem(space.dim, spec.wanted, space.start, budget.evaluations, gradients=losses, gradient_cost=cost)
