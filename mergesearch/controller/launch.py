"""Launch and resume studies of merges: from a spec to a running controller."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mergesearch.controller.loop import Controller, Progress, StudyRun
from mergesearch.errors import SpecError, StudyNotFound
from mergesearch.pool.profile import Profile, open_pool
from mergesearch.results import Results
from mergesearch.space import SearchSpace
from mergesearch.store.base import StudyStore
from mergesearch.store.open import open_store
from mergesearch.stored import describe
from mergesearch.strategies.make import make_strategy, needs
from mergesearch.study.check import make_scorer
from mergesearch.study.controls import LABELS, control_name, control_study
from mergesearch.study.problem import make_problem, missing
from mergesearch.study.resolve import ResolvedStudy, resolve
from mergesearch.study.source import Source, parse_study, read_study
from mergesearch.study.spec import StudySpec
from mergesearch.study.warm import WarmStart, started_as_stored, warm_start
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
    if why := missing(resolved):
        raise SpecError(f"{source.at(('strategy', 'kind'))}: {why}")
    for objective in study.objectives:
        make_scorer(study, objective, source).check()
    store = store or open_store(study.store)
    resolved, start = warm_start(resolved, store)
    create(store, resolved, source, start)
    launched = Launched(resolved, run(resolved, store, workers or Profile(), watch), store)
    run_controls(launched, workers or Profile(), watch)
    return launched


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
    if record.status is Status.DONE:
        results = Results(resolved.objectives, store.events(name))
    else:
        results = run(resolved, store, workers or Profile(), watch)
    launched = Launched(resolved, results, store)
    run_controls(launched, workers or Profile(), watch)
    return launched


def run_controls(launched: Launched, workers: Profile, watch: Watch | None) -> None:
    """Run the controls of a study that is done, one after the other; those that are done already are left alone."""
    name, store = launched.resolved.spec.name, launched.store
    if store.study(name).status is not Status.DONE:
        return
    there = {record.name: record.status for record in store.studies()}
    for control in launched.resolved.spec.controls:
        of = control_name(name, control)
        if there.get(of) is Status.DONE:
            continue
        if of in there:
            resolved = resolve_stored(store, of)
        else:
            spec, source = control_study(launched.resolved, control)
            resolved = resolve(spec, source.root)
            create(store, resolved, source)
        run(resolved, store, workers, _labelled(watch, LABELS[control]))


def _labelled(watch: Watch | None, label: str) -> Watch | None:
    """The watcher, told in the phase that it is a control it sees."""
    if watch is None:
        return None
    return lambda progress: watch(replace(progress, phase=f"control {label}: {progress.phase}"))


def resolve_stored(store: StudyStore, name: str) -> ResolvedStudy:
    """The resolved study that stands in the store under `name`."""
    spec, root = stored_spec(store, name)
    facts: dict[str, Any] = dict(store.facts(name))
    return started_as_stored(resolve(spec, root), SearchSpace.from_dict(facts["space"]))


def stored_spec(store: StudyStore, name: str) -> tuple[StudySpec, Path]:
    """The spec that a study was launched with, and what its relative paths are relative to."""
    record = store.study(name)
    if not record.spec:
        raise StudyNotFound(f"study {name!r} is a black-box search: it has no study file to resume or export from")
    root = Path(str(store.facts(name).get("root", ".")))
    spec = parse_study(Source(f"study {name!r} in the store", record.spec, root))
    kind = store.facts(name).get("strategy")
    if "kind" not in spec.strategy.model_fields_set and isinstance(kind, str):  # the default was another one then
        spec = spec.model_copy(update={"strategy": spec.strategy.model_copy(update={"kind": kind})})
    return spec, root


def create(store: StudyStore, resolved: ResolvedStudy, source: Source, start: WarmStart | None = None) -> None:
    """Record a new study and what is needed to show it without its models. `start` says where a warm start is from."""
    spec = resolved.spec
    more = {} if start is None else {"warm_start": asdict(start)}
    facts = describe(
        resolved.space,
        resolved.objectives,
        spec.budget.evaluations,
        spec.strategy.kind,
        root=str(source.root),
        merge={"operator": spec.merge.operator, "options": spec.merge.options},
        heads={o.name: o.head for o in spec.objectives},
        controls={LABELS[control]: control_name(spec.name, control) for control in spec.controls},
        **more,
    )
    store.create(spec.name, source.text, spec_digest(resolved), time.time(), facts)


def spec_digest(resolved: ResolvedStudy) -> str:
    """SHA-256 of what decides the results: the spec without its budget and store, and the models' digests."""
    spec = resolved.spec
    # Keys that came later are left out where they are unset, so that studies of before can still be resumed.
    unset: dict[str, Any] = {} if spec.space.warm_start is not None else {"space": {"warm_start"}}
    unset |= {} if any(o.teacher for o in spec.objectives) else {"objectives": {"__all__": {"teacher"}}}
    aside = dict.fromkeys(("budget", "store", "name", "controls", "control_of"), True)
    body = spec.model_dump_json(exclude={**aside, **unset})
    models = "".join(f"{name}={digest}\n" for name, digest in sorted(resolved.digests().items()))
    return hashlib.sha256((body + models).encode()).hexdigest()


def run(resolved: ResolvedStudy, store: StudyStore, workers: Profile, watch: Watch | None) -> Results:
    """Run a created study until it ends."""
    spec = resolved.spec
    kind, options = spec.strategy.kind, spec.strategy.options
    study = StudyRun(
        name=spec.name,
        objectives=resolved.objectives,
        evaluations=spec.budget.evaluations,
        strategy=make_strategy(kind, make_problem(resolved), spec.strategy.seed, options),
        work=resolved.recipe,
        baselines=resolved.baselines,
        finalists=spec.holdout.finalists,
        hours=spec.budget.hours,
        failures=spec.budget.failures,
        gradient_cost=spec.budget.gradient_cost,
        needs=needs(kind, options),
    )
    pool = open_pool(workers, resolved.worker(workers.device, workers.threads_per_worker))
    try:
        return Controller(study, store, pool, watch).run()
    finally:
        pool.close()
