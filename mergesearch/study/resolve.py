"""A study file and its models' headers, put together: space, layout, objectives, recipes. No weight is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from mergesearch.checkpoints.adapted import Renamed, targets
from mergesearch.checkpoints.adapter import AdapterFolder, Expert, open_expert
from mergesearch.checkpoints.compare import compare, is_head
from mergesearch.checkpoints.groups import group_tensors
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError, SpecError
from mergesearch.merging import make_operator, wrong_experts
from mergesearch.operators.base import Layout
from mergesearch.plugins import load
from mergesearch.pool.live import names_in_files
from mergesearch.pool.setup import ObjectiveSetup, WorkerSetup
from mergesearch.pool.worker import MergeWorker, whole_model
from mergesearch.recipe import Recipe
from mergesearch.results import BASE, BASELINE, EXPERT, LAMBDA, UNIFORM
from mergesearch.scorers import SCORERS
from mergesearch.space import KnobRange, SearchSpace, Settings, build_space
from mergesearch.study.spec import StudySpec, folder
from mergesearch.types import Candidate, Guide, Objective


@dataclass(frozen=True, eq=False)
class ResolvedStudy:
    """All that follows from a spec and the headers of its models. `root` is what relative paths are relative to."""

    spec: StudySpec
    root: Path
    base: Checkpoint
    experts: Mapping[str, Expert]
    layout: Layout
    space: SearchSpace
    objectives: tuple[Objective, ...]

    @property
    def baselines(self) -> tuple[str, ...]:
        """Origins of the baselines, in the order they are evaluated; none for a control, whose study has them."""
        if self.spec.control_of:
            return ()
        experts = tuple(f"{EXPERT}{name}" for name in self.spec.models.experts)
        return (BASE, *experts, UNIFORM, *(f"{LAMBDA}{value:g}" for value in self.spec.baselines.lambdas))

    def recipe(self, candidate: Candidate) -> Recipe:
        """What is built for a candidate: its point decoded, or a baseline's fixed task arithmetic.

        With adapters as experts that is `lora_soups`, which makes the same of their factors.
        """
        if candidate.point is None:
            return self._baseline(candidate.origin.removeprefix(BASELINE))
        return self._recipe(self.spec.merge.operator, self.space.decode(candidate.point), self.spec.merge.options)

    def _recipe(self, operator: str, settings: Settings, options: Mapping[str, object]) -> Recipe:
        return Recipe(operator, self.layout.experts, self.layout.groups, settings, options)

    def _baseline(self, name: str) -> Recipe:
        kind, _, value = name.partition(":")
        experts = self.layout.experts
        if kind == "expert":
            row = [float(expert == value) for expert in experts]
        else:
            same = {"base": 0.0, "uniform": 1.0 / len(experts)}.get(kind)
            row = [float(value) if same is None else same] * len(experts)
        table = np.tile(row, (len(self.layout.groups), 1))
        adapters = any(isinstance(expert, AdapterFolder) for expert in self.experts.values())
        operator = "lora_soups" if adapters else "task_arithmetic"
        return self._recipe(operator, {"coefficient": table, "scale": np.ones_like(table)}, {})

    def digests(self) -> dict[str, str]:
        """Model name -> digest of its weights, the base as 'base'."""
        return {"base": self.base.digest, **{f"expert:{n}": c.digest for n, c in self.experts.items()}}

    def worker_setup(self, device: str = "auto", threads: int | None = None) -> WorkerSetup:
        """What a worker needs to build and score candidates; picklable."""
        spec = self.spec
        return WorkerSetup(
            base=folder(self.root, spec.models.base),
            experts={name: folder(self.root, path) for name, path in spec.models.experts.items()},
            heads=spec.merge.heads,
            layout=self.layout,
            objectives=tuple(
                ObjectiveSetup(
                    o.name, o.scorer, dict(o.data), _metric(o.scorer, o.metric), o.head, o.rebuild, o.teacher
                )
                for o in spec.objectives
            ),
            root=self.root,
            seed=spec.strategy.seed,
            device=device,
            threads=threads,
            space=self.space,
        )

    def worker(self, device: str = "auto", threads: int | None = None) -> "WorkerOf":
        """A picklable factory of workers."""
        return WorkerOf(self.worker_setup(device, threads))


@dataclass(frozen=True)
class WorkerOf:
    """WorkerFactory: builds a MergeWorker in whichever process calls it."""

    setup: WorkerSetup

    def __call__(self) -> MergeWorker:
        return MergeWorker(self.setup)


def _metric(scorer: str, metric: str | None) -> str:
    return metric or next(iter(load("scorer", SCORERS, scorer).METRICS))


def resolve(spec: StudySpec, root: Path) -> ResolvedStudy:
    """Open the headers of a spec's models and build its space.

    Raises:
        CheckpointError: a model is missing or does not fit the others, one line for each mismatch.
        SpecError: groups, fix or tie that match nothing; an operator that does not merge experts of this kind.
    """
    base = Checkpoint.open(folder(root, spec.models.base))
    experts = {name: open_expert(folder(root, path)) for name, path in spec.models.experts.items()}
    adapters = {name: isinstance(expert, AdapterFolder) for name, expert in experts.items()}
    operator = make_operator(spec.merge.operator, spec.merge.options)
    if fault := wrong_experts(spec.merge.operator, operator, adapters):
        raise SpecError(fault)
    for head in {o.head: None for o in spec.objectives if o.head is not None}:
        whole_model(head, experts)
    renamed = cache(partial(names_in_files, base))
    mismatches = compare(base, experts, spec.merge.heads, renamed)
    if mismatches:
        raise CheckpointError("\n".join(mismatches))
    among = _adapted(base, experts, spec.merge.heads, renamed)
    grouping = group_tensors(base, spec.space.groups, spec.merge.heads, among)
    layout = Layout(tuple(experts), grouping.groups, grouping.group_of)
    return ResolvedStudy(spec, root, base, experts, layout, _space(spec, layout), objectives_of(spec))


def _adapted(
    base: Checkpoint, experts: Mapping[str, Expert], heads: Sequence[str], renamed: Renamed
) -> list[str] | None:
    """The tensors that some adapter changes, None where the experts are whole models."""
    adapters = {name: expert for name, expert in experts.items() if isinstance(expert, AdapterFolder)}
    if not adapters:
        return None
    names = {tensor for name, adapter in adapters.items() for tensor in targets(adapter, base, name, renamed)}
    return sorted(name for name in names if not is_head(name, heads))


def _space(spec: StudySpec, layout: Layout) -> SearchSpace:
    knobs = make_operator(spec.merge.operator, spec.merge.options).KNOBS
    searched = {}
    named = spec.space.searched
    for knob in knobs:
        init = knob.start(len(layout.experts))
        if knob.name in named:
            given = named[knob.name]
            start = init if given.init is None else given.init
            start = min(max(start, given.low), given.high) if given.init is None else start
            searched[knob.name] = KnobRange(
                given.low, given.high, start, given.per or knob.per, given.scale or knob.scale, knob.whole
            )
        elif knob.searched and knob.name not in spec.space.held:
            top = knob.top(len(layout.experts))
            searched[knob.name] = KnobRange(knob.low, top, init, knob.per, knob.scale, knob.whole)
    space = spec.space
    return build_space(knobs, layout.experts, layout.groups, searched, space.held, space.fix, space.tie, space.start)


def objectives_of(spec: StudySpec) -> tuple[Objective, ...]:
    """The objectives with direction and bounds from their scorers' metrics."""
    found = []
    for objective in spec.objectives:
        metrics = load("scorer", SCORERS, objective.scorer).METRICS
        metric = metrics[_metric(objective.scorer, objective.metric)]
        guide = None
        if objective.guide is not None:
            smooth = metrics[objective.guide]
            guide = Guide(objective.guide, smooth.direction, smooth.low, smooth.high)
        found.append(Objective(objective.name, metric.direction, objective.weight, metric.low, metric.high, guide))
    return tuple(found)
