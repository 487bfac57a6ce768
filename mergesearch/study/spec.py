"""The schema of studies/*.yaml. Everything a user decides stands there; unknown keys are refused."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mergesearch.space import Per, Scale

GroupsChoice: TypeAlias = str | dict[str, str] | dict[str, int]

NAME = r"^[A-Za-z0-9][A-Za-z0-9_\-]*$"


class Control(StrEnum):
    """What a control replaces: the search by points at random; all coefficients by one λ; the experts by noise of
    their norms. See `study/controls.py`."""

    RANDOM = "random"
    LAMBDA = "lambda"
    RANDOM_EXPERTS = "random_experts"


class Section(BaseModel):
    """A part of the study file: frozen, with no keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OpenSection(BaseModel):
    """A part whose further keys belong to a plug-in, which checks them itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        """The plug-in's keys."""
        return dict(self.model_extra or {})


class Models(Section):
    """The checkpoints: folders in transformers' format with safetensors, relative to the study file."""

    base: str
    experts: Annotated[dict[Annotated[str, Field(pattern=NAME)], str], Field(min_length=1)]


class Merge(OpenSection):
    """The operator, its options beside it, and the tensors that are not merged (each task keeps its own expert's)."""

    operator: str = "task_arithmetic"
    heads: tuple[str, ...] = ()


class KnobAxes(Section):
    """A knob that is searched: its range and start, by what it varies, and how its axis runs."""

    low: float
    high: float
    init: float | None = None
    per: Per | None = None
    scale: Scale | None = None


class Space(OpenSection):
    """The axes: layer groups, and for each knob of the operator a range (searched) or a number (held). `start`: axis
    names or patterns that begin elsewhere than at their knob's `init`. `warm_start`: an earlier study of the same
    store, whose chosen (else recommended, else best) recipe is where the other axes begin, whatever its groups were."""

    groups: GroupsChoice = "block"
    warm_start: Annotated[str, Field(pattern=NAME)] | None = None
    start: dict[str, float] = {}
    fix: dict[str, float] = {}
    tie: tuple[tuple[str, ...], ...] = ()

    @model_validator(mode="after")
    def _knobs_are_ranges_or_numbers(self) -> "Space":
        for knob, value in self.options.items():
            if isinstance(value, dict):
                KnobAxes.model_validate(value)
            elif isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(
                    f"{knob!r} must be a number (held) or a range such as {{low: 0.0, high: 1.5, init: 0.3}}"
                )
        return self

    @property
    def searched(self) -> dict[str, KnobAxes]:
        """Knobs given as ranges."""
        return {k: KnobAxes.model_validate(v) for k, v in self.options.items() if isinstance(v, dict)}

    @property
    def held(self) -> dict[str, float]:
        """Knobs given as numbers."""
        return {k: float(v) for k, v in self.options.items() if not isinstance(v, dict)}


class ObjectiveSpec(Section):
    """One number to improve: a scorer on data, one of its metrics, and whose head the model wears meanwhile.

    `guide` names another metric that the strategy is told instead, such as the loss beside the accuracy. `rebuild`
    names an expert: the model that a compressing operator rebuilds for it is scored, instead of the merged one.
    `teacher` names the expert whose answers losses without labels ('kl', 'alignment') are measured against; unless
    given, it is that of `head`.
    """

    name: Annotated[str, Field(pattern=NAME)]
    scorer: str
    data: dict[str, Any] = {}
    metric: str | None = None
    guide: str | None = None
    head: str | None = None
    rebuild: str | None = None
    teacher: str | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0


class Baselines(Section):
    """What the search is compared with, scored beside its budget: base, experts, the average, and one λ for all."""

    lambdas: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


class Holdout(Section):
    """How many finalists the confirm split chooses among; the chosen one and the baselines are read once on test."""

    finalists: Annotated[int, Field(ge=1)] = 6


class StrategySpec(OpenSection):
    """The search strategy, its seed, and its options beside them."""

    kind: str = "auto"
    seed: Annotated[int, Field(ge=0)] = 0


class Plateau(Section):
    """The search ends once it gained less than `gain` over the last `evaluations`, counted as the budget counts them.

    What grows is the normalised hypervolume of the front. With one objective, or where it cannot be normalised (no
    baselines, more objectives than it is exact for), it is how far the best weighted loss fell.
    """

    evaluations: Annotated[float, Field(gt=0)]
    gain: Annotated[float, Field(gt=0)] = 0.001


class Budget(Section):
    """When the search ends: whichever comes first. `failures` in a row stop the study.

    `evaluations` is counted in evaluations of all search examples: one of a quarter of them takes 0.25, one with a
    gradient `gradient_cost` times its share. A gradient takes one forward and one backward pass, about three times a
    forward pass alone; `mergesearch check --time` measures the rest. `examples` are search examples that workers
    scored for the search, over all objectives; `gpu_seconds` all that workers with GPUs spent on the study; `hours` the
    time that controllers ran it. `target`: objective -> a value in its own direction, which one merge must reach in
    all of them.
    """

    evaluations: Annotated[int, Field(ge=1)] = 200
    gradient_cost: Annotated[float, Field(gt=0)] = 3.0
    examples: Annotated[int, Field(ge=1)] | None = None
    gpu_seconds: Annotated[float, Field(gt=0)] | None = None
    hours: Annotated[float, Field(gt=0)] | None = None
    target: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {}
    plateau: Plateau | None = None
    failures: Annotated[int, Field(ge=1)] = 5


def _as_none_or_section(value: Any) -> Any:
    """`holdout:` with nothing behind it means its defaults."""
    return {} if value is None else value


class StudySpec(Section):
    """A whole study file."""

    name: Annotated[str, Field(pattern=NAME)]
    models: Models
    merge: Annotated[Merge, BeforeValidator(_as_none_or_section)] = Merge()
    space: Annotated[Space, BeforeValidator(_as_none_or_section)] = Space()
    objectives: Annotated[tuple[ObjectiveSpec, ...], Field(min_length=1)]
    baselines: Annotated[Baselines, BeforeValidator(_as_none_or_section)] = Baselines()
    holdout: Annotated[Holdout, BeforeValidator(_as_none_or_section)] = Holdout()
    strategy: Annotated[StrategySpec, BeforeValidator(_as_none_or_section)] = StrategySpec()
    budget: Annotated[Budget, BeforeValidator(_as_none_or_section)] = Budget()
    controls: tuple[Control, ...] = ()
    control_of: str = ""  # set in the study of a control: the study it belongs to, which has the baselines
    store: str = "sqlite:///runs/mergesearch.db"
    cache: bool = True  # take from the store what any study of it has scored

    @model_validator(mode="after")
    def _names_agree(self) -> "StudySpec":
        names = [o.name for o in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"two objectives share a name: {', '.join(names)}")
        return self


def folder(root: Path, path: str) -> Path:
    """A path of the study file: relative ones are relative to the folder the study's `root` names."""
    return (root / path).resolve()
