"""Errors as problem+json (RFC 9457) that say what to do, and never a path, a key or a stack trace of the server."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from mergesearch.errors import LeaseError, MergesearchError, SpecError, StoreError, StudyNotFound
from mergesearch.web.pages.rendering import page

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


def shown(request: Request, answer: JSONResponse, detail: str) -> Response:
    """The same as a page, where a browser has asked for one."""
    wanted = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")
    if not wanted or not hasattr(request.state, "csrf"):
        return answer
    title = HTTPStatus(answer.status_code).phrase
    made = page(request, "problem.html", title=title, detail=detail[:1].upper() + detail[1:])
    made.status_code = answer.status_code
    return made


def install(app: FastAPI) -> None:
    """Answer every error of `app` as a problem, to a visitor of a page as a page."""

    @app.exception_handler(MergesearchError)
    def ours(request: Request, error: MergesearchError) -> Response:
        said = request.app.state.security.cut(str(error))
        return shown(request, problem(next(status for kind, status in STATUS if isinstance(error, kind)), said), said)

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        answer = shown(request, problem(error.status_code, str(error.detail)), str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        found = [{"where": "/".join(map(str, e["loc"])), "what": e["msg"]} for e in error.errors()]
        said = "; ".join(f"{f['where']}: {f['what']}" for f in found)
        said = f"the request does not fit: {said}"
        return shown(request, problem(422, said, errors=found), said)

    @app.exception_handler(Exception)
    def unforeseen(_: Request, __: Exception) -> JSONResponse:
        return problem(500, "an error of the server; its log says more")
