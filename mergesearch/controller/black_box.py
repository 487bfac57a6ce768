"""Launch and resume studies without models: the same controller, scored by programs outside."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mergesearch.controller.lazy import LazyPool
from mergesearch.controller.loop import Controller, StudyRun
from mergesearch.controller.observer import Observer
from mergesearch.controller.owner import person
from mergesearch.errors import SpecError
from mergesearch.pool.base import Worker
from mergesearch.pool.external import Options
from mergesearch.pool.profile import EXTERNAL, Profile, open_pool
from mergesearch.results import Results
from mergesearch.space import SearchSpace
from mergesearch.store.base import StudyStore
from mergesearch.stored import describe
from mergesearch.strategies.base import Strategy
from mergesearch.strategies.make import make_strategy, needs
from mergesearch.study.black_box import UNCOUNTED, BlackBoxSpec, is_black_box, parse_black_box
from mergesearch.study.limits import as_facts, changed, current
from mergesearch.study.outside import black_box_problem
from mergesearch.study.text import Source
from mergesearch.types import Candidate, Status, Vector


def launch_black_box(
    spec: BlackBoxSpec,
    source: Source,
    store: StudyStore,
    workers: Profile,
    observers: Sequence[Observer] = (),
    limits: Mapping[str, object] | None = None,
) -> Results:
    """Record a study without models in `store` and run it to its end; see `controller.launch.launch`."""
    spec = _limited(spec, limits)
    strategy = _strategy(spec, workers)
    facts = describe(
        spec.space,
        spec.wanted,
        spec.budget.evaluations,
        spec.strategy.kind,
        root=str(source.root),
        outside=True,
        by=person(),
    )
    store.create(spec.name, source.text, spec.digest, facts=facts | as_facts(spec.budget))
    return _run(spec, strategy, store, workers, observers)


def resume_black_box(
    spec: BlackBoxSpec,
    store: StudyStore,
    workers: Profile,
    observers: Sequence[Observer] = (),
    limits: Mapping[str, object] | None = None,
) -> Results:
    """Go on with a study without models; see `controller.launch.resume`. `spec` is as `stored_black_box` gave it."""
    record, before = store.study(spec.name), spec.budget
    spec = _limited(spec, limits)
    if spec.digest != record.digest:
        raise SpecError(f"study {spec.name!r} was launched by a version that read its file otherwise; launch it anew")
    if record.status is Status.DONE and spec.budget == before:
        return Results(spec.wanted, store.events(spec.name))
    return _run(spec, _strategy(spec, workers), store, workers, observers)


def stored_black_box(store: StudyStore, name: str) -> BlackBoxSpec | None:
    """The study without models that stands in the store under `name`, its budget as raised since; None if it has
    models, or no file at all. Raises StudyNotFound."""
    record, facts = store.study(name), store.facts(name)
    if not record.spec or not facts.get("outside") or not is_black_box(record.spec, name):
        return None
    root = Path(str(facts.get("root", ".")))
    spec = parse_black_box(Source(f"study {name!r} in the store", record.spec, root))
    return spec.model_copy(update={"budget": current(spec.budget, facts)})


def _limited(spec: BlackBoxSpec, limits: Mapping[str, object] | None) -> BlackBoxSpec:
    if not limits:
        return spec
    for key in UNCOUNTED:
        if limits.get(key) is not None:
            raise SpecError(f"limits: {key!r} of work done outside cannot be counted; limit evaluations or hours")
    names = tuple(objective.name for objective in spec.objectives)
    return spec.model_copy(update={"budget": changed(spec.budget, limits, names)})


def _strategy(spec: BlackBoxSpec, workers: Profile) -> Strategy:
    """Its strategy. Raises SpecError: another pool, or a strategy that cannot have what it needs."""
    if workers.pool != EXTERNAL or not isinstance(workers.options, Options):
        raise SpecError(
            f"study {spec.name!r} has axes and no models: programs outside score its candidates; give a profile with "
            "'pool: external', such as --workers workers/external.yaml"
        )
    problem = black_box_problem(spec, gradients=workers.options.gradients)
    return make_strategy(spec.strategy.kind, problem, spec.strategy.seed, spec.strategy.options)


def _run(
    spec: BlackBoxSpec, strategy: Strategy, store: StudyStore, workers: Profile, observers: Sequence[Observer]
) -> Results:
    budget, space = spec.budget, spec.space
    study = StudyRun(
        name=spec.name,
        objectives=spec.wanted,
        evaluations=budget.evaluations,
        strategy=strategy,
        work=lambda candidate: _values(space, candidate),
        hours=budget.hours,
        failures=budget.failures,
        gradient_cost=budget.gradient_cost,
        needs=needs(spec.strategy.kind, spec.strategy.options),
        target=budget.target,
        plateau=budget.plateau,
        lasting=True,
    )
    pool = LazyPool(lambda: open_pool(workers, _no_worker, store))
    try:
        return Controller(study, store, pool, observers).run()
    finally:
        pool.close()


def _values(space: SearchSpace, candidate: Candidate) -> Vector:
    assert candidate.point is not None, "a study without models has no baselines"
    return space.values(candidate.point)


def _no_worker() -> Worker:  # the factory of a pool that builds none
    raise AssertionError("a study without models has no workers of ours")
