"""Recipes to take away: recipe.yaml from the store, mergekit.yaml where mergekit can express the merge."""

import json
import os
import subprocess  # nosec B404  # our own command, no shell
import sys
import threading
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Response

from mergesearch.export.stored_recipe import models_of, stored_recipe
from mergesearch.stored import stored
from mergesearch.web.api.candidate import Number, check_number
from mergesearch.web.names import StudyName
from mergesearch.web.service import ServiceOf

router = APIRouter(tags=["candidates"])

MEDIA: Final = "application/yaml"
STORE_VARIABLE: Final = "MERGESEARCH_STORE"
"""Where the command line looks for the store: its URL may hold a password, which arguments would show to others."""
SECONDS: Final = 120.0
"""How long a process may take to read the headers of a study's models."""
WAIT_SECONDS: Final = 20.0
_TURN: Final = threading.BoundedSemaphore(1)
"""One process at a time: it costs a CPU core and some hundred MB for a few seconds."""

YAML: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The file", "content": {MEDIA: {"schema": {"type": "string"}}}},
    404: {"description": "No such study or candidate"},
    409: {"description": "This candidate cannot be said in such a file; `detail` says why"},
}


@dataclass(eq=False)
class _Made:
    """What the process said, once it has."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    answer: dict[str, str | None] | None = None


@router.get(
    "/studies/{name}/candidates/{number}/recipe.yaml",
    summary="Download a candidate's recipe",
    operation_id="get_recipe",
    response_class=Response,
    responses=YAML,
)
def recipe(service: ServiceOf, name: StudyName, number: Number) -> Response:
    """The recipe as YAML: operator, options, and every coefficient; the models as the study file names them."""
    with service.feeds.reading(name) as feed:
        check_number(feed.view, number)
        text = stored_recipe(stored(feed.view.record, service.store.facts(name), feed.view.results), number)
        baseline = feed.view.results.candidates[number].point is None
    if text is None:
        why = (
            "is a baseline: what it is follows from its name, and it has no coefficients that were searched"
            if baseline
            else "belongs to a search that merges nothing; its point stands in its page"
        )
        raise HTTPException(409, f"candidate {number} has no recipe: it {why}")
    return _file("recipe.yaml", text)


@router.get(
    "/studies/{name}/candidates/{number}/mergekit.yaml",
    summary="Download a candidate as a configuration for mergekit",
    operation_id="get_mergekit",
    response_class=Response,
    responses={**YAML, 503: {"description": "Others are being made; try again"}},
)
def mergekit(service: ServiceOf, name: StudyName, number: Number) -> Response:
    """The same merge in mergekit's words. The headers of the models are read for it, which takes some seconds."""
    with service.feeds.reading(name) as feed:
        check_number(feed.view, number)
        spec = feed.view.record.spec
        made = feed.kept(f"mergekit:{number}", lambda _: _Made())
    models = models_of(spec)
    if not models:
        raise HTTPException(409, f"study {name!r} is a search that merges no models, so there is nothing for mergekit")
    if models.get("heads"):
        raise _not_expressible(number, "the heads are kept apart here, while it merges every tensor of a model")
    if service.settings.store.startswith("memory:"):
        raise HTTPException(409, "the store lives in the server's memory, where no other process can read it")
    with made.lock:
        if made.answer is None:
            made.answer = _ask(service.settings.store, name, number)
        answer = made.answer
    text = answer["mergekit"]
    if text is None:
        raise _not_expressible(number, answer["why_not"] or "no reason is known")
    return _file("mergekit.yaml", text)


def _ask(store: str, name: str, number: int) -> dict[str, str | None]:
    """What a process of its own, which may load torch, says. Its errors hold paths, so they are not passed on."""
    if not _TURN.acquire(timeout=WAIT_SECONDS):
        raise HTTPException(503, "others are being made just now; try again in a minute", {"Retry-After": "30"})
    try:
        done = subprocess.run(  # nosec B603  # arguments are a checked name and a number
            [sys.executable, "-m", "mergesearch", "candidate", name, str(number), "--mergekit", "--json"],
            env={**os.environ, STORE_VARIABLE: store},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise HTTPException(503, f"the models were not read within {SECONDS:g} s; try again") from None
    finally:
        _TURN.release()
    if done.returncode != 0:
        raise HTTPException(
            409,
            f"the models of study {name!r} cannot be read on the server, so there is no mergekit.yaml; "
            f"type 'mergesearch candidate {name} {number} --mergekit' where they are",
        )
    answer: dict[str, str | None] = json.loads(done.stdout)
    return answer


def _not_expressible(number: int, why: str) -> HTTPException:
    return HTTPException(
        409,
        f"mergekit cannot express candidate {number}, since {why}; take recipe.yaml, or export the merged model itself",
    )


def _file(name: str, text: str) -> Response:
    return Response(text, media_type=MEDIA, headers={"Content-Disposition": f'attachment; filename="{name}"'})
