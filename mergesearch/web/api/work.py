"""Work for scorers outside: ask for candidates, renew their leases, tell what was found. See `pool/external.py`."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from mergesearch.errors import NotOffered
from mergesearch.space import SearchSpace
from mergesearch.store.base import StudyRecord, StudyStore
from mergesearch.store.offering import Offer, Receipt, State
from mergesearch.stored import objectives_of
from mergesearch.types import Direction, Split, Status
from mergesearch.web.names import StudyName, check_name
from mergesearch.web.service import ServiceOf
from mergesearch.web.telling import OFFER, Body, Name, Number, Tell, axis_values, outcome_of

router = APIRouter(tags=["work outside"])

LONGEST_WAIT: Final = 20.0  # seconds that an ask may wait for work
PAUSE: Final = 0.2  # seconds between two looks of an ask that waits
_OVER: Final = (Status.DONE, Status.STOPPED, Status.FAILED)
_GONE: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "no such study, offer or token"}}


class Ask(Body):
    """Who asks, for how much."""

    worker: Annotated[Name, Field(description="A name for whoever scores; it stands in the log.", examples=["gpu-1"])]
    count: Annotated[int, Field(strict=True, ge=1, le=64, description="Candidates to lease at most.")] = 1
    wait_seconds: Annotated[
        Number, Field(ge=0, le=LONGEST_WAIT, description="How long to wait for the first, where there is none now.")
    ] = 0.0


class Wanted(BaseModel):
    """Of which examples, and whether gradients are wanted."""

    share: float = Field(description="The share of the examples, 0 to 1.")
    offset: float = Field(description="The share of their fixed order at which they begin.")
    gradient: str = Field(description="The loss whose gradients are wanted; '' for none.")


class Aim(BaseModel):
    """An objective to tell a score of."""

    name: str
    direction: Direction


class Recipe(BaseModel):
    """A merge to build, as recipe.yaml has it."""

    operator: str
    options: dict[str, Any]
    experts: list[str]
    groups: list[str]
    settings: dict[str, dict[str, dict[str, float]]] = Field(description="Knob -> layer group -> expert -> value.")


class OfferOut(BaseModel):
    """One evaluation, leased to who asked."""

    offer: str
    token: str = Field(description="To be sent with what is told, and to renew the lease.")
    number: int = Field(description="The candidate's number.")
    split: Split = Field(description="The examples to score on.")
    attempt: int = Field(description="The so-many-th lease of it.")
    values: dict[str, float] | None = Field(description="Axis -> natural value; null for a baseline.")
    point: list[float] | None = Field(description="The same in the unit cube.")
    recipe: Recipe | None = Field(description="What to build; null in a study without models.")
    request: Wanted
    objectives: list[Aim]
    until: float = Field(description="When the lease runs out: seconds since the epoch, by the store's clock.")
    seconds: float = Field(description="How long a lease of it runs; renew it in time.")


class Standing(BaseModel):
    """How the study stands."""

    status: Status
    runs: bool = Field(description="Whether a controller works on it now.")
    over: bool = Field(description="Whether it has ended: then nothing more will be offered, unless it is resumed.")


class Work(Standing):
    """Offers, none where there is nothing to do now."""

    offers: list[OfferOut]


class Taken(BaseModel):
    """What was told is kept."""

    offer: str
    again: bool = Field(description="Whether the same had been told before; then nothing was written.")


class Renew(Body):
    """Which lease to prolong."""

    offer: Annotated[str, Field(pattern=OFFER, examples=["17-search"])]
    token: Annotated[str, Field(max_length=100)]
    seconds: (
        Annotated[Number, Field(gt=0, le=86400, description="From now on; the offer's own length if null.")] | None
    ) = None


class Renewed(BaseModel):
    """Until when it runs now."""

    offer: str
    until: float


class Held(BaseModel):
    """An evaluation in somebody's hands."""

    offer: str
    number: int
    split: Split
    worker: str
    attempt: int
    leased: float
    until: float
    lapsed: bool = Field(description="Whether the lease ran out: who asks next gets it.")


class WorkCounts(Standing):
    """How many offers are in each state, and who holds what."""

    open: int
    leased: int
    told: int
    held: list[Held]


@router.post("/studies/{name}/ask", summary="Ask for work", operation_id="ask_for_work")
async def ask(name: StudyName, asked: Ask, request: Request, service: ServiceOf) -> Work:
    """Lease candidates to score. Each is yours until its lease runs out; renew it where a scoring takes longer.

    With `wait_seconds` the answer comes as soon as there is something, or the study is over.
    """
    check_name(name)
    end = time.monotonic() + asked.wait_seconds
    while True:
        found = await run_in_threadpool(_lease, service.store, name, asked)
        left = end - time.monotonic()
        ends = left <= 0.0 or service.streams.ending()
        if found.offers or found.over or ends or await request.is_disconnected():
            return found
        await asyncio.sleep(min(PAUSE, left))


@router.post(
    "/studies/{name}/tell",
    summary="Tell what was found",
    operation_id="tell_what_was_found",
    responses={**_GONE, 409: {"description": "told before with other scores; these are kept as an extra observation"}},
)
def tell(name: StudyName, told: Tell, service: ServiceOf) -> Taken:
    """Tell the scores of an offer, or how it failed. Telling the same again changes nothing; equal are answers whose
    objectives' scores are. A lease that ran out meanwhile is no obstacle: what is told first counts."""
    check_name(name)
    facts = service.store.facts(name)
    if "objectives" not in facts or "space" not in facts:
        raise HTTPException(404, f"study {name!r} offers no work")
    dim = len(facts["space"]["axes"])  # type: ignore[index]  # as `stored.describe` wrote it
    outcome = outcome_of(told, objectives_of(facts), dim)
    number, split = _place(told.offer)
    try:
        receipt = service.store.offers.tell(name, number, split, told.token, outcome)
    except NotOffered as error:
        raise HTTPException(404, str(error)) from None
    if receipt is Receipt.OTHER:
        raise HTTPException(
            409,
            f"candidate {number} was told before with other scores, which stand; yours are kept beside them as an "
            "extra observation, so there is nothing to send again",
        )
    return Taken(offer=told.offer, again=receipt is Receipt.AGAIN)


@router.post(
    "/studies/{name}/renew",
    summary="Prolong a lease",
    operation_id="renew_lease",
    responses={**_GONE, 409: {"description": "it was told, or another works on it now"}},
)
def renew(name: StudyName, asked: Renew, service: ServiceOf) -> Renewed:
    """Keep an offer while its scoring takes longer than a lease."""
    check_name(name)
    number, split = _place(asked.offer)
    try:
        offer = service.store.offers.renew(name, number, split, asked.token, asked.seconds)
    except NotOffered as error:
        raise HTTPException(404, str(error)) from None
    return Renewed(offer=asked.offer, until=offer.until)


@router.get("/studies/{name}/work", summary="Who works on what", operation_id="work_of_study")
def work(name: StudyName, service: ServiceOf) -> WorkCounts:
    """Offers of a study by state, and who holds which."""
    check_name(name)
    store = service.store
    counts, now = store.offers.counts(name), store.clock()
    held = [
        Held(
            offer=_id(offer), number=offer.number, split=offer.split, worker=offer.holders[-1],
            attempt=len(offer.holders), leased=offer.leased, until=offer.until, lapsed=offer.until <= now,
        )
        for offer in store.offers.waiting(name)
        if offer.state is State.LEASED
    ]  # fmt: skip
    amounts = {"open": counts[State.OPEN], "leased": counts[State.LEASED], "told": counts[State.TOLD]}
    return WorkCounts.model_validate({**_standing(store.study(name), now), **amounts, "held": held})


def _lease(store: StudyStore, name: str, asked: Ask) -> Work:
    record = store.study(name)
    standing = _standing(record, store.clock() if record.owner else 0.0)
    # A study that was paused or cancelled offers nothing new; what somebody holds is taken at any time.
    if record.status is not Status.RUNNING or not store.offers.free(name):
        return Work(**standing, offers=[])
    if any(command.action != "resume" for command in store.open_commands(name)):
        return Work(**standing, offers=[])
    leased = store.offers.lease(name, asked.worker, asked.count)
    return Work(**standing, offers=_offers(store, name, leased) if leased else [])


def _offers(store: StudyStore, name: str, leased: Sequence[Offer]) -> list[OfferOut]:
    facts: dict[str, Any] = dict(store.facts(name))
    space = SearchSpace.from_dict(facts["space"])
    axes = [axis.name for axis in space.axes]
    aims = [Aim(name=o.name, direction=o.direction) for o in objectives_of(facts)]
    found = []
    for offer in leased:
        body = json.loads(offer.body)
        point = body["point"]
        natural = [] if point is None else [float(value) for value in space.values(np.array(point))]
        found.append(
            OfferOut(
                offer=_id(offer), token=offer.token, number=offer.number, split=offer.split,
                attempt=len(offer.holders), values=axis_values(body, axes, natural), point=point,
                recipe=body.get("recipe"), request=Wanted(**body["request"]), objectives=aims,
                until=offer.until, seconds=offer.seconds,
            )
        )  # fmt: skip
    return found


def _standing(record: StudyRecord, now: float) -> dict[str, Any]:
    runs = bool(record.owner) and record.until > now
    return {"status": record.status, "runs": runs, "over": record.status in _OVER and not runs}


def _id(offer: Offer) -> str:
    return f"{offer.number}-{offer.split.value}"


def _place(offer: str) -> tuple[int, Split]:
    number, _, split = offer.partition("-")
    return int(number), Split(split)
