"""What can be made of one candidate: an export on the server, its scores once more."""

from pathlib import Path as Folder
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path
from pydantic import BaseModel, ConfigDict, Field

from mergesearch.errors import SpecError
from mergesearch.study.spec import NAME, StudySpec
from mergesearch.types import Split
from mergesearch.web.api.launch import Started
from mergesearch.web.jobs import Busy, Job, Jobs, JobsOf, too_many
from mergesearch.web.names import StudyName, check_name
from mergesearch.web.service import Service, ServiceOf
from mergesearch.web.stored_spec import spec_of
from mergesearch.web.study_file import without_store

router = APIRouter(tags=["candidates"])
EXPORTS = "exports"

Number = Annotated[int, Path(ge=0, le=2**31 - 1, description="Number of a candidate.")]
_BUSY: dict[int | str, dict[str, Any]] = {429: {"description": "too many processes run"}}


class Export(BaseModel):
    """Where to write a candidate."""

    model_config = ConfigDict(extra="forbid")

    folder: Annotated[str, Field(pattern=NAME, max_length=100)] | None = Field(
        None, description="Name of a new folder in `exports` of the server's first root; STUDY-NUMBER unless given."
    )


class Score(BaseModel):
    """What to score a candidate on."""

    model_config = ConfigDict(extra="forbid")

    split: Split = Field(Split.SEARCH, description="Which part of the data; scores on 'test' are for the very end.")


@router.post("/studies/{name}/candidates/{number}/export", summary="Export a candidate on the server",
             operation_id="export_candidate", status_code=202,
             responses={409: {"description": "the folder exists"}, **_BUSY})  # fmt: skip
def export(name: StudyName, number: Number, body: Export, service: ServiceOf, jobs: JobsOf) -> Started:
    """Start a process that writes the candidate as a checkpoint with its recipe and a model card."""
    _scored(service, name, number)
    folder = body.folder or f"{name}-{number}"
    target = service.settings.roots[0] / EXPORTS / folder
    if target.exists():
        raise HTTPException(409, f"folder {EXPORTS}/{folder} exists; name another one")
    words = ["export", name, f"--candidate={number}", f"--to={target}", *jobs.store_option]
    job = _start(jobs, "export", name, [words], number)
    return Started(job=job.id, study=name, sentence=f"candidate {number} is being written to {EXPORTS}/{folder}")


@router.post("/studies/{name}/candidates/{number}/score", summary="Score a candidate once more",
             operation_id="score_candidate", status_code=202, responses=_BUSY)  # fmt: skip
def score(name: StudyName, number: Number, body: Score, service: ServiceOf, jobs: JobsOf) -> Started:
    """Start a process that builds the candidate anew and scores it; the job's log has the scores. The study's own
    record stays as it is."""
    root, text = _scored(service, name, number)
    commands = [
        ["export", name, f"--candidate={number}", "--to", "{job}/checkpoint", *jobs.store_option],
        ["score", "{job}/checkpoint", "{job}/study.yaml", f"--split={body.split.value}"],
    ]
    files = {"study.yaml": without_store(text)}
    job = _start(jobs, "score", name, commands, number, files=files, cwd=root, remove=("checkpoint",))
    return Started(job=job.id, study=name, sentence=f"candidate {number} is being scored on {body.split.value}")


def _scored(service: Service, name: str, number: int) -> tuple[Folder, str]:
    """The folder where a study's paths start, and its file. Raises SpecError unless the candidate has scores."""
    check_name(name)
    spec, _, root = spec_of(service, name)
    if not isinstance(spec, StudySpec):
        raise SpecError(f"study {name!r} has no models: its candidates are numbers, scored by programs outside")
    with service.feeds.reading(name) as feed:
        results = feed.view.results
        if number not in results.candidates:
            raise HTTPException(404, f"study {name!r} has no candidate {number}")
        if results.outcome(number) is None:
            raise SpecError(f"candidate {number} of study {name!r} has no scores, so there is nothing to build")
    return root, service.store.study(name).spec


def _start(
    jobs: Jobs,
    kind: str,
    name: str,
    commands: list[list[str]],
    number: int,
    *,
    files: dict[str, str] | None = None,
    cwd: Folder | None = None,
    remove: tuple[str, ...] = (),
) -> Job:
    try:
        return jobs.start(kind, name, commands, candidate=number, files=files, cwd=cwd, remove=remove)
    except Busy as error:
        raise too_many(error) from None
