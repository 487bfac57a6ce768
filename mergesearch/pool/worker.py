"""The worker of a study of merges: builds each recipe into one live model, in place, and scores it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.building import CandidateBuilder
from mergesearch.checkpoints.adapted import load_adapted
from mergesearch.checkpoints.adapter import AdapterFolder, Expert, ExpertTensors, open_expert
from mergesearch.checkpoints.compare import is_head
from mergesearch.checkpoints.load import load_tensors
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError, EvaluationError, PoolError, SpecError
from mergesearch.merging import make_operator
from mergesearch.operators.base import Layout
from mergesearch.plugins import did_you_mean, load, parse_options
from mergesearch.pool.base import Job
from mergesearch.pool.jobs import one_sentence
from mergesearch.pool.live import Head, live_tensors, load_model, make_head, names_in_files, names_in_memory, wear
from mergesearch.recipe import Recipe
from mergesearch.scorers import SCORERS
from mergesearch.scorers.base import AnyScorer, BuildScorer, Built, ScorerContext
from mergesearch.space import Settings
from mergesearch.types import Failed, Outcome, Score, Scored, Split, Timing


@dataclass(frozen=True)
class ObjectiveSetup:
    """An objective as a worker sees it: `metric` of `scorer` on `data` (its options), wearing `head`'s head (None:
    the base's own), of the merged model or of the one that is rebuilt for the expert `rebuild`."""

    name: str
    scorer: str
    data: Mapping[str, object]
    metric: str
    head: str | None = None
    rebuild: str | None = None


@dataclass(frozen=True)
class WorkerSetup:
    """All that a MergeWorker is built from; picklable.

    `heads` are patterns of tensor names that are not merged. Relative data paths are relative to `root`; `seed` fixes
    the order of the examples. `device` is 'auto', 'cpu' or 'cuda'; `dtype` None takes the base's; `threads` None
    leaves torch's number of threads alone.
    """

    base: Path
    experts: Mapping[str, Path]
    heads: tuple[str, ...]
    layout: Layout
    objectives: tuple[ObjectiveSetup, ...]
    root: Path
    seed: int = 0
    device: str = "auto"
    dtype: str | None = None
    threads: int | None = None


@final
class MergeWorker:
    """Worker; see `pool/base.py`. Holds the base, the experts and one live model.

    The live model is of the class of the first expert whose head is worn (the base's class where none is), so a base
    that was pretrained for another purpose may have another head.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        """Load everything. Raises a MergesearchError where nothing can be evaluated."""
        if setup.threads is not None:
            torch.set_num_threads(setup.threads)
        self._setup = setup
        self._scorers = _scorers(setup)
        for scorer in self._scorers.values():
            scorer.check()  # before the models, which take longer
        device = _device(setup.device)
        base = Checkpoint.open(setup.base)
        experts = {name: open_expert(setup.experts[name]) for name in setup.layout.experts}
        asked = [o for o in setup.objectives if not isinstance(self._scorers[_scorer_key(o)], BuildScorer)]
        whole = {o.head: whole_model(o.head, experts) if o.head is not None else base for o in asked}
        skeleton = next((model for head, model in whole.items() if head is not None), base)
        merged = sorted(setup.layout.group_of)
        dtype = setup.dtype or str(base.dtype(merged[0])).removeprefix("torch.")
        self._model = load_model(skeleton.folder, skeleton.config.get("architectures") or (), device, dtype)
        self._wear_base(base)
        self._live = live_tensors(self._model, merged)
        self._base = _tensors(base, self._live)
        self._experts = [self._expert(name, experts[name], base) for name in setup.layout.experts]
        self._heads = {head: self._head(model) for head, model in whole.items()}
        self._builders: dict[str, CandidateBuilder] = {}
        self._last = ""

    def evaluate(self, job: Job) -> Outcome:
        """Build the job's recipe and score every objective on its split."""
        begin = built = perf_counter()
        outcome: Outcome
        try:
            builder, settings = self._build(job.work)
            built = perf_counter()
            outcome = self._score(job.split, builder, settings)
        except Exception as error:  # noqa: BLE001 - whatever a candidate raises is its own failure, not the study's
            outcome = Failed(type(error).__name__, one_sentence(error))
        return replace(outcome, timing=Timing(build=built - begin, score=perf_counter() - built))

    def _build(self, recipe: object) -> tuple[CandidateBuilder, Settings]:
        """Write the candidate into the live model; returns its builder and settings."""
        if not isinstance(recipe, Recipe):
            raise EvaluationError("a merge worker builds recipes, this job holds plain values")
        layout = self._setup.layout
        if (recipe.experts, recipe.groups) != (layout.experts, layout.groups):
            raise EvaluationError("the recipe's experts and groups are not, in this order, those of the study's layout")
        key = json.dumps([recipe.operator, dict(recipe.options)], sort_keys=True, default=str)
        if key not in self._builders:
            operator = make_operator(recipe.operator, recipe.options)
            self._builders[key] = CandidateBuilder(operator, self._base, self._experts, layout, self._live)
        elif key != self._last:
            self._builders[key].forget()  # another operator wrote into the live model since
        self._last = ""  # if this build fails half-way, the next must not trust what is there
        self._builders[key].build(recipe.settings)
        self._last = key
        return self._builders[key], recipe.settings

    def _score(self, split: Split, builder: CandidateBuilder, settings: Settings) -> Scored | Failed:
        given: dict[str, Mapping[str, NDArray[np.float32]]] = {}
        stands: str | None = None  # whose model is live: the merged one comes first
        for objective in sorted(self._setup.objectives, key=lambda o: o.rebuild or ""):
            key, scorer = _scorer_key(objective), self._scorers[_scorer_key(objective)]
            if key in given:
                continue
            if isinstance(scorer, BuildScorer):
                given[key] = scorer.score_build(Built(builder.stored_bytes(settings)))
                continue
            if objective.rebuild is not None and objective.rebuild != stands:
                builder.rebuild(settings, self._setup.layout.experts.index(objective.rebuild))
                stands = objective.rebuild
            wear(self._model, self._heads[objective.head])
            given[key] = scorer.score(self._model, split)
        scores, metrics, examples = {}, {}, {}
        for objective in self._setup.objectives:
            values = given[_scorer_key(objective)]
            for metric in (objective.metric, *values):
                if not np.isfinite(values[metric]).all():
                    return Failed(
                        "not_finite", f"objective {objective.name!r}: {metric} is not finite on {split.value}"
                    )
            metrics[objective.name] = {metric: mean_score(array) for metric, array in values.items()}
            scores[objective.name] = metrics[objective.name][objective.metric]
            examples[objective.name] = values[objective.metric]
        return Scored(scores, metrics, examples)

    def _wear_base(self, base: Checkpoint) -> None:
        """Bring everything but heads to the base's values: what is not merged is the base's."""
        wanted = [name for name in base.names if not is_head(name, self._setup.heads)]
        memory = names_in_memory(self._model, wanted)
        state = self._model.state_dict()
        for name, place in memory.items():
            if tuple(state[place].shape) == tuple(base.shape(name)):
                state[place].copy_(base.tensor(name))

    def _expert(self, name: str, expert: Expert, base: Checkpoint) -> ExpertTensors:
        """A whole model's merged tensors, or an adapter's factors on the live model's device."""
        if not isinstance(expert, AdapterFolder):
            return _tensors(expert, self._live)
        return load_adapted(expert, base, f"expert {name!r}", self._live, partial(names_in_files, base))

    def _head(self, checkpoint: Checkpoint) -> Head:
        like = next(iter(self._live.values()))
        names = [name for name in checkpoint.names if is_head(name, self._setup.heads)]
        if self._setup.heads and not names:
            raise CheckpointError(
                f"{checkpoint.folder}: no tensor matches merge.heads {', '.join(map(repr, self._setup.heads))}; "
                f"its last tensors are {', '.join(map(repr, checkpoint.names[-3:]))}"
            )
        loaded = load_tensors(checkpoint, names, like.device)
        return make_head(self._model, {name: tensor.to(like.dtype) for name, tensor in loaded.items()})


def whole_model(name: str, experts: Mapping[str, Expert]) -> Checkpoint:
    """The expert whose head is worn. Raises SpecError for an adapter, which has none."""
    expert = experts[name]
    if isinstance(expert, AdapterFolder):
        raise SpecError(f"expert {name!r} is a LoRA adapter, which has no head of its own: leave out 'head: {name}'")
    return expert


def mean_score(values: NDArray[np.float32]) -> Score:
    """Mean of per-example values (n,) with its standard error, std / sqrt(n); for accuracy that is sqrt(p(1-p)/n)."""
    exact = values.astype(np.float64)
    return Score(float(exact.mean()), float(exact.std() / np.sqrt(len(exact))), len(exact))


def _scorer_key(objective: ObjectiveSetup) -> str:
    """Objectives that differ in their metric alone share one scorer, and one pass over the data."""
    what = [objective.scorer, dict(objective.data), objective.head, objective.rebuild]
    return json.dumps(what, sort_keys=True, default=str)


def _scorers(setup: WorkerSetup) -> Mapping[str, AnyScorer]:
    """A scorer for each key. Raises SpecError for an unknown kind, option or metric."""
    found: dict[str, AnyScorer] = {}
    for objective in setup.objectives:
        kind = load("scorer", SCORERS, objective.scorer)
        options = parse_options(f"objective {objective.name!r}: data", kind.Options, objective.data)
        if objective.metric not in kind.METRICS:
            near = did_you_mean(objective.metric, kind.METRICS)
            raise SpecError(
                f"objective {objective.name!r}: {objective.scorer!r} has no metric {objective.metric!r}{near}"
            )
        model = setup.experts[objective.head] if objective.head is not None else setup.base
        found[_scorer_key(objective)] = kind(options, ScorerContext(model, setup.root, setup.seed))
    return found


def _device(asked: str) -> torch.device:
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked == "cuda" and not torch.cuda.is_available():
        raise PoolError(
            "the profile says device 'cuda', but the worker sees no GPU; set gpus_per_worker, or device: auto"
        )
    return torch.device(asked)


def _tensors(checkpoint: Checkpoint, live: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """A checkpoint's tensors under the names of `live`, on its device and of its dtype. Where neither changes they stay
    mapped from the files, so that workers of one machine share them. Raises CheckpointError for NaN and infinity."""
    device = next(iter(live.values())).device
    return {name: t.to(live[name].dtype) for name, t in load_tensors(checkpoint, list(live), device).items()}
