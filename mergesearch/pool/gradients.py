"""Gradients of a live candidate: which losses a study can offer, and the slopes that one backward pass leaves.

Offered are losses that all of a study's objectives have, on whole models, through an operator that passes gradients
back. Each objective has a gradient of its own, so that fronts and weighted sums can both be searched with them.
Buffers that are merged (a batch norm's running means) count as fixed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.checkpoints.adapter import AdapterFolder, Expert
from mergesearch.operators.base import AnyOperator, Tensors
from mergesearch.pool.setup import WorkerSetup, make_scorers, scorer_key
from mergesearch.scorers.base import AnyScorer, DifferentiableScorer
from mergesearch.types import Split


def differentiable_losses(operator: AnyOperator, setup: WorkerSetup, experts: Mapping[str, Expert]) -> tuple[str, ...]:
    """The losses whose gradient a worker gives for every objective, 'loss' first where it is one; () for none.

    `experts` are those of the setup, opened. Reads no weight and no data.

    Raises:
        SpecError: an unknown scorer, option or metric.
    """
    scorers = make_scorers(setup)
    if no_gradients(operator, setup, experts, scorers):
        return ()
    found: list[str] = []
    for i, objective in enumerate(setup.objectives):
        scorer = scorers[scorer_key(objective)]
        assert isinstance(scorer, DifferentiableScorer)
        able = [n for n, loss in scorer.LOSSES.items() if not loss.teacher or objective.taught_by is not None]
        found = able if i == 0 else [name for name in found if name in able]
    return tuple(sorted(found, key=lambda name: name != "loss"))


def no_gradients(
    operator: AnyOperator, setup: WorkerSetup, experts: Mapping[str, Expert], scorers: Mapping[str, AnyScorer]
) -> str:
    """Why a study has no gradients, in one sentence; '' where it has some. `scorers`: of the setup, by key."""
    if not operator.DIFFERENTIABLE:
        return (
            f"operator {type(operator).__name__} gives no gradients; take one that does, such as task_arithmetic, or a "
            "strategy that needs none"
        )
    searched = [] if setup.space is None else [s.knob for s in setup.space.slots if np.any(s.axis >= 0)]
    flat = [knob for knob in searched if knob not in operator.DIFFERENTIABLE]
    if flat:
        return (
            f"knob {flat[0]!r} of operator {type(operator).__name__} has no gradient, so a search would stand still in "
            "it; hold it at a number under 'space', or take a strategy that needs no gradients"
        )
    adapter = next((name for name, expert in experts.items() if isinstance(expert, AdapterFolder)), None)
    if adapter is not None:
        return f"expert {adapter!r} is a LoRA adapter: gradients are for whole models, merge it into its base first"
    for objective in setup.objectives:
        if objective.rebuild is not None:
            return f"objective {objective.name!r} has no gradient: it is scored on a model rebuilt from codes"
        if not isinstance(scorers[scorer_key(objective)], DifferentiableScorer):
            return f"objective {objective.name!r} has no gradient: scorer {objective.scorer!r} offers no loss to derive"
    return ""


@contextmanager
def tracked(parameters: Mapping[str, torch.nn.Parameter]) -> Iterator[None]:
    """Gradients on for these parameters, and both they and their memory gone afterwards."""
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None


def slopes_of(
    model: torch.nn.Module,
    parameters: Mapping[str, torch.nn.Parameter],
    scorer: DifferentiableScorer,
    split: Split,
    rows: NDArray[np.int64],
    loss: str,
) -> tuple[Tensors, dict[str, NDArray[np.float32]]]:
    """∂/∂W of the sum over `rows` of a loss, in the model's dtype, and every metric's values, the loss's own included.

    `parameters` are `tracked`. The sum and not the mean is passed back, so that float16 does not lose small slopes:
    whoever takes the dot products, in float64, divides them by len(rows). A parameter that the loss does not reach has
    no slope.
    """
    for parameter in parameters.values():
        parameter.grad = None
    found: dict[str, list[NDArray[np.float32]]] = {}
    for values, metrics in scorer.losses(model, split, rows, loss):
        values.sum().backward()  # type: ignore[no-untyped-call]
        own = values.detach().float().cpu().numpy()
        for name, array in ({loss: own} | dict(metrics)).items():
            found.setdefault(name, []).append(array)
        del values  # its graph must not live on while the next is made
    slopes = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    return slopes, {name: np.concatenate(arrays) for name, arrays in found.items()}
