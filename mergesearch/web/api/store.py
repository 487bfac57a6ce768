"""How the store is."""

import time

from fastapi import APIRouter
from pydantic import BaseModel, Field

from mergesearch.store.urls import shown
from mergesearch.types import Status
from mergesearch.web.service import ServiceOf

router = APIRouter(tags=["server"])


class StoreHealth(BaseModel):
    """What the store is and how quickly it answers."""

    kind: str = Field(examples=["SQLite 3.40.1"])
    scheme: str = Field(examples=["sqlite"], description="What comes before '://' in its URL; its place is not told.")
    schema_version: int
    bytes: int = Field(description="Size of the database.")
    studies: int
    by_status: dict[Status, int]
    milliseconds: float = Field(description="How long it took to ask it.")


@router.get("/store", summary="Health of the store", operation_id="store_health")
def store_health(service: ServiceOf) -> StoreHealth:
    """Asks the store; 503 if it does not answer."""
    began = time.perf_counter()
    info, records = service.store.info(), service.store.studies()
    statuses = [record.status for record in records]
    return StoreHealth(
        kind=str(info["kind"]),
        scheme=shown(service.settings.store).partition("://")[0],
        schema_version=int(str(info["schema"])),
        bytes=int(str(info["bytes"])),
        studies=len(records),
        by_status={status: statuses.count(status) for status in Status if status in statuses},
        milliseconds=round(1000.0 * (time.perf_counter() - began), 3),
    )
