"""Launch and resume studies of merges: from a spec to a running controller."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

from mergesearch.controller.black_box import launch_black_box, resume_black_box, stored_black_box
from mergesearch.controller.lazy import LazyPool
from mergesearch.controller.loop import Controller, StudyRun
from mergesearch.controller.observer import Observer, Progress
from mergesearch.controller.owner import person
from mergesearch.errors import SpecError, StudyNotFound
from mergesearch.pool.profile import EXTERNAL, Profile, open_pool
from mergesearch.results import Results
from mergesearch.space import SearchSpace
from mergesearch.store.base import StudyStore
from mergesearch.store.open import open_store
from mergesearch.stored import describe
from mergesearch.strategies.make import make_strategy, needs
from mergesearch.study.black_box import BlackBoxSpec
from mergesearch.study.check import make_scorer
from mergesearch.study.controls import LABELS, control_name, control_study
from mergesearch.study.digests import StudyDigests, example_counter
from mergesearch.study.kinds import read_any
from mergesearch.study.limits import as_facts, changed, current
from mergesearch.study.problem import make_problem, missing
from mergesearch.study.resolve import ResolvedStudy, resolve
from mergesearch.study.source import Source, parse_study
from mergesearch.study.spec import Budget, StudySpec
from mergesearch.study.warm import WarmStart, started_as_stored, warm_start
from mergesearch.types import Status, Told


@dataclass(frozen=True, eq=False)
class Launched:
    """What a launch came to: the study as resolved from its models (None: it has none), and its results. The store is
    still open."""

    models: ResolvedStudy | None
    results: Results
    store: StudyStore

    @property
    def resolved(self) -> ResolvedStudy:
        """The study as resolved from its models. Raises SpecError if it has none."""
        if self.models is None:
            raise SpecError("this study has axes and no models: there is nothing to build")
        return self.models


def launch(
    spec: Path | str,
    *,
    workers: Profile | None = None,
    store: StudyStore | None = None,
    observers: Sequence[Observer] = (),
    limits: Mapping[str, object] | None = None,
) -> Launched:
    """Launch the study of a file and run it to its end in this process.

    Args:
        spec: path of a study file. workers: a profile; this process unless given. store: instead of the file's own.
        observers: told of each evaluation, and of the progress about twice a second.
        limits: in place of those of the file's `budget`, such as {"evaluations": 400, "target": {"accuracy": 0.9}}.

    Raises:
        SpecError, CheckpointError, DataError: the study cannot be run; nothing was recorded.
        StoreError: a study of that name exists already (resume it), or the store refuses.
        StudyFailed, PoolError, LeaseError: see Controller.run.

    >>> import mergesearch
    >>> launched = mergesearch.launch("studies/smoke.yaml")  # doctest: +SKIP
    >>> launched.results.best  # doctest: +SKIP
    17
    """
    study, source = read_any(Path(spec))
    if isinstance(study, BlackBoxSpec):
        store = store or open_store(study.store)
        return Launched(None, launch_black_box(study, source, store, workers or Profile(), observers, limits), store)
    study = _limited(study, limits)
    resolved = resolve(study, source.root)
    if why := missing(resolved):
        raise SpecError(f"{source.at(('strategy', 'kind'))}: {why}")
    for objective in study.objectives:
        make_scorer(study, objective, source).check()
    check_gpus(study.budget, workers or Profile())
    store = store or open_store(study.store)
    resolved, start = warm_start(resolved, store)
    create(store, resolved, source, start)
    launched = Launched(resolved, run(resolved, store, workers or Profile(), observers), store)
    run_controls(launched, workers or Profile(), observers)
    return launched


def resume(
    name: str,
    store: StudyStore,
    *,
    workers: Profile | None = None,
    observers: Sequence[Observer] = (),
    limits: Mapping[str, object] | None = None,
) -> Launched:
    """Go on with a study of `store` where its log ends.

    `limits` replace those of the study's budget, as in `launch`, from now on: they are kept with the study and stand
    for later resumes too; 'off' takes one away. A study that had ended goes on when they leave room for more: the
    search is continued as one that had the new budget from its start and was told what is in the log, so that a
    strategy which plans with its budget plans with the new one. Its recommendation, finalists and choice are made anew.
    What was asked stands, so a budget below it ends the search.

    Raises:
        StudyNotFound: no study of that name. SpecError: its models changed since the launch. Else as `launch`.
    """
    record = store.study(name)
    if (outside := stored_black_box(store, name)) is not None:
        return Launched(None, resume_black_box(outside, store, workers or Profile(), observers, limits), store)
    stored = resolve_stored(store, name)
    resolved = replace(stored, spec=_limited(stored.spec, limits))
    if spec_digest(resolved) != record.digest:
        raise SpecError(
            f"study {name!r}: its models are no longer those it was launched with (their digests differ); "
            "bring the old checkpoints back, or launch a new study"
        )
    if record.status is Status.DONE and resolved.spec.budget == stored.spec.budget:
        results = Results(resolved.objectives, store.events(name))
    else:
        check_gpus(resolved.spec.budget, workers or Profile())
        results = run(resolved, store, workers or Profile(), observers)
    launched = Launched(resolved, results, store)
    run_controls(launched, workers or Profile(), observers)
    return launched


def run_controls(launched: Launched, workers: Profile, observers: Sequence[Observer] = ()) -> None:
    """Run the controls of a study that is done, one after the other; those that are done already are left alone.

    They have the study's budget as it is now, so that a raised one is raised for them too. A target or a plateau is
    the study's own: a control goes on to the end of its budget.
    """
    name, store, budget = launched.resolved.spec.name, launched.store, launched.resolved.spec.budget
    equal = budget.model_copy(update={"target": {}, "plateau": None})
    if store.study(name).status is not Status.DONE:
        return
    there = {record.name: record.status for record in store.studies()}
    for control in launched.resolved.spec.controls:
        of = control_name(name, control)
        if of in there:
            resolved = resolve_stored(store, of)
            if there[of] is Status.DONE and resolved.spec.budget == equal:
                continue
            resolved = replace(resolved, spec=resolved.spec.model_copy(update={"budget": equal}))
        else:
            limited = launched.resolved.spec.model_copy(update={"budget": equal})
            spec, source = control_study(replace(launched.resolved, spec=limited), control)
            resolved = resolve(spec, source.root)
            create(store, resolved, source)
        run(resolved, store, workers, [_Labelled(observer, LABELS[control]) for observer in observers])


@final
class _Labelled(Observer):
    """An observer, told in the phase that it is a control it sees."""

    def __init__(self, observer: Observer, label: str) -> None:
        self._observer, self._label = observer, label

    def evaluated(self, study: str, told: Told, attempt: int) -> None:
        self._observer.evaluated(study, told, attempt)

    def repeated(self, study: str, told: Told, attempt: int) -> None:
        self._observer.repeated(study, told, attempt)

    def progressed(self, progress: Progress) -> None:
        self._observer.progressed(replace(progress, phase=f"control {self._label}: {progress.phase}"))


def resolve_stored(store: StudyStore, name: str) -> ResolvedStudy:
    """The resolved study that stands in the store under `name`."""
    spec, root = stored_spec(store, name)
    facts: dict[str, Any] = dict(store.facts(name))
    return started_as_stored(resolve(spec, root), SearchSpace.from_dict(facts["space"]))


def stored_spec(store: StudyStore, name: str) -> tuple[StudySpec, Path]:
    """The spec that a study was launched with, its budget as raised since, and what its relative paths are relative
    to."""
    record = store.study(name)
    if not record.spec:
        raise StudyNotFound(f"study {name!r} is a black-box search: it has no study file to resume or export from")
    facts = store.facts(name)
    if facts.get("outside"):
        raise SpecError(f"study {name!r} has axes and no models: there is nothing to build or export")
    root = Path(str(facts.get("root", ".")))
    spec = parse_study(Source(f"study {name!r} in the store", record.spec, root))
    spec = spec.model_copy(update={"budget": current(spec.budget, facts)})
    kind = facts.get("strategy")
    if "kind" not in spec.strategy.model_fields_set and isinstance(kind, str):  # the default was another one then
        spec = spec.model_copy(update={"strategy": spec.strategy.model_copy(update={"kind": kind})})
    return spec, root


def create(store: StudyStore, resolved: ResolvedStudy, source: Source, start: WarmStart | None = None) -> None:
    """Record a new study and what is needed to show it without its models. `start` says where a warm start is from."""
    spec = resolved.spec
    more: dict[str, Any] = {} if start is None else {"warm_start": asdict(start)}
    facts = describe(
        resolved.space,
        resolved.objectives,
        spec.budget.evaluations,
        spec.strategy.kind,
        root=str(source.root),
        by=person(),
        merge={"operator": spec.merge.operator, "options": spec.merge.options},
        heads={o.name: o.head for o in spec.objectives},
        controls={LABELS[control]: control_name(spec.name, control) for control in spec.controls},
        models=resolved.digests(),
        preflight=_preflight(resolved),
        **more,
    )
    store.create(spec.name, source.text, spec_digest(resolved), facts=facts | as_facts(spec.budget))


def _preflight(resolved: ResolvedStudy) -> list[str]:
    """What was looked at before the launch and found right; anything else would have been refused."""
    merged = sum(name in resolved.layout.group_of for name in resolved.base.names)
    names = ", ".join(o.name for o in resolved.objectives)
    return [f"base and {len(resolved.experts)} experts agree, {merged} tensors merged", f"the data fit: {names}"]


def check_gpus(budget: Budget, workers: Profile) -> None:
    """Raises SpecError where GPU-seconds are limited and the profile's workers hold no GPU."""
    if budget.gpu_seconds is None:
        return
    if not workers.options.model_dump().get("gpus_per_worker"):
        where = f"profile {workers.name!r}" if workers.name else "this process, the only worker,"
        raise SpecError(
            f"budget.gpu_seconds is {budget.gpu_seconds:g}, but {where} has no GPUs to count; set gpus_per_worker in a "
            "profile of pool ray, or limit hours or examples instead"
        )


def _limited(spec: StudySpec, limits: Mapping[str, object] | None) -> StudySpec:
    names = tuple(objective.name for objective in spec.objectives)
    return spec if not limits else spec.model_copy(update={"budget": changed(spec.budget, limits, names)})


def spec_digest(resolved: ResolvedStudy) -> str:
    """SHA-256 of what decides the results: the spec without its budget, store and cache, and the models' digests."""
    spec = resolved.spec
    # Keys that came later are left out where they are unset, so that studies of before can still be resumed.
    unset: dict[str, Any] = {} if spec.space.warm_start is not None else {"space": {"warm_start"}}
    unset |= {} if any(o.teacher for o in spec.objectives) else {"objectives": {"__all__": {"teacher"}}}
    aside = dict.fromkeys(("budget", "store", "cache", "name", "controls", "control_of"), True)
    body = spec.model_dump_json(exclude={**aside, **unset})
    models = "".join(f"{name}={digest}\n" for name, digest in sorted(resolved.digests().items()))
    return hashlib.sha256((body + models).encode()).hexdigest()


def run(resolved: ResolvedStudy, store: StudyStore, workers: Profile, observers: Sequence[Observer] = ()) -> Results:
    """Run a created study until it ends."""
    spec, budget = resolved.spec, resolved.spec.budget
    kind, options = spec.strategy.kind, spec.strategy.options
    outside = workers.pool == EXTERNAL
    problem = make_problem(resolved)
    if outside and not workers.options.model_dump()["gradients"]:
        problem = replace(problem, gradients=())
    if not outside:
        store.offers.withdraw(spec.name)  # those of an earlier controller, whose evaluations are made here now
    study = StudyRun(
        name=spec.name,
        objectives=resolved.objectives,
        evaluations=budget.evaluations,
        strategy=make_strategy(kind, problem, spec.strategy.seed, options),
        work=resolved.recipe,
        baselines=resolved.baselines,
        finalists=spec.holdout.finalists,
        hours=budget.hours,
        failures=budget.failures,
        gradient_cost=budget.gradient_cost,
        needs=needs(kind, options),
        examples=budget.examples,
        gpu_seconds=budget.gpu_seconds,
        target=budget.target,
        plateau=budget.plateau,
        count=example_counter(resolved),
        # What another program scores is not what our scorers would have said.
        digests=StudyDigests(resolved) if spec.cache and not outside else None,
        lasting=outside,
    )
    pool = LazyPool(lambda: open_pool(workers, resolved.worker(workers.device, workers.threads_per_worker), store))
    try:
        return Controller(study, store, pool, observers).run()
    finally:
        pool.close()
