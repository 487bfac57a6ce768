"""Metrics of the server in Prometheus' text format."""

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from mergesearch.types import Status
from mergesearch.web.service import Service, ServiceOf
from mergesearch.web.traffic import BUCKETS

router = APIRouter(tags=["server"])
_TEXT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Prometheus' text format.",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": "mergesearch_web_streams_open 2\n"}},
    }
}


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    operation_id="metrics",
    response_class=PlainTextResponse,
    responses=_TEXT,
)
def metrics(service: ServiceOf) -> PlainTextResponse:
    """Requests and their seconds by route, open streams, feeds in memory, studies by status."""
    text = "\n".join([*_requests(service), *_gauges(service)]) + "\n"
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def _requests(service: Service) -> Iterator[str]:
    traffic = service.traffic
    with traffic.lock:
        requests, seconds, buckets = dict(traffic.requests), dict(traffic.seconds), dict(traffic.buckets)
    yield "# HELP mergesearch_web_requests_total Answers by method, route and status."
    yield "# TYPE mergesearch_web_requests_total counter"
    for (method, route, status), count in sorted(requests.items()):
        yield f'mergesearch_web_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}'
    yield "# HELP mergesearch_web_request_seconds Seconds until an answer began, by route."
    yield "# TYPE mergesearch_web_request_seconds histogram"
    for route in sorted(seconds):
        total = sum(count for (_, other, _), count in requests.items() if other == route)
        for bound in BUCKETS:
            within = buckets.get((route, bound), 0)
            yield f'mergesearch_web_request_seconds_bucket{{route="{route}",le="{bound}"}} {within}'
        yield f'mergesearch_web_request_seconds_bucket{{route="{route}",le="+Inf"}} {total}'
        yield f'mergesearch_web_request_seconds_sum{{route="{route}"}} {seconds[route]:.6f}'
        yield f'mergesearch_web_request_seconds_count{{route="{route}"}} {total}'


def _gauges(service: Service) -> Iterator[str]:
    yield "# HELP mergesearch_web_streams_open Open streams of events."
    yield "# TYPE mergesearch_web_streams_open gauge"
    yield f"mergesearch_web_streams_open {len(service.streams)}"
    yield "# HELP mergesearch_web_feeds Studies that are kept in memory."
    yield "# TYPE mergesearch_web_feeds gauge"
    yield f"mergesearch_web_feeds {len(service.feeds)}"
    statuses = [record.status for record in service.store.studies()]
    yield "# HELP mergesearch_studies Studies of the store by status."
    yield "# TYPE mergesearch_studies gauge"
    for status in Status:
        yield f'mergesearch_studies{{status="{status.value}"}} {statuses.count(status)}'
