"""The stream of a study's events."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from mergesearch.web.names import StudyName
from mergesearch.web.service import ServiceOf
from mergesearch.web.streams import MOST_STREAMS, Channel, Listener

router = APIRouter(tags=["studies"])
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events.",
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "description": "One event; `data` is JSON.",
                    "properties": {
                        "id": {"type": "string", "description": "To be sent back as Last-Event-ID."},
                        "event": {"type": "string", "enum": ["changed", "log"]},
                        "data": {"type": "string"},
                    },
                    "required": ["event", "data"],
                },
                "example": {"id": "1767225600000-12", "event": "changed", "data": '{"version":3,"status":"running"}'},
            }
        },
    },
    503: {"description": "The store does not answer, or too many streams are open."},
}


@router.get(
    "/studies/{name}/events",
    summary="What happens in a study, as it happens",
    operation_id="events",
    response_class=StreamingResponse,
    responses=_STREAM,
)
async def events(
    service: ServiceOf,
    name: StudyName,
    last_event_id: Annotated[
        str, Header(alias="Last-Event-ID", max_length=100, description="Set by browsers that come back.")
    ] = "",
) -> StreamingResponse:
    """Server-sent events: `changed` with how the study stands, at once and then at most twice a second when something
    changed; `log` with the lines of evaluations that ended, at most 100 (the last ones). A comment every 15 seconds.

    Ends when the server does, when the study is deleted, and for a listener that does not keep up; browsers come back
    by themselves and name the last event that they saw, so that they get what they missed.
    """
    if len(service.streams) >= MOST_STREAMS:
        raise HTTPException(503, f"{MOST_STREAMS} streams are open already; close some pages", {"Retry-After": "30"})
    listener = Listener()
    channel = await run_in_threadpool(service.streams.join, name, listener, last_event_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_told(service, name, channel, listener), media_type="text/event-stream", headers=headers)


async def _told(service: ServiceOf, name: str, channel: Channel, listener: Listener) -> AsyncIterator[bytes]:
    try:
        async for message in listener.messages():
            yield message
    finally:
        # Not awaited: a stream whose browser is gone is being cancelled here.
        asyncio.get_running_loop().run_in_executor(None, service.streams.leave, name, channel, listener)
