"""The page of a process that was started from here."""

from datetime import UTC, datetime

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse

from mergesearch.web.api.jobs import is_there
from mergesearch.web.jobs import JobsOf
from mergesearch.web.pages.rendering import page
from mergesearch.web.service import ServiceOf

router = APIRouter()

WHAT = {
    "launch": "Launch of study",
    "resume": "Resume of study",
    "export": "Export from study",
    "score": "Scores from study",
}


@router.get("/jobs/{job}")
def show(request: Request, job: str, jobs: JobsOf, service: ServiceOf) -> HTMLResponse:
    """How a job stands and the end of its log; with `?follow=1` the study's page follows once there is one."""
    found = jobs.find(job)
    if found is None:
        raise HTTPException(404, f"no job {job[:40]!r} was started here")
    return page(
        request,
        "job.html",
        job=found,
        what=WHAT.get(found.kind, "Job of study"),
        started=datetime.fromtimestamp(found.started, UTC),
        log=request.app.state.security.cut(jobs.log(found)),
        there=is_there(service, found.study),
    )
