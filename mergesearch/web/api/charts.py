"""Charts of a study, as Plotly draws them."""

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Request
from pydantic import BaseModel, Field

from mergesearch.plugins import did_you_mean, load
from mergesearch.report.charts import CHARTS, Drawn
from mergesearch.web.answers import answer, as_json
from mergesearch.web.names import StudyName
from mergesearch.web.service import ServiceOf

router = APIRouter(tags=["studies"])

ChartName = Annotated[str, Path(description="Which chart.", json_schema_extra={"enum": list(CHARTS)})]


class ChartAnswer(BaseModel):
    """A chart. Colours of text, grid and page are left to whoever draws it."""

    version: int = Field(description="Version of the study that it shows.")
    data: list[dict[str, Any]] = Field(description="Plotly's traces.")
    layout: dict[str, Any] = Field(description="Plotly's layout.")
    summary: str = Field(description="What is to be seen, in a sentence.")


@router.get(
    "/studies/{name}/charts/{chart}",
    summary="A chart of a study",
    operation_id="chart",
    response_model=ChartAnswer,
    responses={404: {"description": "No study or no chart of that name."}},
)
def chart(service: ServiceOf, name: StudyName, chart: ChartName, request: Request) -> Any:
    """The chart as Plotly's `data` and `layout`. Its options are those of the query: `x`, `y` and `z` name objectives,
    `split` a split, `prefer` a preference such as `a=0.7,b=0.3`, `candidate` a candidate's number."""
    if chart not in CHARTS:
        raise HTTPException(404, f"there is no chart {chart!r}{did_you_mean(chart, CHARTS)}")
    options = dict(request.query_params)
    with service.feeds.reading(name) as feed:
        drawn: Drawn = load("chart", CHARTS, chart)
        key = f"chart {chart} {sorted(options.items())}"
        version = feed.version

        def make(view: Any) -> bytes:
            made = drawn(view, options)
            return as_json({"version": version, "data": made.data, "layout": made.layout, "summary": made.summary})

        body = feed.kept(key, make)
    return answer(body)
