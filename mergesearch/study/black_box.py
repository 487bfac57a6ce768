"""The schema of a study without models: axes with ranges, objectives with directions, scored by programs outside.

A study file with `axes` in the place of `models` is one. Its candidates are plain numbers; see `pool/external.py`.
"""

import hashlib
from dataclasses import replace
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from mergesearch.errors import SpecError
from mergesearch.plugins import Fault, did_you_mean, faults
from mergesearch.space import Axis, Scale, SearchSpace
from mergesearch.store.urls import refuse_password
from mergesearch.study.bounded import load_bounded
from mergesearch.study.spec import NAME, Budget, Section, StrategySpec
from mergesearch.study.text import Source
from mergesearch.types import Direction, Objective

AXIS_NAME = r"^[A-Za-z_][A-Za-z0-9_.\-]*$"
UNCOUNTED: Final = ("examples", "gpu_seconds")
"""Limits of a budget that nobody here could count."""

_Finite = Annotated[float, Field(allow_inf_nan=False)]


def _as_none_or_section(value: object) -> object:
    """`strategy:` with nothing behind it means its defaults."""
    return {} if value is None else value


class AxisSpec(Section):
    """One searched number. `init` is where the search starts (the middle unless given), `scale` how the axis runs,
    `kind` whether it takes whole numbers alone."""

    low: _Finite
    high: _Finite
    init: _Finite | None = None
    scale: Scale = Scale.LINEAR
    kind: Literal["real", "whole"] = "real"

    @model_validator(mode="after")
    def _can_be(self) -> "AxisSpec":
        try:
            self.axis("")
        except SpecError as error:
            raise ValueError(str(error).removeprefix("axis '': ").removeprefix("axis '' ")) from None
        return self

    def axis(self, name: str) -> Axis:
        """The axis of that name. Raises SpecError."""
        low, high, whole = self.low, self.high, self.kind == "whole"
        made = Axis(name, low, high, low, self.scale, whole)
        return replace(made, init=made.value(0.5) if self.init is None else self.init)


class OutsideObjective(Section):
    """One number to improve, as the scorers tell it. `low` and `high` bound it where it is bounded."""

    name: Annotated[str, Field(pattern=NAME)]
    direction: Direction = Direction.MAX
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    low: _Finite | None = None
    high: _Finite | None = None


class BlackBoxSpec(Section):
    """A whole study file without models."""

    name: Annotated[str, Field(pattern=NAME)]
    axes: Annotated[dict[Annotated[str, Field(pattern=AXIS_NAME)], AxisSpec], Field(min_length=1)]
    objectives: Annotated[tuple[OutsideObjective, ...], Field(min_length=1)]
    strategy: Annotated[StrategySpec, BeforeValidator(_as_none_or_section)] = StrategySpec()
    budget: Annotated[Budget, BeforeValidator(_as_none_or_section)] = Budget()
    store: str = "sqlite:///runs/mergesearch.db"

    @model_validator(mode="after")
    def _names_agree(self) -> "BlackBoxSpec":
        names = [objective.name for objective in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"two objectives share a name: {', '.join(names)}")
        return self

    @property
    def space(self) -> SearchSpace:
        """Its axes, in the order of the file."""
        return SearchSpace(tuple(axis.axis(name) for name, axis in self.axes.items()))

    @property
    def wanted(self) -> tuple[Objective, ...]:
        """Its objectives."""
        return tuple(Objective(o.name, o.direction, o.weight, o.low, o.high) for o in self.objectives)

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the results: all but its name, its budget and its store."""
        body = self.model_dump_json(exclude={"name": True, "budget": True, "store": True})
        return hashlib.sha256(body.encode()).hexdigest()


def is_black_box(text: str, name: str) -> bool:
    """Whether a study file has axes and no models. Raises SpecError if it is not YAML."""
    body = load_bounded(text, name)
    return isinstance(body, dict) and "axes" in body and "models" not in body


def parse_black_box(source: Source) -> BlackBoxSpec:
    """The study in `source` by the schema alone.

    Raises:
        SpecError: it is not YAML, or has keys or values that cannot be; a line for each with file, line and column.
    """
    try:
        spec = BlackBoxSpec.model_validate(load_bounded(source.text, source.name))
    except ValidationError as error:
        raise source.error(faults(BlackBoxSpec, error)) from None
    found = [
        Fault(("budget", key), f"{key!r} of work done outside cannot be counted; limit evaluations or hours")
        for key in UNCOUNTED
        if getattr(spec.budget, key) is not None
    ]
    names = [objective.name for objective in spec.objectives]
    for name in spec.budget.target:
        if name not in names:
            near = did_you_mean(name, names)
            found.append(Fault(("budget", "target", name), f"no objective is called {name!r}{near}"))
    if found:
        raise source.error(found)
    refuse_password(spec.store)
    return spec
