"""What goes between a client and the server about work, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Offer:
    """One evaluation to make. `values`: axis -> natural value, None for a baseline; `recipe`: what to build, as
    recipe.yaml has it, None in a study without models; `objectives`: name -> 'max' or 'min', one score each is wanted.

    `share` and `offset` say which of the examples; `gradient` names the loss whose gradients are wanted, '' for none.
    The lease runs until `until` (the store's clock) and for `seconds` at a time; `attempt` counts leases of it.
    """

    offer: str
    token: str
    number: int
    split: str
    attempt: int
    values: Mapping[str, float] | None
    point: Sequence[float] | None
    recipe: Mapping[str, Any] | None
    objectives: Mapping[str, str]
    share: float
    offset: float
    gradient: str
    until: float
    seconds: float

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Offer":
        """From the server's JSON; keys of a newer server are left aside."""
        names = ("offer", "token", "number", "split", "attempt", "values", "point", "recipe", "until", "seconds")
        aims = {aim["name"]: aim["direction"] for aim in body["objectives"]}
        request = body["request"]
        wanted = {name: request[name] for name in ("share", "offset", "gradient")}
        return cls(**{name: body[name] for name in names}, objectives=aims, **wanted)


@dataclass(frozen=True)
class Work:
    """What an ask gave. `runs`: a controller works on the study now; `over`: it has ended."""

    offers: tuple[Offer, ...]
    status: str
    runs: bool
    over: bool


@dataclass(frozen=True)
class Found:
    """What a scorer found, where that is more than one number an objective. A score or metric is a number, or a mapping
    of `value`, `stderr` and `n`; `examples` gives an objective's value for each example."""

    scores: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    examples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    gradients: Mapping[str, Sequence[float]] = field(default_factory=dict)
    seconds: float | None = None


@dataclass(frozen=True)
class Told:
    """What became of a tell; `again`: the same had been told before."""

    offer: str
    again: bool


@dataclass(frozen=True)
class Event:
    """A message of a study's stream: 'changed' or 'log', and its data."""

    name: str
    data: Any
