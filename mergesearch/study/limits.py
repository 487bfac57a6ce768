"""The budget that stands for a study now: its file's, with what was raised since on top."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from mergesearch.errors import SpecError
from mergesearch.plugins import did_you_mean, faults
from mergesearch.study.spec import Budget

OFF = "off"
AMOUNTS = ("examples", "gpu_seconds", "hours")
LIMITS = ("evaluations", *AMOUNTS, "target", "plateau")
"""What can be raised on a resume, by its name in the study file."""

_UNLIMITED: dict[str, Any] = {**dict.fromkeys((*AMOUNTS, "plateau")), "target": {}}


def changed(budget: Budget, limits: Mapping[str, object], objectives: tuple[str, ...]) -> Budget:
    """The budget with some limits replaced; 'off' takes one away. A limit that is None stays as it was.

    Args:
        limits: some of `LIMITS`, such as {"evaluations": 400, "target": {"accuracy": 0.9}, "plateau": "off"}.
        objectives: the names that a target may have.

    Raises:
        SpecError: an unknown limit or objective, a value that cannot be.
    """
    given = {name: value for name, value in limits.items() if value is not None}
    for name, value in given.items():
        if name not in LIMITS:
            raise SpecError(f"limits: unknown limit {name!r}{did_you_mean(name, LIMITS)}")
        if name == "evaluations" and value == OFF:
            raise SpecError("limits: evaluations cannot be 'off', since a search must end; give a large number")
    unset: dict[str, object] = {name: {} if name == "target" else None for name, value in given.items() if value == OFF}
    try:
        made = Budget.model_validate({**budget.model_dump(), **given, **unset})
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, fault.path))}: {fault.sentence}" for fault in faults(Budget, error))
        raise SpecError(f"limits: {found}") from None
    for name in made.target:
        if name not in objectives:
            raise SpecError(f"limits: target: no objective is called {name!r}{did_you_mean(name, objectives)}")
    return made


def as_facts(budget: Budget) -> dict[str, object]:
    """The budget as facts of a study: `budget`, which reports show, and the others as `limits`."""
    others = budget.model_dump(mode="json", include={*AMOUNTS, "target", "plateau"})
    return {"budget": budget.evaluations, "limits": others}


def current(budget: Budget, facts: Mapping[str, object]) -> Budget:
    """The budget of a study file as its study's facts have it now."""
    kept = facts.get("limits")
    found = {"evaluations": facts.get("budget", budget.evaluations)}
    if isinstance(kept, Mapping):
        others = Budget.model_validate({name: kept[name] for name in LIMITS if name in kept})
        found |= {name: getattr(others, name) for name in LIMITS if name in kept}
    return budget.model_copy(update=found)


def is_higher(budget: Budget, before: Budget) -> bool:
    """Whether a search that the earlier budget ended may go on."""
    if budget.evaluations > before.evaluations:
        return True
    if (budget.target, budget.plateau) != (before.target, before.plateau):
        return True
    infinite = float("inf")
    return any((getattr(budget, n) or infinite) > (getattr(before, n) or infinite) for n in AMOUNTS)


def settle(budget: Budget, facts: Mapping[str, object]) -> tuple[dict[str, object], bool]:
    """Facts to keep of the budget that stands from now on ({}: those kept are right), and whether it is a higher one
    than the facts say."""
    before = current(Budget.model_construct(**{**dict(budget), **_UNLIMITED}), facts)
    wanted = as_facts(budget)
    return ({}, False) if wanted == as_facts(before) else (wanted, is_higher(budget, before))
