"""Build an exported merge again from its recipe.yaml alone: no study, no store, the same bits."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from mergesearch.checkpoints.adapter import Expert, open_expert
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError, SpecError
from mergesearch.export.checkpoint import SHARD_BYTES, MergePlan, write_checkpoint
from mergesearch.export.folder import RECIPE_FILE, new_folder
from mergesearch.export.provenance import BASE_MODEL, ModelSource, Provenance, read_provenance
from mergesearch.plugins import did_you_mean


def rebuild(
    recipe: Path | str,
    to: Path | str,
    *,
    models: Mapping[str, Path | str] | None = None,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
) -> dict[str, Path]:
    """Build the merge of a recipe.yaml (or of the export folder that holds one) into the folder `to`.

    Args:
        models: 'base' or an expert's name -> where that model stands now, for those that were moved.

    Returns:
        expert whose head is worn ('' for none) -> model folder.

    Raises:
        SpecError: no readable recipe, or `to` is taken. CheckpointError: a model is missing, or is another one now.

    >>> from mergesearch.export import rebuild
    >>> rebuild("merged/recipe.yaml", "again", models={"base": "models/base"})  # doctest: +SKIP
    {'': PosixPath('again')}
    """
    source = Path(recipe)
    made = read_provenance(source)
    plan = open_plan(made, models or {})
    with new_folder(Path(to), force) as folder:
        written = write_checkpoint(plan, folder, shard_bytes)
        shutil.copyfile(source / RECIPE_FILE if source.is_dir() else source, folder / RECIPE_FILE)
        relative = {head: path.relative_to(folder) for head, path in written.items()}
    return {head: Path(to) / path for head, path in relative.items()}


def open_plan(made: Provenance, moved: Mapping[str, Path | str]) -> MergePlan:
    """What to build, its models opened and checked against their digests."""
    known = [BASE_MODEL, *made.experts]
    for name in moved:
        if name not in known:
            raise SpecError(f"the recipe has no model {name!r}{did_you_mean(name, known)}")
    base = _open(BASE_MODEL, made.base, moved)
    if not isinstance(base, Checkpoint):
        raise CheckpointError(f"the base at {str(base.folder)!r} is a LoRA adapter now; give the model itself")
    experts = {name: _open(name, model, moved) for name, model in made.experts.items()}
    return MergePlan(made.recipe, made.layout, base, experts, made.heads, made.worn)


def _open(name: str, model: ModelSource, moved: Mapping[str, Path | str]) -> Expert:
    place = Path(moved.get(name, model.path))
    if not place.is_dir():
        raise CheckpointError(
            f"model {name!r} is not at {str(place)!r} any more; say where it is: models={{{name!r}: ...}}"
        )
    found = open_expert(place)
    if found.digest != model.digest:
        raise CheckpointError(
            f"model {name!r} at {str(place)!r} is another one now: its weights have digest {found.digest[:12]}, "
            f"the recipe was made with {model.digest[:12]}"
        )
    return found
