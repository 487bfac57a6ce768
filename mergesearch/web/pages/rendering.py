"""Templates and what every page of them can use."""

from pathlib import Path
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.templating import Jinja2Templates

from mergesearch.web.pages.overview import FILTERS

STATIC: Final = Path(__file__).parents[1] / "static"


def templates() -> Jinja2Templates:
    """The templates of the package; whatever they are given is escaped."""
    loader = PackageLoader("mergesearch.web")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(FILTERS)
    return Jinja2Templates(env=environment)


def page(request: Request, name: str, /, **values: Any) -> HTMLResponse:
    """The page of template `name`."""
    found: HTMLResponse = request.app.state.service.templates.TemplateResponse(request, name, values)
    return found
