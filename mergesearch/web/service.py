"""What every route can reach: the settings, the feeds, the processes that people started, the templates."""

from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, Request

from mergesearch.store.base import StudyStore
from mergesearch.web.feeds import Feeds
from mergesearch.web.settings import Settings
from mergesearch.web.streams import Streams
from mergesearch.web.summaries import Summaries
from mergesearch.web.traffic import Traffic


@dataclass(eq=False)
class Service:
    """One server's parts. `store` may be called from any thread."""

    settings: Settings
    store: StudyStore
    feeds: Feeds
    summaries: Summaries
    streams: Streams
    traffic: Traffic
    templates: Any


def service_of(request: Request) -> Service:
    """The service behind a request."""
    found: Service = request.app.state.service
    return found


ServiceOf: TypeAlias = Annotated[Service, Depends(service_of)]
