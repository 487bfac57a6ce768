"""Signing in and out."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, Field

from mergesearch.web.security.guard import Security
from mergesearch.web.security.sessions import SESSION_SECONDS
from mergesearch.web.security.tokens import matches

router = APIRouter(tags=["session"])


class Credentials(BaseModel):
    """What signing in takes."""

    token: Annotated[str, Field(min_length=1, max_length=1024, description="The token that `mergesearch serve` said.")]


class SignedIn(BaseModel):
    """A session, which the answer's cookie carries."""

    csrf: Annotated[str, Field(description="Send it as the header X-CSRF-Token with every change.")]
    seconds: Annotated[float, Field(description="How long the session lasts.")]


@router.post(
    "/session",
    summary="Sign in",
    operation_id="sign_in",
    responses={401: {"description": "not the token"}, 429: {"description": "too many wrong tokens"}},
)
def sign_in(credentials: Credentials, request: Request, response: Response) -> SignedIn:
    """Begin a session for a browser. Programs need none: they send `Authorization: Bearer TOKEN`."""
    security: Security = request.app.state.security
    client = request.client.host if request.client else ""
    if wait := security.failures.wait(client):
        raise HTTPException(429, f"too many wrong tokens; try again in {wait} s", {"Retry-After": str(wait)})
    if not matches(credentials.token, security.settings.token_hash):
        security.failures.count(client)
        raise HTTPException(
            401,
            "that is not this server's token; `mergesearch serve --new-token` makes a new one",
            {"WWW-Authenticate": 'Bearer realm="mergesearch"'},
        )
    session = security.sessions.begin()
    response.set_cookie(
        security.cookie(request.scope),
        session.id,
        max_age=int(SESSION_SECONDS),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return SignedIn(csrf=session.csrf, seconds=SESSION_SECONDS)


@router.delete(
    "/session", summary="Sign out", operation_id="sign_out", status_code=204, responses={401: {"description": "nobody"}}
)
def sign_out(request: Request, response: Response) -> None:
    """End the session of the request's cookie; with a bearer token there is none to end."""
    security: Security = request.app.state.security
    session = security.session(request.scope)
    if session is not None:
        security.sessions.end(session.id)
    response.delete_cookie(security.cookie(request.scope), httponly=True, samesite="strict")
