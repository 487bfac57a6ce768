"""Whether the server lives."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from mergesearch import __version__

router = APIRouter(tags=["server"])


class Health(BaseModel):
    """The server answers; the store is asked at `/store`."""

    status: Literal["ok"]
    version: str


@router.get("/health", summary="Whether the server lives", operation_id="health")
def health() -> Health:
    """Answers without looking at the store: for probes of a container or a load balancer."""
    return Health(status="ok", version=__version__)
