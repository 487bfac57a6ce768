"""What people ask of a study that runs, or that should run again."""

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from mergesearch.errors import SpecError
from mergesearch.report.holding import Holder, holder
from mergesearch.study.limits import changed, current
from mergesearch.web.api.launch import ProfileName, Started
from mergesearch.web.jobs import Busy, JobsOf, too_many
from mergesearch.web.names import StudyName, check_name
from mergesearch.web.profiles import profile_file
from mergesearch.web.service import Service, ServiceOf
from mergesearch.web.stored_spec import spec_of

router = APIRouter(tags=["studies"])
_CONTROL = r"^[A-Za-z0-9][A-Za-z0-9_\-]*$"

Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Wish(BaseModel):
    """What became of a wish. `asked`: it was written down now; False if somebody had asked for it before."""

    study: str
    action: Literal["pause", "cancel"]
    asked: bool
    sentence: str


class Plateau(BaseModel):
    """Ends the search once the last `evaluations` gained less than `gain`."""

    model_config = ConfigDict(extra="forbid")

    evaluations: Amount
    gain: Amount = 0.001


class Resume(BaseModel):
    """How to go on. A limit that is left out stays as it is; 'off' takes one away."""

    model_config = ConfigDict(extra="forbid")

    evaluations: Annotated[int, Field(ge=1, le=10**9)] | None = Field(None, description="In all, those made included.")
    examples: Annotated[int, Field(ge=1, le=10**15)] | Literal["off"] | None = None
    hours: Amount | Literal["off"] | None = None
    gpu_seconds: Amount | Literal["off"] | None = None
    target: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | Literal["off"] | None = Field(
        None, description="Objective -> the value that one merge must reach.", max_length=100
    )
    plateau: Plateau | Literal["off"] | None = None
    profile: ProfileName | None = Field(None, description="A workers profile; that of the last launch unless given.")


_NOBODY: dict[int | str, dict[str, Any]] = {409: {"description": "no process works on the study"}}


@router.post("/studies/{name}/pause", summary="Pause a study", operation_id="pause_study", status_code=202,
             responses=_NOBODY)  # fmt: skip
def pause(name: StudyName, service: ServiceOf) -> Wish:
    """Ask for an end once the evaluations that run now are done; a resume goes on. Asking twice is no error."""
    return _ask(service, name, "pause")


@router.post("/studies/{name}/cancel", summary="Cancel a study", operation_id="cancel_study", status_code=202,
             responses=_NOBODY)  # fmt: skip
def cancel(name: StudyName, service: ServiceOf) -> Wish:
    """Ask for an end at once; what was evaluated is kept, and a resume goes on. Asking twice is no error."""
    return _ask(service, name, "cancel")


@router.post(
    "/studies/{name}/resume",
    summary="Resume a study",
    operation_id="resume_study",
    status_code=202,
    responses={409: {"description": "a process works on the study"}, 429: {"description": "too many processes run"}},
)
def resume(name: StudyName, body: Resume, service: ServiceOf, jobs: JobsOf) -> Started:
    """Start a process that goes on where the study's log ends, with raised limits if some are given."""
    check_name(name)
    spec, facts, root = spec_of(service, name)
    limits = body.model_dump(exclude={"profile"}, exclude_none=True)
    changed(current(spec.budget, facts), limits, tuple(objective.name for objective in spec.objectives))
    if (held := _holder(service, name)) is not None:
        advice = "; pause it first, then resume it with the new limits" if limits else ""
        raise HTTPException(409, f"study {name!r} is running ({held.where} works on it){advice}")
    profile = body.profile
    if profile is None:
        profile = next((job.profile for job in jobs.of_study(name) if job.kind in ("launch", "resume")), "")
    words = ["resume", name, *jobs.store_option, *_options(body)]
    if profile:
        words.append(f"--workers={profile_file(service.settings, profile)}")
    try:
        job = jobs.start("resume", name, [words], profile=profile, cwd=root, alone=True)
    except Busy as error:
        raise too_many(error) from None
    return Started(job=job.id, study=name, sentence=f"study {name!r} goes on")


def _ask(service: Service, name: str, action: Literal["pause", "cancel"]) -> Wish:
    check_name(name)
    held = _holder(service, name)
    if held is None:
        record = service.store.study(name)
        raise HTTPException(409, f"study {name!r} is not running (it is {record.status.value}): nothing to {action}")
    if any(command.action == action for command in service.store.open_commands(name)):
        said = f"somebody asked to {action} study {name!r} already; it ends when its evaluations let it"
        return Wish(study=name, action=action, asked=False, sentence=said)
    service.store.command(name, action)
    when = "once the evaluations that run now are done" if action == "pause" else "at once"
    return Wish(study=name, action=action, asked=True, sentence=f"study {name!r} was asked to end {when}")


def _holder(service: Service, name: str) -> Holder | None:
    """Who works on a study; None if nobody that lives does."""
    held = holder(service.store.study(name), service.store.clock())
    return held if held is not None and held.alive else None


def _options(body: Resume) -> list[str]:
    """The limits as options of `mergesearch resume`, each one word, so that no value can be an option itself."""
    words = []
    for limit in ("evaluations", "examples", "hours", "gpu_seconds"):
        if (value := getattr(body, limit)) is not None:
            words.append(f"--{limit.replace('_', '-')}={value}")
    if isinstance(body.target, dict):
        if any(not re.match(_CONTROL, objective) for objective in body.target):
            raise SpecError("limits: target: names of objectives are of letters, digits, '-' and '_'")
        words.append("--target=" + ",".join(f"{objective}={value!r}" for objective, value in body.target.items()))
    elif body.target:
        words.append(f"--target={body.target}")
    if isinstance(body.plateau, Plateau):
        words.append(f"--plateau={body.plateau.evaluations!r}:{body.plateau.gain!r}")
    elif body.plateau:
        words.append(f"--plateau={body.plateau}")
    return words
