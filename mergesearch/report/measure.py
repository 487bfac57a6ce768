"""Reads a study's models for its report: their digests, how large and how alike the experts' changes are."""

from functools import partial
from pathlib import Path

from mergesearch.checkpoints.geometry import inner_products
from mergesearch.controller.launch import resolve_stored
from mergesearch.pool.live import names_in_files
from mergesearch.report.pool import Geometry, Pool
from mergesearch.store.base import StudyStore
from mergesearch.study.check import check_study
from mergesearch.study.source import Source


def measured_pool(pool: Pool, store: StudyStore, name: str) -> Pool:
    """The pool of a study of `store`, with its checks made again and all weights read.

    Raises:
        CheckpointError, SpecError: a model is not there any more, or unreadable, or no longer fits.
    """
    resolved = resolve_stored(store, name)
    layout = resolved.layout
    gram, base, numbers = inner_products(
        resolved.base, resolved.experts, layout.group_of, len(layout.groups), partial(names_in_files, resolved.base)
    )
    checked = check_study(resolved.spec, Source(f"study {name!r}", store.study(name).spec, Path(resolved.root)))
    findings = [*pool.findings, *(f"now: {f.level.value}: {f.sentence}" for f in checked.findings)]
    digests, missing = resolved.digests(), []
    changed = [model for model, digest in pool.digests.items() if digests.get(model) != digest]
    if changed:
        missing.append(f"Changed since the launch, so that the figures are of other models: {', '.join(changed)}.")
    geometry = Geometry(tuple(resolved.experts), gram, base, float(numbers.sum()))
    return Pool(pool.paths, digests, findings, geometry, missing)
