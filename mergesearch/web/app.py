"""Puts the server together: every module of `api` and `pages` that has a `router` is part of it."""

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

from fastapi import APIRouter, FastAPI
from starlette.staticfiles import StaticFiles

from mergesearch import __version__
from mergesearch.store.open import open_store
from mergesearch.web import api, pages, problems
from mergesearch.web.feeds import Feeds
from mergesearch.web.pages.rendering import STATIC, templates
from mergesearch.web.service import Service
from mergesearch.web.settings import Settings

API = "/api/v1"


def create_app(settings: Settings) -> FastAPI:
    """The server of one store. Raises StoreError if it cannot be opened."""
    app = FastAPI(
        title="mergesearch", version=__version__, docs_url=None, redoc_url=None, openapi_url=f"{API}/openapi.json"
    )
    store = open_store(settings.store, create=True, secret=settings.secret)
    app.state.service = Service(settings, store, Feeds(store), templates())
    problems.install(app)
    for router in _routers(api):
        app.include_router(router, prefix=API)
    for router in _routers(pages):
        app.include_router(router, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def _routers(package: ModuleType) -> Iterator[APIRouter]:
    for found in pkgutil.iter_modules(package.__path__):
        router = getattr(import_module(f"{package.__name__}.{found.name}"), "router", None)
        if router is not None:
            yield router
