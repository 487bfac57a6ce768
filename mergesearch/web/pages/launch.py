"""The page where a study file is checked and launched."""

from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from mergesearch.web.pages.rendering import page
from mergesearch.web.profiles import offered
from mergesearch.web.service import ServiceOf
from mergesearch.web.study_file import LARGEST

router = APIRouter()

EXAMPLE: Final = """\
# A study says what is merged, what is searched, and what counts as good. Paths start in the server's folder.
name: my-study            # a new name; it is part of addresses
models:
  base: runs/smoke/base   # the model that the experts were trained from
  experts:                # two or more
    a: runs/smoke/a
    b: runs/smoke/b
merge:
  operator: task_arithmetic   # how they are put together; `mergesearch list` names all
  heads: ["classifier.*"]     # tensors that are not merged
space:
  groups: block               # one coefficient for each block of layers and each expert
  coefficient: {low: 0.0, high: 1.5, init: 0.5}
objectives:                   # each is a number to improve
  - {name: a, scorer: image_classification, head: a, data: {path: "runs/smoke/data/a-{split}.npz"}}
  - {name: b, scorer: image_classification, head: b, data: {path: "runs/smoke/data/b-{split}.npz"}}
budget:
  evaluations: 60             # how many merges are tried
"""


@router.get("/launch")
def launch(request: Request, service: ServiceOf) -> HTMLResponse:
    """A study file to paste, upload or write, the profiles, and what the check finds beside the lines."""
    return page(request, "launch.html", example=EXAMPLE, profiles=offered(service.settings), largest=LARGEST)
