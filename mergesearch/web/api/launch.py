"""Launching a study from its file."""

from typing import Annotated

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field

from mergesearch.errors import SpecError, StudyNotFound
from mergesearch.web.api.check import StudyText
from mergesearch.web.jobs import Busy, JobsOf, too_many
from mergesearch.web.profiles import offered, profile_file
from mergesearch.web.service import ServiceOf
from mergesearch.web.study_file import look, without_store

router = APIRouter(tags=["launch"])

ProfileName = Annotated[
    str, Field(max_length=100, description="One of `/profiles`; '' runs in one process of the server's machine.")
]


class Launch(BaseModel):
    """A study to launch."""

    text: StudyText
    profile: ProfileName = ""


class Started(BaseModel):
    """A process that was started; `/jobs/{job}` tells how it does."""

    job: str = Field(description="Id of the job.")
    study: str
    sentence: str


class Profile(BaseModel):
    """A workers profile: which processes evaluate a study's candidates, and on which machines."""

    name: str
    explanation: str


class Profiles(BaseModel):
    """The profiles that a launch can name."""

    profiles: list[Profile]


@router.get("/profiles", summary="List workers profiles", operation_id="list_profiles")
def profiles(service: ServiceOf) -> Profiles:
    """Those in the folder that the server was started with."""
    return Profiles(profiles=[Profile(name=p.name, explanation=p.explanation) for p in offered(service.settings)])


@router.post(
    "/studies",
    summary="Launch a study",
    operation_id="launch_study",
    status_code=202,
    responses={409: {"description": "a study of that name exists"}, 429: {"description": "too many processes run"}},
)
def launch(body: Launch, service: ServiceOf, jobs: JobsOf) -> Started:
    """Start a process that runs the study to its end; it goes on when the server ends. Where the profile names a
    cluster, the study runs there.

    What can be seen in the file is refused here; what its models and data bring up ends the job, whose log says it.
    """
    spec, found = look(body.text, service.settings)
    if spec is None or found:
        raise SpecError("\n".join(f"line {f.line}: {f.sentence}" if f.line else f.sentence for f in found))
    try:
        service.store.study(spec.name)
    except StudyNotFound:
        pass
    else:
        raise HTTPException(409, f"a study {spec.name!r} exists; give this one another name, or resume that one")
    words = ["launch", "{job}/study.yaml", *jobs.store_option]
    if body.profile:
        words.append(f"--workers={profile_file(service.settings, body.profile)}")
    try:
        job = jobs.start(
            "launch",
            spec.name,
            [words],
            files={"study.yaml": without_store(body.text)},
            profile=body.profile,
            alone=True,
        )
    except Busy as error:
        raise too_many(error) from None
    return Started(job=job.id, study=spec.name, sentence=f"study {spec.name!r} is being launched")
