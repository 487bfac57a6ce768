"""Several studies side by side."""

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Final

from fastapi import APIRouter, HTTPException, Path, Query
from pydantic import BaseModel, Field

from mergesearch.plugins import did_you_mean
from mergesearch.report.compare import INDICATORS, Compared, compare
from mergesearch.report.compare_charts import CHARTS
from mergesearch.report.comparing import Sketch, sketch
from mergesearch.types import Split
from mergesearch.web.service import Service, ServiceOf

router = APIRouter(tags=["compare"])

MOST: Final = 30
LONGEST: Final = 200
Name = Annotated[str, Field(max_length=LONGEST)]
Studies = Annotated[
    list[Name],
    Query(alias="study", description="Names of the studies, at most 30.", min_length=1, max_length=MOST),
]
Groups = Annotated[
    list[Annotated[str, Field(max_length=4000)]],
    Query(
        alias="group",
        description="'seeds' (default: studies that differ in seed and name only), 'none', 'strategy', or groups by "
        "hand as LABEL:study,study.",
        max_length=MOST,
    ),
]
SplitOf = Annotated[Split | None, Query(description="Unless given: confirm where all have scores there, else search.")]
ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    404: {"description": "No study of such a name"},
    422: {"description": "They cannot be compared; `detail` says which objectives differ"},
}


class IndicatorOf(BaseModel):
    """What one number of a row means."""

    key: str
    label: str
    higher: bool = Field(description="whether higher is better")
    meaning: str


class RowOf(BaseModel):
    """One study's front against the reference front."""

    study: str
    group: str
    seed: int | None = Field(description="null where its file names none")
    strategy: str
    front: int = Field(description="merges on its front")
    scored: int = Field(description="merges that were scored on the split")
    values: dict[str, float | None] = Field(description="indicator -> its value; null where it is not defined")


class SpreadOf(BaseModel):
    """Median and quartiles."""

    median: float
    low: float
    high: float


class GroupOf(BaseModel):
    """Several studies together."""

    label: str
    studies: list[str]
    values: dict[str, SpreadOf]


class Comparison(BaseModel):
    """Studies side by side. Rows and columns of `coverage` and `win_rate` are in the order of `rows`."""

    objectives: list[str]
    split: Split
    why_split: str
    units: str = Field(description="by what scores were normalised, once for all")
    reference: int = Field(description="merges on the reference front Z, which no compared merge dominates")
    thinned: bool = Field(description="whether an even part of a long front was taken for indicators of all pairs")
    indicators: list[IndicatorOf]
    rows: list[RowOf]
    groups: list[GroupOf] = Field(description="those of more than one study")
    coverage: list[list[float]] = Field(description="share of the column's front that the row's weakly dominates")
    win_rate: list[list[float]] = Field(description="share of pairs and objectives in which the row's merge is better")
    missing: list[str] = Field(description="studies without a scored merge on the split")


class ComparisonChart(BaseModel):
    """A chart as Plotly takes it."""

    data: list[dict[str, Any]]
    layout: dict[str, Any]
    summary: str = Field(description="what is to be seen, in a sentence")


@router.get("/compare", summary="Compare studies", operation_id="compare", responses=ERRORS)
def comparison(service: ServiceOf, study: Studies, group: Groups = [], split: SplitOf = None) -> Comparison:  # noqa: B006
    """Indicators of each study's front against the non-dominated merges of all of them."""
    return answered(compared(service, study, group, split))


@router.get(
    "/compare/charts/{chart}", summary="A chart of several studies", operation_id="compare_chart", responses=ERRORS
)
def chart(
    service: ServiceOf,
    chart: Annotated[str, Path(json_schema_extra={"enum": list(CHARTS)}, description="Which chart.")],
    study: Studies,
    group: Groups = [],  # noqa: B006
    split: SplitOf = None,
    against: Annotated[str, Query(description="'evaluations' or 'cost'", max_length=LONGEST)] = "evaluations",
    x: Annotated[str, Query(description="objective of the front's x axis", max_length=LONGEST)] = "",
    y: Annotated[str, Query(description="objective of the front's y axis", max_length=LONGEST)] = "",
) -> ComparisonChart:
    """Fronts, hypervolume or the best so far; studies of a group of several are a median with a band of quartiles."""
    if chart not in CHARTS:
        raise HTTPException(404, f"there is no chart {chart!r} of several studies{did_you_mean(chart, CHARTS)}")
    options = {"against": against, "x": x, "y": y, "split": "" if split is None else split.value}
    made = CHARTS[chart](sketches(service, study), options, group)
    return ComparisonChart(data=made.data, layout=made.layout, summary=made.summary)


def sketches(service: Service, names: Sequence[str]) -> list[Sketch]:
    """What is compared of each study, in the order of the names, each once. Raises StudyNotFound."""
    found = []
    for name in dict.fromkeys(names):
        with service.feeds.reading(name) as feed:
            # A feed is read by turns, so each is left before the next is entered.
            found.append(feed.kept("sketch", lambda view: sketch(view, service.store.facts(view.record.name))))
    return found


@dataclass(eq=False)
class _Made:
    """A comparison, once somebody has asked for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    found: Compared | None = None


def compared(service: Service, names: Sequence[str], groups: Sequence[str], split: Split | None) -> Compared:
    """The comparison, made once until one of its studies changes. Raises StudyNotFound, SpecError."""
    versions = []
    for name in dict.fromkeys(names):
        with service.feeds.reading(name) as feed:
            versions.append((name, feed.version))
    with service.feeds.reading(names[0]) as feed:
        made = feed.kept(f"compare {versions} {list(groups)} {split}", lambda _: _Made())
    with made.lock:
        if made.found is None:
            made.found = compare(sketches(service, names), groups, split)
        return made.found


def answered(found: Compared) -> Comparison:
    """A comparison as the API answers it."""
    return Comparison(indicators=[IndicatorOf(**asdict(i)) for i in INDICATORS], **asdict(found))
