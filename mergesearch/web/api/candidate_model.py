"""What the API says of one candidate."""

from typing import Annotated

from pydantic import BaseModel, Field

Mark = Annotated[str, Field(description="'best', 'knee', 'chosen' or 'front'")]


class ScoreOf(BaseModel):
    """One score on a split, in its natural direction."""

    objective: str
    value: float | None = Field(description="null where the scorer gave no number")
    stderr: float | None = Field(description="standard error; 0 where it is not known")
    examples: int = Field(description="how many examples it is the mean of")


class MetricOf(ScoreOf):
    """A further metric that an objective's scorer gave."""

    metric: str


class TimingOf(BaseModel):
    """Seconds: waiting for a worker, building, scoring, recording; `gpu` in GPU-seconds."""

    queue: float
    build: float
    score: float
    record: float
    gpu: float


class FailureOf(BaseModel):
    """Why an evaluation did not work."""

    kind: str
    message: str


class EvaluationOf(BaseModel):
    """A candidate on one split."""

    split: str
    status: str = Field(description="'scored', 'failed' or 'open' (asked, not told yet)")
    scores: list[ScoreOf] = []
    metrics: list[MetricOf] = []
    mean: ScoreOf | None = Field(default=None, description="weighted mean of the objectives")
    timing: TimingOf | None = None
    worker: str = ""
    failure: FailureOf | None = None


class DifferenceOf(BaseModel):
    """How much better a candidate is than an expert in one objective; positive is better, in units of the score."""

    objective: str
    expert: str
    expert_candidate: int = Field(description="the expert's own number among the candidates")
    gain: float
    stderr: float
    low: float | None = Field(description="lower end of the 95 % interval; null where no error is known")
    high: float | None = Field(description="upper end of it")
    paired: bool = Field(description="false: no per-example values stand for the scores, errors taken as independent")
    examples: int = Field(description="how many examples were compared; 0 where not paired")
    clear: bool = Field(description="whether the interval leaves zero out")


class NeighbourOf(BaseModel):
    """A candidate of the front beside this one along an objective."""

    number: int
    value: float = Field(description="its score in that objective")


class NeighboursOf(BaseModel):
    """The front's candidates next to this one along one objective: `previous` scores worse in it, `next` better."""

    objective: str
    value: float = Field(description="this candidate's score")
    previous: NeighbourOf | None
    next: NeighbourOf | None


class KnobOf(BaseModel):
    """A knob of the merge operator: its values in each layer group (rows) for each expert (columns)."""

    knob: str
    searched: bool = Field(description="whether the search moves it; a held knob has the value of its start everywhere")
    values: list[list[float]]
    start: list[list[float]] = Field(description="where the search began")
    height: int = Field(default=0, description="pixels that its heat map takes", exclude=True)


class AxisOf(BaseModel):
    """One searched number."""

    axis: str
    value: float
    start: float
    low: float
    high: float


class RequestOf(BaseModel):
    """How much of an evaluation was asked for."""

    share: float = Field(description="of each objective's examples")
    offset: float
    gradient: str = Field(description="the loss whose gradient was wanted too, '' for none")
    continues: int | None = Field(description="the candidate that it continues, on the examples after that one's")
    complete: bool = Field(description="whether its scores stand for all examples: only such are on a front")
    cost: float = Field(description="what it took from the budget, in evaluations of all examples")
    sentence: str


class ArtifactOf(BaseModel):
    """Something that was made of a candidate, such as an export."""

    kind: str
    folder: str = Field(description="the folder's own name, without where it lies")
    sha256: str
    created: float = Field(description="seconds since the epoch, UTC")


class ObjectiveOf(BaseModel):
    """One number that the study improves."""

    name: str
    direction: str = Field(description="'max' or 'min'")
    weight: float
    percent: bool = Field(description="whether people write it in percent: it lies between 0 and 1")


class CandidateDetail(BaseModel):
    """All that is known of one candidate."""

    study: str
    number: int
    name: str = Field(description="what it is called, such as 'base', 'expert mnist' or '#57'")
    baseline: bool = Field(description="whether it is a fixed merge to compare with, not one of the search")
    origin: str = Field(description="who proposed it")
    explanation: str
    marks: list[Mark]
    request: RequestOf
    objectives: list[ObjectiveOf]
    evaluations: list[EvaluationOf]
    difference_split: str | None = Field(description="the split of `differences`")
    differences: list[DifferenceOf]
    neighbours: list[NeighboursOf]
    experts: list[str]
    groups: list[str]
    knobs: list[KnobOf] = Field(description="empty for a baseline and for a study that merges nothing")
    axes: list[AxisOf] = Field(description="the searched numbers of a study that merges nothing, else empty")
    recipe: str | None = Field(description="the recipe as YAML; null where there is none")
    artifacts: list[ArtifactOf]
