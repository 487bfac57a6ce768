"""Templates and what every page of them can use."""

from pathlib import Path
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.templating import Jinja2Templates

STATIC: Final = Path(__file__).parents[1] / "static"


def templates() -> Jinja2Templates:
    """The templates of the package; whatever they are given is escaped."""
    loader = PackageLoader("mergesearch.web")
    return Jinja2Templates(
        env=Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    )


def page(request: Request, name: str, **values: Any) -> HTMLResponse:
    """The page of template `name`."""
    found: HTMLResponse = request.app.state.service.templates.TemplateResponse(request, name, values)
    return found
