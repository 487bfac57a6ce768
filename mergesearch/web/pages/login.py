"""Signing in with the token."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from mergesearch.web.pages.rendering import page

router = APIRouter()


@router.get("/login")
def login(request: Request, next: Annotated[str, Query(max_length=2000)] = "/") -> HTMLResponse:
    """A field for the token. The link that `mergesearch serve` says carries it behind '#', where the page's script
    takes it from; no server sees that part. `next` is a path of this server to go on to."""
    return page(request, "login.html", next=next if is_here(next) else "/")


def is_here(place: str) -> bool:
    """Whether `place` is a path of this server and nothing that a browser reads as another site."""
    return place.startswith("/") and place[1:2] not in ("/", "\\") and place.isprintable()
