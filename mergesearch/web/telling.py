"""What a scorer outside tells: the shape of its message, and the outcome that is made of it."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeAlias

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mergesearch.errors import SpecError
from mergesearch.plugins import did_you_mean
from mergesearch.types import Failed, Objective, Outcome, Score, Scored, Timing, frozen_array

OFFER = r"^(0|[1-9][0-9]{0,8})-(search|confirm|test)$"
MOST = 2_000_000_000
FARTHEST = 1e100
"""Scores beyond have squares and spans that no number holds."""
_LARGEST = float(np.finfo(np.float32).max)

Number: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]


class Body(BaseModel):
    """What comes in: no keys that are not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GivenScore(Body):
    """A mean over `n` examples with its standard error. Left out, they are those of `examples` where these are told,
    else 1 and 0."""

    value: Number
    stderr: Annotated[Number, Field(ge=0)] | None = None
    n: Annotated[int, Field(strict=True, ge=1, le=MOST)] | None = None


def _as_score(given: Any) -> Any:
    if isinstance(given, int | float) and not isinstance(given, bool):
        return {"value": given}
    if not isinstance(given, dict | GivenScore):
        raise ValueError("a score is a number, or an object with 'value', 'stderr' and 'n'")
    return given


ScoreIn: TypeAlias = Annotated[GivenScore, BeforeValidator(_as_score, json_schema_input_type=Number | GivenScore)]
Numbers: TypeAlias = Annotated[list[Number], Field(min_length=1)]


class Failure(Body):
    """Why a candidate could not be scored."""

    kind: Annotated[str, Field(min_length=1, max_length=100, examples=["ValueError"])]
    message: Annotated[str, Field(max_length=2000, examples=["the model's loss is not finite"])] = ""


class Tell(Body):
    """What came of an offer: `scores`, or how it `failed`."""

    offer: Annotated[str, Field(pattern=OFFER, examples=["17-search"])]
    token: Annotated[str, Field(max_length=100, description="The one that came with the offer.")]
    scores: Annotated[
        dict[Name, ScoreIn] | None,
        Field(description="Each objective's score, a number or an object.", examples=[{"accuracy": 0.91}]),
    ] = None
    metrics: Annotated[
        dict[Name, dict[Name, ScoreIn]], Field(description="Objective -> other metrics of it, kept beside its score.")
    ] = {}
    examples: Annotated[
        dict[Name, Numbers],
        Field(description="Objective -> its value for each example, always in the same order: for paired statistics."),
    ] = {}
    gradients: Annotated[
        dict[Name, Numbers],
        Field(
            description="Where the offer's request names a gradient: objective -> how that loss, to be told among "
            "`metrics` under its name, changes with each coordinate of `point`."
        ),
    ] = {}
    seconds: Annotated[Number, Field(ge=0, le=1e9)] | None = None
    failed: Failure | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.scores is None) == (self.failed is None):
            raise ValueError("tell either 'scores' or 'failed'")
        return self


def outcome_of(tell: Tell, objectives: tuple[Objective, ...], dim: int) -> Outcome:
    """The outcome that a message means for a study of those objectives and so many axes.

    Raises:
        SpecError: an objective that is unknown or missing, a metric that a guide needs, a gradient of another length.
    """
    timing = Timing(score=tell.seconds or 0.0)
    if tell.failed is not None:
        return Failed(tell.failed.kind, tell.failed.message, timing)
    names = [objective.name for objective in objectives]
    scores = tell.scores or {}
    for where in ("scores", "metrics", "examples", "gradients"):
        for name in getattr(tell, where) or {}:
            if name not in names:
                raise SpecError(f"{where}: no objective is called {name[:100]!r}{did_you_mean(name, names)}")
    for name in names:
        if name not in scores:
            raise SpecError(f"scores: objective {name!r} is missing; tell one number for each of {', '.join(names)}")
    for objective in objectives:
        guide = objective.guide
        if guide is not None and guide.metric not in tell.metrics.get(objective.name, {}):
            raise SpecError(
                f"metrics: objective {objective.name!r} is guided by {guide.metric!r}: tell it under "
                f"metrics.{objective.name}.{guide.metric}"
            )
    for name, gradient in tell.gradients.items():
        if len(gradient) != dim:
            raise SpecError(f"gradients: {name!r} has {len(gradient)} numbers; the study has {dim} axes")
    examples = {name: _float32(name, values) for name, values in tell.examples.items()}
    own = {name: _score(scores[name], tell.examples.get(name)) for name in names}
    metrics = {o: {m: _score(s, None) for m, s in named.items()} for o, named in tell.metrics.items()}
    gradients = {name: frozen_array(values) for name, values in tell.gradients.items()}
    return Scored(own, metrics, examples, gradients, timing)


def _float32(name: str, values: list[float]) -> np.ndarray[Any, np.dtype[np.float32]]:
    if max(map(abs, values)) > _LARGEST:
        raise SpecError(f"examples: {name!r} holds a number beyond what 32 bits keep")
    return np.array(values, dtype=np.float32)


def _score(given: GivenScore, examples: list[float] | None) -> Score:
    n, stderr = given.n, given.stderr
    if max(abs(given.value), stderr or 0.0) > FARTHEST:
        raise SpecError(
            f"a score of {given.value:g} is beyond {FARTHEST:g}, where nothing compares; tell it as 'failed'"
        )
    if n is None:
        n = 1 if examples is None else len(examples)
    if stderr is None:
        stderr = 0.0 if examples is None else float(np.std(examples)) / math.sqrt(len(examples))
    return Score(given.value, stderr if math.isfinite(stderr) else 0.0, n)


def axis_values(body: Mapping[str, Any], names: list[str], values: list[float]) -> dict[str, float] | None:
    """Axis name -> natural value of an offer's candidate; None for a baseline."""
    if body.get("point") is None and "values" not in body:
        return None
    return dict(zip(names, body.get("values", values), strict=True))
