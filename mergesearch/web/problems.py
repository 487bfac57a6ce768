"""Errors as problem+json (RFC 9457) that say what to do, and never a path, a key or a stack trace of the server."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mergesearch.errors import LeaseError, MergesearchError, SpecError, StoreError, StudyNotFound

MEDIA = "application/problem+json"

STATUS: tuple[tuple[type[MergesearchError], int], ...] = (
    (StudyNotFound, 404),
    (LeaseError, 409),
    (SpecError, 422),
    (StoreError, 503),
    (MergesearchError, 500),
)


def problem(status: int, detail: str, **more: Any) -> JSONResponse:
    """One answer: `detail` says what is wrong and how to mend it."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return JSONResponse(body, status, media_type=MEDIA)


def install(app: FastAPI) -> None:
    """Answer every error of `app` as a problem."""

    @app.exception_handler(MergesearchError)
    def ours(_: Request, error: MergesearchError) -> JSONResponse:
        return problem(next(status for kind, status in STATUS if isinstance(error, kind)), str(error))

    @app.exception_handler(HTTPException)
    def http(_: Request, error: HTTPException) -> JSONResponse:
        answer = problem(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        found = [{"where": "/".join(map(str, e["loc"])), "what": e["msg"]} for e in error.errors()]
        said = "; ".join(f"{f['where']}: {f['what']}" for f in found)
        return problem(422, f"the request does not fit: {said}", errors=found)

    @app.exception_handler(Exception)
    def unforeseen(_: Request, __: Exception) -> JSONResponse:
        return problem(500, "an error of the server; its log says more")
