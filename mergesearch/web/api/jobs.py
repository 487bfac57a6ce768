"""The processes that people started from here."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Request
from pydantic import BaseModel, Field

from mergesearch.errors import StudyNotFound
from mergesearch.web.jobs import ID, JobsOf, State
from mergesearch.web.jobs import Job as Process
from mergesearch.web.service import Service, ServiceOf

router = APIRouter(tags=["jobs"])
MOST = 200

JobId = Annotated[str, Path(max_length=40, description="Id of a job.", json_schema_extra={"pattern": ID})]


class Job(BaseModel):
    """A process that was started for a study."""

    id: str
    kind: str = Field(description="launch, resume, export or score.")
    study: str
    candidate: int | None = None
    profile: str = Field("", description="The workers profile; '' for none.")
    started: float = Field(description="Seconds since the epoch, UTC.")
    state: State = Field(description="'lost': it is gone and left no exit code, as after a power cut.")
    code: int | None = Field(None, description="Its exit code, once it has ended.")


class JobLog(Job):
    """A job and what it said."""

    log: str = Field(description="The end of its log.")
    there: bool = Field(description="Whether its study stands in the store yet.")


class JobList(BaseModel):
    """Jobs, newest first."""

    jobs: list[Job]


@router.get("/jobs", summary="List jobs", operation_id="list_jobs")
def jobs(jobs: JobsOf) -> JobList:
    """The last 200 of them, newest first."""
    return JobList(jobs=[_shown(job) for job in jobs.all()[:MOST]])


@router.get("/jobs/{job}", summary="Get a job", operation_id="get_job", responses={404: {"description": "no such job"}})
def job(job: JobId, request: Request, jobs: JobsOf, service: ServiceOf) -> JobLog:
    """How a job stands, and the end of its log."""
    found = _found(jobs.find(job), job)
    log = request.app.state.security.cut(jobs.log(found))
    return JobLog(**_shown(found).model_dump(), log=log, there=is_there(service, found.study))


def is_there(service: Service, study: str) -> bool:
    """Whether the store has a study of that name."""
    try:
        service.store.study(study)
    except StudyNotFound:
        return False
    return True


@router.post("/jobs/{job}/stop", summary="Stop a job", operation_id="stop_job", status_code=202,
             responses={404: {"description": "no such job"}, 409: {"description": "it has ended"}})  # fmt: skip
def stop(job: JobId, jobs: JobsOf) -> Job:
    """End a process as Ctrl-C would: what a study has evaluated is kept."""
    found = _found(jobs.find(job), job)
    if not jobs.stop(found):
        raise HTTPException(409, "the job has ended already")
    return _shown(found)


def _found(job: Process | None, name: str) -> Process:
    if job is None:
        raise HTTPException(404, f"no job {name[:40]!r} was started here")
    return job


def _shown(job: Process) -> Job:
    return Job(
        id=job.id, kind=job.kind, study=job.study, candidate=job.candidate, profile=job.profile, started=job.started,
        state=job.state, code=job.code,
    )  # fmt: skip
