"""Puts the server together: every module of `api` and `pages` that has a `router` is part of it."""

import pkgutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module
from types import ModuleType

from fastapi import APIRouter, FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from mergesearch import __version__
from mergesearch.store.open import open_store
from mergesearch.web import api, pages, problems
from mergesearch.web.documented import document
from mergesearch.web.feeds import Feeds
from mergesearch.web.jobs import Jobs
from mergesearch.web.pages.rendering import STATIC, templates
from mergesearch.web.security.guard import Guard, Security
from mergesearch.web.service import Service
from mergesearch.web.settings import Settings
from mergesearch.web.shown import shown
from mergesearch.web.streams import Streams
from mergesearch.web.summaries import Summaries
from mergesearch.web.traffic import Counting, Traffic

API = "/api/v1"


def create_app(settings: Settings) -> FastAPI:
    """The server of one store. Raises StoreError if it cannot be opened."""
    app = FastAPI(
        title="mergesearch",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{API}/openapi.json",
        lifespan=_life,
    )
    security = Security(settings)
    store = shown(open_store(settings.store, create=True, secret=settings.secret), security.cut)
    feeds, traffic = Feeds(store), Traffic()
    summaries, streams = Summaries(store, feeds), Streams(store, feeds)
    app.state.service = Service(settings, store, feeds, summaries, streams, traffic, templates())
    app.state.security = security
    app.state.jobs = Jobs(settings)
    app.add_middleware(Guard, security=app.state.security)
    app.add_middleware(Counting, traffic=traffic)
    problems.install(app)
    document(app)
    for router in _routers(api):
        app.include_router(router, prefix=API)
    for router in _routers(pages):
        app.include_router(router, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    """While the server serves, a thread reads ahead what people will look at first."""
    service: Service = app.state.service
    service.summaries.start()
    yield
    await run_in_threadpool(service.summaries.stop)


def _routers(package: ModuleType) -> Iterator[APIRouter]:
    for found in pkgutil.iter_modules(package.__path__):
        router = getattr(import_module(f"{package.__name__}.{found.name}"), "router", None)
        if router is not None:
            yield router
