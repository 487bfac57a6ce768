"""Looking at a study file before it is launched."""

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from mergesearch.web.jobs import CHECK_SECONDS, Busy, JobsOf, too_many
from mergesearch.web.security.guard import Security
from mergesearch.web.service import ServiceOf
from mergesearch.web.study_file import LARGEST, look, without_store

router = APIRouter(tags=["launch"])
_PLACE = re.compile(r"^\S*study\.yaml(:\d+)*: ")

StudyText = Annotated[
    str,
    Field(max_length=LARGEST, description="A study file.", examples=["name: mine\nmodels:\n  base: runs/smoke/base\n"]),
]


class StudyFile(BaseModel):
    """A study file."""

    text: StudyText


class Finding(BaseModel):
    """One thing that the check found."""

    level: Literal["ok", "warning", "error"] = Field(description="With an error the study cannot be launched.")
    sentence: str
    line: int | None = Field(None, description="The line of the file that it is about, counted from 1.")


class Checked(BaseModel):
    """What the check found."""

    ok: bool = Field(description="Whether the study can be launched.")
    name: str | None = Field(None, description="The study's name, where the file says one.")
    findings: list[Finding]
    axes: int = Field(default=0, description="How many numbers would be searched.")


@router.post(
    "/check",
    summary="Check a study file",
    operation_id="check_study_file",
    responses={429: {"description": "others check theirs just now"}},
)
def check(body: StudyFile, request: Request, service: ServiceOf, jobs: JobsOf) -> Checked:
    """Looks at the file, its models' headers, its data, its axes and its memory; nothing is launched or kept."""
    spec, found = look(body.text, service.settings)
    name = spec.name if spec else None
    if found or spec is None:
        return Checked(ok=False, name=name, findings=[_finding(f.level, f.sentence, f.line) for f in found])
    try:
        said = jobs.check(without_store(body.text))
    except Busy as error:
        raise too_many(error) from None
    if said is None:
        slow = f"the check took longer than {CHECK_SECONDS:.0f} s and was stopped; are models or data on a slow disk?"
        return Checked(ok=False, name=name, findings=[_finding("error", slow, None)])
    security: Security = request.app.state.security
    findings = [_finding(f["level"], security.cut(_PLACE.sub("", f["sentence"])), f["line"]) for f in said["findings"]]
    return Checked(ok=said["ok"], name=name, findings=findings, axes=len(said.get("axes", ())))


def _finding(level: str, sentence: str, line: int | None) -> Finding:
    return Finding.model_validate({"level": level, "sentence": sentence, "line": line})
