"""What a study's strategy is told of it, and why it cannot have what it needs. Weights are read for geometry alone."""

from functools import partial

from mergesearch.checkpoints.geometry import inner_products
from mergesearch.merging import make_operator
from mergesearch.pool.gradients import differentiable_losses, no_gradients
from mergesearch.pool.live import names_in_files
from mergesearch.pool.setup import make_scorers
from mergesearch.strategies.base import Geometry, Need, Problem
from mergesearch.strategies.make import needs
from mergesearch.study.resolve import ResolvedStudy
from mergesearch.types import frozen_array


def make_problem(resolved: ResolvedStudy) -> Problem:
    """The strategy's problem. Reads all merged weights once where the strategy needs their geometry.

    Raises:
        CheckpointError: the weights were to be read and are unreadable, or hold NaN or infinity.
    """
    spec = resolved.spec
    wanted = needs(spec.strategy.kind, spec.strategy.options)
    return Problem(
        dim=resolved.space.dim,
        objectives=tuple(objective.told for objective in resolved.objectives),
        start=resolved.space.start,
        evaluations=spec.budget.evaluations,
        gradients=gradients_of(resolved),
        gradient_cost=spec.budget.gradient_cost,
        space=resolved.space,
        geometry=_geometry(resolved) if Need.GEOMETRY in wanted else None,
    )


def gradients_of(resolved: ResolvedStudy) -> tuple[str, ...]:
    """The differentiable losses whose gradients every objective of the study can give; () for none."""
    merge = resolved.spec.merge
    operator = make_operator(merge.operator, merge.options)
    return differentiable_losses(operator, resolved.worker_setup(), resolved.experts)


def missing(resolved: ResolvedStudy) -> str:
    """Why the study's strategy cannot have what it needs, and what to do; '' where it can."""
    kind, merge = resolved.spec.strategy.kind, resolved.spec.merge
    if Need.GRADIENTS not in needs(kind, resolved.spec.strategy.options) or gradients_of(resolved):
        return ""
    operator, setup = make_operator(merge.operator, merge.options), resolved.worker_setup()
    why = no_gradients(operator, setup, resolved.experts, make_scorers(setup))
    return (
        f"strategy {kind!r} asks for gradients, which this study does not have: "
        f"{why or 'no differentiable loss is offered by the scorers of all objectives'}; or take strategy 'auto', "
        "which does without"
    )


def _geometry(resolved: ResolvedStudy) -> Geometry:
    layout = resolved.layout
    found = inner_products(
        resolved.base, resolved.experts, layout.group_of, len(layout.groups), partial(names_in_files, resolved.base)
    )
    gram, base, sizes = found
    gram.setflags(write=False)
    return Geometry(gram, frozen_array(base), frozen_array(sizes))
