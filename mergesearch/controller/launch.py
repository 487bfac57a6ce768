"""Launch and resume studies of merges: from a spec to a running controller."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mergesearch.controller.loop import Controller, Progress, StudyRun
from mergesearch.controller.search import make_strategy
from mergesearch.errors import SpecError, StudyNotFound
from mergesearch.pool.profile import Profile, open_pool
from mergesearch.results import Results
from mergesearch.store.base import StudyStore
from mergesearch.store.open import open_store
from mergesearch.stored import describe
from mergesearch.strategies.base import Problem
from mergesearch.study.check import make_scorer
from mergesearch.study.resolve import ResolvedStudy, resolve
from mergesearch.study.source import Source, parse_study, read_study
from mergesearch.study.spec import StudySpec
from mergesearch.types import Status

Watch = Callable[[Progress], None]


@dataclass(frozen=True, eq=False)
class Launched:
    """What a launch came to: the study as resolved from its models, and its results. The store is still open."""

    resolved: ResolvedStudy
    results: Results
    store: StudyStore


def launch(
    spec: Path | str,
    *,
    workers: Profile | None = None,
    store: StudyStore | None = None,
    watch: Watch | None = None,
) -> Launched:
    """Launch the study of a file and run it to its end in this process.

    Args:
        spec: path of a study file. workers: a profile; this process unless given. store: instead of the file's own.
        watch: called with the progress about twice a second.

    Raises:
        SpecError, CheckpointError, DataError: the study cannot be run; nothing was recorded.
        StoreError: a study of that name exists already (resume it), or the store refuses.
        StudyFailed, PoolError, LeaseError: see Controller.run.

    >>> import mergesearch
    >>> launched = mergesearch.launch("studies/smoke.yaml")  # doctest: +SKIP
    >>> launched.results.best  # doctest: +SKIP
    17
    """
    study, source = read_study(Path(spec))
    resolved = resolve(study, source.root)
    for objective in study.objectives:
        make_scorer(study, objective, source).check()
    store = store or open_store(study.store)
    create(store, resolved, source)
    return Launched(resolved, run(resolved, store, workers or Profile(), watch), store)


def resume(
    name: str,
    store: StudyStore,
    *,
    workers: Profile | None = None,
    watch: Watch | None = None,
) -> Launched:
    """Go on with a study of `store` where its log ends.

    Raises:
        StudyNotFound: no study of that name. SpecError: its models changed since the launch. Else as `launch`.
    """
    record = store.study(name)
    resolved = resolve_stored(store, name)
    if spec_digest(resolved) != record.digest:
        raise SpecError(
            f"study {name!r}: its models are no longer those it was launched with (their digests differ); "
            "bring the old checkpoints back, or launch a new study"
        )
    if record.status is not Status.DONE:
        return Launched(resolved, run(resolved, store, workers or Profile(), watch), store)
    return Launched(resolved, Results(resolved.objectives, store.events(name)), store)


def resolve_stored(store: StudyStore, name: str) -> ResolvedStudy:
    """The resolved study that stands in the store under `name`."""
    spec, root = stored_spec(store, name)
    return resolve(spec, root)


def stored_spec(store: StudyStore, name: str) -> tuple[StudySpec, Path]:
    """The spec that a study was launched with, and what its relative paths are relative to."""
    record = store.study(name)
    if not record.spec:
        raise StudyNotFound(f"study {name!r} is a black-box search: it has no study file to resume or export from")
    root = Path(str(store.facts(name).get("root", ".")))
    return parse_study(Source(f"study {name!r} in the store", record.spec, root)), root


def create(store: StudyStore, resolved: ResolvedStudy, source: Source) -> None:
    """Record a new study and what is needed to show it without its models."""
    spec = resolved.spec
    facts = describe(
        resolved.space,
        resolved.objectives,
        spec.budget.evaluations,
        spec.strategy.kind,
        root=str(source.root),
        merge={"operator": spec.merge.operator, "options": spec.merge.options},
        heads={o.name: o.head for o in spec.objectives},
    )
    store.create(spec.name, source.text, spec_digest(resolved), time.time(), facts)


def spec_digest(resolved: ResolvedStudy) -> str:
    """SHA-256 of what decides the results: the spec without its budget and store, and the models' digests."""
    body = resolved.spec.model_dump_json(exclude={"budget", "store", "name"})
    models = "".join(f"{name}={digest}\n" for name, digest in sorted(resolved.digests().items()))
    return hashlib.sha256((body + models).encode()).hexdigest()


def run(resolved: ResolvedStudy, store: StudyStore, workers: Profile, watch: Watch | None) -> Results:
    """Run a created study until it ends."""
    spec = resolved.spec
    told = tuple(objective.told for objective in resolved.objectives)
    problem = Problem(resolved.space.dim, told, resolved.space.start, spec.budget.evaluations)
    study = StudyRun(
        name=spec.name,
        objectives=resolved.objectives,
        evaluations=spec.budget.evaluations,
        strategy=make_strategy(spec.strategy.kind, problem, spec.strategy.seed, spec.strategy.options),
        work=resolved.recipe,
        baselines=resolved.baselines,
        finalists=spec.holdout.finalists,
        hours=spec.budget.hours,
        failures=spec.budget.failures,
    )
    pool = open_pool(workers, resolved.worker(workers.device, workers.threads_per_worker))
    try:
        return Controller(study, store, pool, watch).run()
    finally:
        pool.close()
