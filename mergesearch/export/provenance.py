"""recipe.yaml: all that an exported merge was built from, and how it scored. Enough to build the same bits again.

The file is a Recipe (`Recipe.from_yaml` reads it) with more keys beside: models with their digests, the tensors of each
layer group, the heads that were kept apart, the study, and the scores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mergesearch import __version__
from mergesearch.errors import SpecError
from mergesearch.export.folder import RECIPE_FILE
from mergesearch.operators.base import Layout
from mergesearch.recipe import Recipe
from mergesearch.types import Score, Split

FORMAT = 1
BASE_MODEL = "base"


@dataclass(frozen=True)
class ModelSource:
    """Where a model stood when the merge was exported, and the digest of its weights."""

    path: str
    digest: str


@dataclass(frozen=True, eq=False)
class Provenance:
    """What recipe.yaml holds.

    `base` and `experts` are the models. `heads` are patterns of tensors that were not merged, `worn` the experts whose
    head was exported. `scores[split][objective]` has every split that the candidate was scored on.
    """

    recipe: Recipe
    layout: Layout
    base: ModelSource
    experts: Mapping[str, ModelSource]
    heads: tuple[str, ...]
    worn: tuple[str, ...]
    study: str
    candidate: int
    origin: str
    why: str
    scores: Mapping[Split, Mapping[str, Score]]

    @property
    def digest(self) -> str:
        """Digest of the recipe on its models."""
        return self.recipe.digest(model_digests(self.base, self.experts))

    def to_yaml(self) -> str:
        """The text of recipe.yaml; `read_provenance` is its inverse."""
        tensors: dict[str, list[str]] = {group: [] for group in self.layout.groups}
        for name, group in self.layout.group_of.items():
            tensors[self.layout.groups[group]].append(name)
        body = {
            "format": FORMAT,
            "mergesearch": __version__,
            "study": self.study,
            "candidate": self.candidate,
            "origin": self.origin,
            "why": self.why,
            "digest": self.digest,
            "models": {
                "base": _source(self.base),
                "experts": {name: _source(model) for name, model in self.experts.items()},
            },
            "heads": {"patterns": list(self.heads), "worn": list(self.worn)},
            "scores": {split.value: {o: _score(s) for o, s in found.items()} for split, found in self.scores.items()},
            **self.recipe.to_dict(),
            "tensors": tensors,
        }
        return yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=120)


def model_digests(base: ModelSource, experts: Mapping[str, ModelSource]) -> dict[str, str]:
    """Model name -> digest, under the names that a study gives them."""
    return {BASE_MODEL: base.digest, **{f"expert:{name}": model.digest for name, model in experts.items()}}


def read_provenance(path: Path) -> Provenance:
    """The provenance in a recipe.yaml, or in the export folder that holds one.

    Raises:
        SpecError: no such file, not written by an export, damaged, or of a newer format.
    """
    file = path / RECIPE_FILE if path.is_dir() else path
    try:
        body = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(
            f"cannot read {str(file)!r}: {error.strerror}; give an export's folder or recipe.yaml"
        ) from None
    except yaml.YAMLError as error:
        raise SpecError(f"{str(file)!r} is not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(body, dict) or not isinstance(body.get("format"), int):
        raise SpecError(f"{str(file)!r} was not written by an export: it has no 'format'")
    if body["format"] > FORMAT:
        raise SpecError(
            f"{str(file)!r} has format {body['format']}, mergesearch {__version__} reads up to {FORMAT}; "
            f"use mergesearch {body.get('mergesearch', 'of a later version')}"
        )
    try:
        found = _parse(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SpecError(f"{str(file)!r} is damaged: {type(error).__name__} at {error}") from None
    if found.digest != body.get("digest"):
        raise SpecError(f"{str(file)!r} was changed by hand: its digest does not fit its recipe and models")
    return found


def _parse(body: Mapping[str, Any]) -> Provenance:
    recipe = Recipe.from_dict(body)
    group_of = {name: recipe.groups.index(group) for group, names in body["tensors"].items() for name in names}
    models = body["models"]
    return Provenance(
        recipe=recipe,
        layout=Layout(recipe.experts, recipe.groups, group_of),
        base=ModelSource(**models["base"]),
        experts={name: ModelSource(**models["experts"][name]) for name in recipe.experts},
        heads=tuple(body["heads"]["patterns"]),
        worn=tuple(body["heads"]["worn"]),
        study=str(body["study"]),
        candidate=int(body["candidate"]),
        origin=str(body["origin"]),
        why=str(body["why"]),
        scores={
            Split(split): {
                name: Score(float(s["score"]), float(s["stderr"]), int(s["examples"])) for name, s in found.items()
            }
            for split, found in body["scores"].items()
        },
    )


def _source(model: ModelSource) -> dict[str, str]:
    return {"path": model.path, "digest": model.digest}


def _score(score: Score) -> dict[str, float | int]:
    return {"score": float(score.value), "stderr": float(score.stderr), "examples": int(score.n)}
