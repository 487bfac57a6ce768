"""Export a study's candidate: checkpoint, recipe.yaml, mergekit.yaml, model card, and a row in the store."""

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mergesearch.checkpoints.adapter import Expert
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import SpecError, StoreError
from mergesearch.export.card import CARD_FILE, PICTURE_FILE, CardFacts, model_card
from mergesearch.export.checkpoint import SHARD_BYTES, MergePlan, tied_twice, write_checkpoint
from mergesearch.export.folder import RECIPE_FILE, new_folder
from mergesearch.export.mergekit import MERGEKIT_FILE, OTHER_DRAW, MergekitConfig, MergekitModels, mergekit_config
from mergesearch.export.provenance import ModelSource, Provenance
from mergesearch.export.select import describe_candidate
from mergesearch.operators.base import Layout
from mergesearch.results import Results
from mergesearch.store.base import Artifact, StudyStore
from mergesearch.stored import StoredStudy
from mergesearch.study.resolve import ResolvedStudy
from mergesearch.types import Split

KIND = "export"
BASE = ""
"""Stands for the base among the names of models: no expert can be called so."""


class Plot(Protocol):
    """Draws the front of a study into a PNG file, the candidate `chosen` marked."""

    def __call__(self, results: Results, path: Path, *, chosen: int | None) -> object: ...


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote. `models` maps each expert whose head was exported to its model folder; the key '' is the
    export's folder itself. `notes` are sentences for people, such as why there is no mergekit.yaml."""

    folder: Path
    candidate: int
    models: Mapping[str, Path]
    sha256: str
    notes: tuple[str, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The model folders: what `from_pretrained` takes."""
        return tuple(self.models.values())


def export_study(
    resolved: ResolvedStudy,
    study: StoredStudy,
    store: StudyStore,
    number: int,
    to: Path,
    *,
    plot: Plot | None = None,
    force: bool = False,
    shard_bytes: int = SHARD_BYTES,
    clock: Callable[[], float] = time.time,
) -> ExportResult:
    """Build candidate `number` of a study and write it to the folder `to`, which appears when all of it is written.

    Args:
        plot: draws front.png where the study has two objectives or more; None leaves it out.
        force: replace an earlier export at `to`.
        shard_bytes: size above which weights are cut into shards.

    Raises:
        SpecError: `to` is taken. CheckpointError: a full disk, a missing model. EvaluationError: cannot be built.
    """
    plan = study_plan(resolved, study.results, number)
    made = study_provenance(study, number, plan)
    mergekit = plan_mergekit(plan)
    notes = []
    with new_folder(to, force) as folder:
        models = write_checkpoint(plan, folder, shard_bytes)
        (folder / RECIPE_FILE).write_text(made.to_yaml(), encoding="utf-8")
        if mergekit.text is not None:
            (folder / MERGEKIT_FILE).write_text(mergekit.text, encoding="utf-8")
        if plot is not None and len(study.results.objectives) > 1:
            try:
                plot(study.results, folder / PICTURE_FILE, chosen=number)
            except SpecError as error:  # more objectives than one picture shows
                notes.append(f"there is no {PICTURE_FILE}: {error}")
        facts = CardFacts(
            provenance=made,
            results=study.results,
            examples=lambda at, split: store.examples(study.record.name, at, split),
            folders=plan.folders,
            architectures={head: architecture(plan.source(head)) for head in plan.folders},
            mergekit=mergekit,
            picture=(folder / PICTURE_FILE).is_file(),
        )
        (folder / CARD_FILE).write_text(model_card(facts), encoding="utf-8")
        relative = {head: path.relative_to(folder) for head, path in models.items()}
        digest = folder_digest(folder)
    if mergekit.text is None:
        notes.append(f"there is no {MERGEKIT_FILE}: mergekit cannot express this merge, since {mergekit.why_not}")
    elif mergekit.seed is not None:
        notes.append(f"{MERGEKIT_FILE}: {OTHER_DRAW}")
    place = to.absolute()
    try:
        store.add_artifact(study.record.name, Artifact(number, KIND, str(place), digest, clock()))
    except StoreError as error:
        notes.append(f"the export is whole, but the store does not know of it: {error}")
    return ExportResult(place, number, {h: place / p for h, p in relative.items()}, digest, tuple(notes))


def study_plan(resolved: ResolvedStudy, results: Results, number: int) -> MergePlan:
    """What an export of a study's candidate builds: its recipe, with the heads that the objectives wear."""
    worn = tuple(dict.fromkeys(o.head for o in resolved.spec.objectives if o.head is not None))
    recipe = resolved.recipe(results.candidates[number])
    return MergePlan(recipe, resolved.layout, resolved.base, resolved.experts, resolved.spec.merge.heads, worn)


def study_provenance(study: StoredStudy, number: int, plan: MergePlan) -> Provenance:
    """What recipe.yaml of a study's candidate holds."""
    outcomes = {split: study.results.outcome(number, split) for split in Split}
    return Provenance(
        recipe=plan.recipe,
        layout=plan.layout,
        base=_model(plan.base),
        experts={name: _model(model) for name, model in plan.experts.items()},
        heads=plan.heads,
        worn=plan.worn,
        study=study.record.name,
        candidate=number,
        origin=study.results.candidates[number].origin,
        why=describe_candidate(study, number),
        scores={split: outcome.scores for split, outcome in outcomes.items() if outcome is not None},
    )


def plan_mergekit(plan: MergePlan, folders: Mapping[str, str] | None = None) -> MergekitConfig:
    """mergekit's configuration of a plan, or why there is none.

    `folders`: what to call the models there, the base under ''; None takes the folders that were opened.
    """
    named = folders or {BASE: str(plan.base.folder), **{n: str(m.folder) for n, m in plan.experts.items()}}
    models = MergekitModels(
        base=named[BASE],
        experts={name: named[name] for name in plan.experts},
        architecture=architecture(plan.base),
        dtypes={name: str(plan.base.dtype(name)).removeprefix("torch.") for name in plan.base.names},
        sizes={name: math.prod(plan.base.shape(name)) for name in plan.base.names},
    )
    twice = tied_twice(plan)
    merged = {name: group for name, group in plan.layout.group_of.items() if name not in twice}
    layout = Layout(plan.layout.experts, plan.layout.groups, merged)
    return mergekit_config(plan.recipe, layout, models, heads_apart=bool(plan.heads))


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


def _model(model: Expert) -> ModelSource:
    return ModelSource(str(model.folder), model.digest)
