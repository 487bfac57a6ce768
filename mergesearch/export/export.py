"""Export a study's candidate: checkpoint, recipe.yaml, mergekit.yaml, model card, and a row in the store."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import StoreError
from mergesearch.export.card import CARD_FILE, PICTURE_FILE, CardFacts, model_card
from mergesearch.export.checkpoint import SHARD_BYTES, MergePlan, write_checkpoint
from mergesearch.export.folder import RECIPE_FILE, new_folder
from mergesearch.export.mergekit import MERGEKIT_FILE, MergekitConfig, MergekitModels, mergekit_config
from mergesearch.export.provenance import ModelSource, Provenance
from mergesearch.export.select import Choice
from mergesearch.results import Results
from mergesearch.store.base import Artifact, StudyStore
from mergesearch.study.resolve import ResolvedStudy
from mergesearch.types import Split

KIND = "export"

Plot: TypeAlias = Callable[[Results, int, Path], None]
"""Draws the front, the exported candidate marked, into a PNG file."""


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote. `models` maps each expert whose head was exported to its model folder; the key '' is the
    export's folder itself. `notes` are sentences for people, such as why there is no mergekit.yaml."""

    folder: Path
    candidate: int
    models: Mapping[str, Path]
    sha256: str
    notes: tuple[str, ...]


def export_study(
    resolved: ResolvedStudy,
    results: Results,
    store: StudyStore,
    choice: Choice,
    to: Path,
    now: float,
    *,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
    plot: Plot | None = None,
) -> ExportResult:
    """Build a candidate of a study and write it to the folder `to`, which appears when all of it is written.

    Args:
        now: seconds since the epoch, for the store's record. shard_bytes: size above which weights are cut into shards.
        force: replace an earlier export at `to`. plot: draws front.png; None leaves it out.

    Raises:
        SpecError: `to` is taken. CheckpointError: a full disk, a missing model. EvaluationError: cannot be built.
    """
    plan = study_plan(resolved, results, choice)
    made = study_provenance(resolved, results, choice, plan)
    mergekit = plan_mergekit(plan)
    with new_folder(to, force) as folder:
        models = write_checkpoint(plan, folder, shard_bytes)
        (folder / RECIPE_FILE).write_text(made.to_yaml(), encoding="utf-8")
        if mergekit.text is not None:
            (folder / MERGEKIT_FILE).write_text(mergekit.text, encoding="utf-8")
        if plot is not None:
            plot(results, choice.number, folder / PICTURE_FILE)
        facts = CardFacts(
            provenance=made,
            results=results,
            examples=lambda number, split: store.examples(resolved.spec.name, number, split),
            folders=plan.folders,
            architectures={head: architecture(plan.source(head)) for head in plan.folders},
            mergekit=mergekit,
            picture=(folder / PICTURE_FILE).is_file(),
        )
        (folder / CARD_FILE).write_text(model_card(facts), encoding="utf-8")
        relative = {head: path.relative_to(folder) for head, path in models.items()}
        digest = folder_digest(folder)
    notes = [f"candidate {choice.number}: {choice.why}"]
    if mergekit.text is None:
        notes.append(f"there is no {MERGEKIT_FILE}: mergekit cannot express this merge, since {mergekit.why_not}")
    place = to.absolute()
    try:
        store.add_artifact(resolved.spec.name, Artifact(choice.number, KIND, str(place), digest, now))
    except StoreError as error:
        notes.append(f"the export is whole, but the store does not know of it: {error}")
    return ExportResult(place, choice.number, {h: place / p for h, p in relative.items()}, digest, tuple(notes))


def study_plan(resolved: ResolvedStudy, results: Results, choice: Choice) -> MergePlan:
    """What an export of a study's candidate builds: its recipe, with the heads that the objectives wear."""
    worn = tuple(dict.fromkeys(o.head for o in resolved.spec.objectives if o.head is not None))
    recipe = resolved.recipe(results.candidates[choice.number])
    return MergePlan(recipe, resolved.layout, resolved.base, resolved.experts, resolved.spec.merge.heads, worn)


def study_provenance(resolved: ResolvedStudy, results: Results, choice: Choice, plan: MergePlan) -> Provenance:
    """What recipe.yaml of a study's candidate holds."""
    outcomes = {split: results.outcome(choice.number, split) for split in Split}
    return Provenance(
        recipe=plan.recipe,
        layout=plan.layout,
        base=_model(plan.base),
        experts={name: _model(model) for name, model in plan.experts.items()},
        heads=plan.heads,
        worn=plan.worn,
        study=resolved.spec.name,
        candidate=choice.number,
        origin=results.candidates[choice.number].origin,
        why=choice.why,
        scores={split: outcome.scores for split, outcome in outcomes.items() if outcome is not None},
    )


def plan_mergekit(plan: MergePlan) -> MergekitConfig:
    """mergekit's configuration of a plan, or why there is none."""
    models = MergekitModels(
        base=str(plan.base.folder),
        experts={name: str(model.folder) for name, model in plan.experts.items()},
        architecture=architecture(plan.base),
        dtypes={name: str(plan.base.dtype(name)).removeprefix("torch.") for name in plan.base.names},
        sizes={name: math.prod(plan.base.shape(name)) for name in plan.base.names},
    )
    return mergekit_config(plan.recipe, plan.layout, models, heads_apart=bool(plan.heads))


def architecture(model: Checkpoint) -> str:
    """The class that config.json names, '' where it names none."""
    return next(iter(model.config.get("architectures") or ()), "")


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and the SHA-256 of every file of a folder, in the order of the names."""
    lines = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.relative_to(folder).as_posix()}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _model(model: Checkpoint) -> ModelSource:
    return ModelSource(str(model.folder), model.digest)
