"""The worker of a study of merges: builds each recipe into one live model, in place, and scores it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import cast, final

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.building import CandidateBuilder
from mergesearch.checkpoints.adapted import load_adapted
from mergesearch.checkpoints.adapter import AdapterFolder, Expert, ExpertTensors, open_expert
from mergesearch.checkpoints.compare import is_head
from mergesearch.checkpoints.load import load_tensors
from mergesearch.checkpoints.reader import NOTHING_HELD, Checkpoint, Held
from mergesearch.errors import CheckpointError, EvaluationError, PoolError, SpecError
from mergesearch.merging import make_operator
from mergesearch.operators.base import Tensors
from mergesearch.pool.base import Job
from mergesearch.pool.gradients import no_gradients, slopes_of, tracked
from mergesearch.pool.jobs import one_sentence
from mergesearch.pool.live import (
    Head,
    live_parameters,
    live_tensors,
    load_model,
    make_head,
    names_in_files,
    names_in_memory,
    wear,
)
from mergesearch.pool.setup import ObjectiveSetup, WorkerSetup, make_scorers, scorer_key
from mergesearch.recipe import Recipe
from mergesearch.scorers.base import BuildScorer, Built, DifferentiableScorer
from mergesearch.space import Settings
from mergesearch.types import Failed, Outcome, Request, Score, Scored, Split, Timing, Vector

__all__ = ["MergeWorker", "ObjectiveSetup", "WorkerSetup", "mean_score", "whole_model"]


@final
class MergeWorker:
    """Worker; see `pool/base.py`. Holds the base, the experts and one live model.

    The live model is of the class of the first expert whose head is worn (the base's class where none is), so a base
    that was pretrained for another purpose may have another head.
    """

    def __init__(
        self, setup: WorkerSetup, held: Held = NOTHING_HELD, devices: Sequence[torch.device] | None = None
    ) -> None:
        """Load everything. Weight files may be `held` in memory, `devices` say over which to spread the live model
        (None: on one, as the setup says). Raises a MergesearchError where nothing can be evaluated."""
        if setup.threads is not None:
            torch.set_num_threads(setup.threads)
        self._setup = setup
        self._scorers = make_scorers(setup)
        for scorer in self._scorers.values():
            scorer.check()  # before the models, which take longer
        place = devices or _device(setup.device)
        base = Checkpoint.open(setup.base, held)
        experts = {name: open_expert(setup.experts[name], held) for name in setup.layout.experts}
        asked = [o for o in setup.objectives if not isinstance(self._scorers[scorer_key(o)], BuildScorer)]
        whole = {o.head: whole_model(o.head, experts) if o.head is not None else base for o in asked}
        skeleton = next((model for head, model in whole.items() if head is not None), base)
        merged = sorted(setup.layout.group_of)
        dtype = setup.dtype or str(base.dtype(merged[0])).removeprefix("torch.")
        weights = None if skeleton.on_disk else skeleton
        self._model = load_model(skeleton.folder, skeleton.config.get("architectures") or (), place, dtype, weights)
        self._wear_base(base)
        self._live = live_tensors(self._model, merged)
        self._parameters = live_parameters(self._model, self._live)
        self._base = _tensors(base, self._live)
        self._experts = [self._expert(name, experts[name], base) for name in setup.layout.experts]
        self._opened = experts
        self._heads = {head: self._head(model) for head, model in whole.items()}
        self._taught: set[tuple[str, Split, str]] = set()  # scorer, split and loss whose teacher has been asked
        self._builders: dict[str, CandidateBuilder] = {}
        self._last = ""

    def evaluate(self, job: Job) -> Outcome:
        """Build the job's recipe and score every objective on the examples asked for, with gradients if these are."""
        begin = built = perf_counter()
        outcome: Outcome
        try:
            if job.request.gradient:
                self._teach(job)
            builder, settings = self._build(job.work)
            built = perf_counter()
            outcome = self._score(job, builder, settings)
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

    def _score(self, job: Job, builder: CandidateBuilder, settings: Settings) -> Scored | Failed:
        given: dict[str, Mapping[str, NDArray[np.float32]]] = {}
        slopes: dict[str, Vector] = {}
        stands: str | None = None  # whose model is live: the merged one comes first
        with tracked(self._parameters if job.request.gradient else {}):
            for objective in sorted(self._setup.objectives, key=lambda o: o.rebuild or ""):
                key, scorer = scorer_key(objective), self._scorers[scorer_key(objective)]
                if key in given:
                    continue
                if isinstance(scorer, BuildScorer):
                    given[key] = scorer.score_build(Built(builder.stored_bytes(settings)))
                    continue
                if objective.rebuild is not None and objective.rebuild != stands:
                    builder.rebuild(settings, self._setup.layout.experts.index(objective.rebuild))
                    stands = objective.rebuild
                wear(self._model, self._heads[objective.head])
                if job.request.gradient:
                    given[key], slopes[key] = self._differentiated(job, objective, builder, settings)
                else:
                    whole = job.request == Request()
                    rows = None if whole else job.request.rows(scorer.count(job.split))
                    given[key] = scorer.score(self._model, job.split, rows)
        return _outcome(self._setup, job, given, slopes)

    def _differentiated(
        self, job: Job, objective: ObjectiveSetup, builder: CandidateBuilder, settings: Settings
    ) -> tuple[Mapping[str, NDArray[np.float32]], Vector]:
        """An objective's values, and the gradient (D,) of the mean of its differentiable loss."""
        scorer, space, loss = self._scorers[scorer_key(objective)], self._setup.space, job.request.gradient
        assert isinstance(scorer, DifferentiableScorer)
        assert space is not None
        assert job.point is not None  # `_teach` has looked
        rows = job.request.rows(scorer.count(job.split))
        slopes, values = slopes_of(self._model, self._parameters, scorer, job.split, rows, loss)
        return values, space.pull_back(job.point, builder.pull_back(settings, slopes)) / len(rows)

    def _teach(self, job: Job) -> None:
        """Make sure that gradients can be taken, and ask the teachers of a loss that needs them, once for a split.

        Raises:
            EvaluationError: they cannot.
        """
        loss, setup = job.request.gradient, self._setup
        if setup.space is None or job.point is None:
            raise EvaluationError("gradients are taken at a point of a search space; this job or this worker has none")
        if not isinstance(job.work, Recipe):
            raise EvaluationError("a merge worker builds recipes, this job holds plain values")
        operator = make_operator(job.work.operator, job.work.options)
        if fault := no_gradients(operator, setup, self._opened, self._scorers):
            raise EvaluationError(fault)
        for objective in setup.objectives:
            key, teacher = scorer_key(objective), objective.taught_by
            scorer = self._scorers[key]
            assert isinstance(scorer, DifferentiableScorer)
            if loss not in scorer.LOSSES:
                offered = ", ".join(map(repr, scorer.LOSSES))
                raise EvaluationError(
                    f"objective {objective.name!r} has no differentiable loss {loss!r}, scorer {objective.scorer!r} "
                    f"offers {offered}"
                )
            if not scorer.LOSSES[loss].teacher or (key, job.split, loss) in self._taught:
                continue
            if teacher is None:
                raise EvaluationError(
                    f"objective {objective.name!r}: the loss {loss!r} needs an expert to learn from; give it a head "
                    "or a teacher"
                )
            self._become(teacher)
            scorer.teach(self._model, job.split, loss)
            self._taught.add((key, job.split, loss))

    def _become(self, name: str) -> None:
        """Make the live model one expert, with its own head. What builds the next candidate then writes all of it."""
        tensors = cast("Tensors", self._experts[self._setup.layout.experts.index(name)])  # adapters were refused
        self._last = ""
        with torch.no_grad():
            for place, tensor in tensors.items():
                self._live[place].copy_(tensor)
        if name not in self._heads:
            self._heads[name] = self._head(whole_model(name, self._opened))
        wear(self._model, self._heads[name])

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
        dtype = next(iter(self._live.values())).dtype
        names = [name for name in checkpoint.names if is_head(name, self._setup.heads)]
        if self._setup.heads and not names:
            raise CheckpointError(
                f"{checkpoint.folder}: no tensor matches merge.heads {', '.join(map(repr, self._setup.heads))}; "
                f"its last tensors are {', '.join(map(repr, checkpoint.names[-3:]))}"
            )
        loaded = load_tensors(checkpoint, names)
        return make_head(self._model, {name: tensor.to(dtype) for name, tensor in loaded.items()})


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


def _outcome(
    setup: WorkerSetup, job: Job, given: Mapping[str, Mapping[str, NDArray[np.float32]]], slopes: Mapping[str, Vector]
) -> Scored | Failed:
    """The outcome of per-example values and gradients, both by scorer's key."""
    scores, metrics, examples, gradients = {}, {}, {}, {}
    for objective in setup.objectives:
        key = scorer_key(objective)
        values = given[key]
        where = f"objective {objective.name!r}"
        for metric in (objective.metric, *values):
            if not np.isfinite(values[metric]).all():
                return Failed("not_finite", f"{where}: {metric} is not finite on {job.split.value}")
        metrics[objective.name] = {metric: mean_score(array) for metric, array in values.items()}
        scores[objective.name] = metrics[objective.name][objective.metric]
        examples[objective.name] = values[objective.metric]
        if key in slopes:
            if not np.isfinite(slopes[key]).all():
                return Failed("not_finite", f"{where}: the gradient of {job.request.gradient} is not finite")
            gradients[objective.name] = slopes[key]
    return Scored(scores, metrics, examples, gradients)


def _device(asked: str) -> torch.device:
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked == "cuda" and not torch.cuda.is_available():
        raise PoolError(
            "the profile says device 'cuda', but the worker sees no GPU; set gpus_per_worker, or device: auto"
        )
    return torch.device(asked)


def _tensors(checkpoint: Checkpoint, live: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """A checkpoint's tensors under the names of `live`, each on its device and of its dtype. Where neither changes they
    stay mapped from the files, so that workers of one machine share them.

    Raises:
        CheckpointError: a tensor holds NaN or infinity.
    """
    loaded = {}
    for name, like in live.items():
        loaded[name] = load_tensors(checkpoint, [name])[name].to(like.device).to(like.dtype)
    return loaded
