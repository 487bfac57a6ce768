"""What the OpenAPI description says of every route beside what it says itself: its errors, as the problems they are."""

from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from mergesearch.web.problems import MEDIA

_UNSAFE: Final = ("post", "put", "patch", "delete")
_ERRORS: Final = {
    "401": "The token is missing or wrong: send `Authorization: Bearer TOKEN`.",
    "403": "The request comes from another site, or its session's CSRF header is wrong.",
    "404": "No study, candidate or job of that name or number.",
    "409": "It cannot be done in the study's present state.",
    "413": "The request's body is too large.",
    "421": "The server does not answer to this host name.",
    "422": "The request does not fit; `detail` says what and how to mend it.",
    "429": "Too many wrong tokens; `Retry-After` says when to try again.",
    "500": "An error of the server.",
    "503": "The store does not answer now.",
}


class Wrong(BaseModel):
    """One thing that does not fit in a request."""

    where: str = Field(examples=["query/limit"])
    what: str = Field(examples=["Input should be less than or equal to 500"])


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it; `detail` says how to mend it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["study 'smok' is not in this store; did you mean 'smoke'?"])
    errors: list[Wrong] | None = None


def document(app: FastAPI) -> None:
    """Have `app` describe itself with every error that its middleware and handlers give."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_problems(plain())
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # as FastAPI's own documentation has it


def _with_problems(schema: dict[str, Any]) -> dict[str, Any]:
    parts = schema.setdefault("components", {})
    models = parts.setdefault("schemas", {})
    for old in ("HTTPValidationError", "ValidationError"):
        models.pop(old, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    models.update(problem.pop("$defs"))
    models["Problem"] = problem
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            operation["security"] = [{"token": []}] if method in _UNSAFE else [{}, {"token": []}]
            answers = operation["responses"]
            for status in (*_usual(path, method), *answers):
                if status in _ERRORS or status[0] in "45":
                    said = answers.get(status, {}).get("description", "")
                    own = said if status not in ("422",) and said else _ERRORS.get(status, said)
                    body = {MEDIA: {"schema": {"$ref": "#/components/schemas/Problem"}}}
                    answers[status] = {"description": own, "content": body}
    return schema


def _usual(path: str, method: str) -> list[str]:
    found = ["401", "421", "422", "500", "503"]
    if "{" in path:
        found.append("404")
    if method in _UNSAFE:
        found += ["403", "409", "413", "429"]
    return found
