"""What a report says beside the results: models, exports, the recipe. Read from the store once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mergesearch.export.stored_recipe import stored_recipe
from mergesearch.recipe import Recipe
from mergesearch.report.estimate import NOTHING
from mergesearch.report.grid import Grid, grid
from mergesearch.report.pool import Pool, stored_pool
from mergesearch.report.view import StudyView, view_of
from mergesearch.store.base import Artifact, StudyStore
from mergesearch.stored import StoredStudy, read_stored


@dataclass(frozen=True, eq=False)
class Background:
    """`pool` is None for a black box; `recipe` is that of the searched merge, `recipe_text` the same as YAML."""

    pool: Pool | None = None
    artifacts: Sequence[Artifact] = ()
    recipe: Recipe | None = None
    recipe_text: str = ""

    @property
    def displacement(self) -> float | None:
        """How far the searched merge is from the base; None where it is not known."""
        geometry = None if self.pool is None else self.pool.geometry
        return None if geometry is None or self.recipe is None else geometry.displacement(self.recipe)


def read_report(store: StudyStore, name: str, *, models: bool = False) -> tuple[StudyView, Background]:
    """A study and its background. `models`: read the checkpoints too, for digests, norms and angles.

    Raises:
        StudyNotFound: no study has that name. CheckpointError, SpecError: with `models`, they cannot be read.
    """
    study = read_stored(store, name)
    view = view_of(store, study)
    found = background(store, study, view.searched)
    if models and found.pool is not None:
        from mergesearch.report.measure import measured_pool

        found = replace(found, pool=measured_pool(found.pool, store, name))
    return view, found


def background(store: StudyStore, study: StoredStudy, searched: int | None) -> Background:
    """The background of a study, as its store alone knows it."""
    pool = stored_pool(_spec(study.record.spec), study.facts, study.record.name)
    recipe = text = None
    if searched is not None and study.space.slots and "merge" in study.facts:
        recipe, text = study.recipe(searched), stored_recipe(study, searched)
    return Background(pool, tuple(store.artifacts(study.record.name)), recipe, text or "")


def _spec(text: str) -> dict[str, Any]:
    """A study file's text as plain values; empty where it is none."""
    try:
        body = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return body if isinstance(body, dict) else {}


def export_grid(artifacts: Sequence[Artifact]) -> Grid | None:
    """Exports of the study: what stands where, and whether it is still what was written; None without any."""
    if not artifacts:
        return None
    rows = []
    for artifact in artifacts:
        there = "there" if Path(artifact.path).exists() else "not on this machine"
        rows.append([f"#{artifact.candidate}", artifact.kind, artifact.path, artifact.sha256[:16] or NOTHING, there])
    note = "Whether an export scores what the study's store says is not kept: `mergesearch score FOLDER STUDY.yaml` "
    note += "scores it again; the difference should lie within the score's standard error."
    return grid("Exports", ("merge", "kind", "path", "SHA-256", ""), rows, note)
