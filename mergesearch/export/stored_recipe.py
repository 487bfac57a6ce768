"""A candidate's recipe as YAML from the store alone: no model is opened, so it is there at once and everywhere.

It is a Recipe (`Recipe.from_yaml` reads it) with where it comes from beside. What only the models can tell, their
digests and the tensors of each layer group, stands in the recipe.yaml that an export writes.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from mergesearch import __version__
from mergesearch.export.select import describe_candidate
from mergesearch.stored import StoredStudy
from mergesearch.types import Split

_HEAD = """\
# What to merge, written by mergesearch from its store. The models are named as in the study file.
# To build the merge: mergesearch export {study} --candidate {number} --to NEW_FOLDER
"""


def stored_recipe(study: StoredStudy, number: int) -> str | None:
    """The text of a recipe.yaml; None for a baseline and for a study that merges nothing.

    Raises:
        KeyError: no such candidate.
    """
    recipe = study.recipe(number)
    if recipe is None:
        return None
    results = study.results
    outcomes = {split: results.outcome(number, split) for split in Split}
    body: dict[str, Any] = {
        "mergesearch": __version__,
        "study": study.record.name,
        "candidate": number,
        "origin": results.candidates[number].origin,
        "why": describe_candidate(study, number),
        **models_of(study.record.spec),
        "scores": {
            split.value: {
                name: {"score": s.value, "stderr": s.stderr, "examples": s.n} for name, s in outcome.scores.items()
            }
            for split, outcome in outcomes.items()
            if outcome is not None
        },
        **recipe.to_dict(),
    }
    text = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=120)
    return _HEAD.format(study=study.record.name, number=number) + text


def models_of(spec: str) -> dict[str, Any]:
    """'models' and 'heads' of a study file's text, as they are written there; what is not there is left out."""
    try:
        body = yaml.safe_load(spec)
    except yaml.YAMLError:
        return {}
    if not isinstance(body, Mapping) or not isinstance(body.get("models"), Mapping):
        return {}
    merge = body.get("merge")
    heads = merge.get("heads") if isinstance(merge, Mapping) else None
    return {"models": dict(body["models"]), **({"heads": list(heads)} if isinstance(heads, list) else {})}
