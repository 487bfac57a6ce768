"""One candidate: its scores, coefficients, neighbours, recipe and what was made of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, HTTPException, Query
from fastapi import Path as PathField

from mergesearch.export.stored_recipe import stored_recipe
from mergesearch.report.charts.differences import SEED, split_of, splits_of
from mergesearch.report.charts.heat import heights
from mergesearch.report.estimate import unit_of
from mergesearch.report.table import mean, name_of
from mergesearch.report.tasks import Pairing, TaskDifference, pairings, task_differences
from mergesearch.report.view import StudyView, marks
from mergesearch.results import BASE, BASELINE, EXPERT, LAMBDA, RECOMMENDED, UNIFORM
from mergesearch.store.base import Artifact
from mergesearch.stored import stored
from mergesearch.types import Candidate, Failed, Objective, Outcome, Score, Scored, Split
from mergesearch.web.api.candidate_model import (
    ArtifactOf,
    AxisOf,
    CandidateDetail,
    DifferenceOf,
    EvaluationOf,
    FailureOf,
    KnobOf,
    MetricOf,
    NeighbourOf,
    NeighboursOf,
    ObjectiveOf,
    RequestOf,
    ScoreOf,
    TimingOf,
)
from mergesearch.web.names import StudyName
from mergesearch.web.service import Service, ServiceOf

router = APIRouter(tags=["candidates"])

MOST = 2**31 - 1
Number = Annotated[int, PathField(ge=0, le=MOST, description="The candidate's number.")]
SplitQuery = Annotated[
    Split | None, Query(description="The split of the differences; the last one that was scored unless given.")
]
ERRORS: Mapping[int | str, dict[str, Any]] = {
    404: {"description": "No such study or candidate"},
    422: {"description": "The candidate is not scored on that split"},
}


@router.get(
    "/studies/{name}/candidates/{number}",
    summary="All of one candidate",
    operation_id="get_candidate",
    responses=dict(ERRORS),
)
def candidate(service: ServiceOf, name: StudyName, number: Number, split: SplitQuery = None) -> CandidateDetail:
    """Scores on every split, differences to every expert, coefficients, neighbours on the front, recipe, exports."""
    return detail(service, name, number, split)


def detail(service: Service, name: str, number: int, split: Split | None = None) -> CandidateDetail:
    """What the route answers; pages use it too. Raises StudyNotFound, HTTPException 404, SpecError."""
    with service.feeds.reading(name) as feed:
        view, facts = feed.view, service.store.facts(name)
        check_number(view, number)
        recipe = stored_recipe(stored(view.record, facts, view.results), number)
        compared = None
        pairs: list[Pairing] = []
        if split is not None or splits_of(view, number):
            compared = split_of(view, number, "" if split is None else split.value)
            pairs = pairings(view.results, number, compared)
        found = _without_differences(view, number)
        examples = view.examples
    # The bootstrap needs nothing that another request may change, so it does not hold up those who read the study.
    gains = task_differences(pairs, examples, np.random.Generator(np.random.Philox(SEED)))
    artifacts = [_artifact(a) for a in service.store.artifacts(name) if a.candidate == number]
    return found.model_copy(
        update={
            "difference_split": None if compared is None or not pairs else compared.value,
            "differences": [_difference(d) for d in gains],
            "artifacts": artifacts[::-1],
            "recipe": recipe,
        }
    )


def check_number(view: StudyView, number: int) -> None:
    """Raises HTTPException 404 where the study has no such candidate."""
    if number not in view.results.candidates:
        count = len(view.results.candidates)
        has = f"it has {count}, numbered from 0" if count else "it has none yet"
        raise HTTPException(404, f"study {view.record.name!r} has no candidate {number}; {has}")


def _without_differences(view: StudyView, number: int) -> CandidateDetail:
    results, found = view.results, view.results.candidates[number]
    settings = view.settings(number) or {}
    space = view.space
    tall = heights(view)
    start = view.start()
    marked = marks(view).get(number, "").split()
    return CandidateDetail(
        study=view.record.name,
        number=number,
        name=name_of(results, number),
        baseline=found.point is None,
        origin=found.origin,
        explanation=explanation(view, number),
        marks=marked + (["front"] if number in results.front else []),
        request=_request(found),
        objectives=[
            ObjectiveOf(name=o.name, direction=o.direction.value, weight=o.weight, percent=unit_of(o).percent)
            for o in results.objectives
        ],
        evaluations=_evaluations(view, number),
        difference_split=None,
        differences=[],
        neighbours=neighbours(view, number),
        experts=list(space.experts) if space is not None and settings else [],
        groups=list(space.groups) if space is not None and settings else [],
        knobs=[
            KnobOf(knob=k, searched=k in tall, values=table.tolist(), start=start[k].tolist(), height=tall.get(k, 0))
            for k, table in settings.items()
        ],
        axes=[] if settings else _axes(view, found),
        recipe=None,
        artifacts=[],
    )


def explanation(view: StudyView, number: int) -> str:
    """What a candidate is, in a sentence for people."""
    results = view.results
    origin = results.candidates[number].origin
    if origin == BASE:
        return "The base model as it is, nothing merged: every merge should beat it."
    if origin.startswith(EXPERT):
        return f"The expert {origin.removeprefix(EXPERT)!r} alone, nothing merged: a bar to reach on its own task."
    if origin == UNIFORM:
        return "All experts in equal shares, the simplest merge: a search should beat it."
    if origin.startswith(LAMBDA):
        return (
            f"All experts' changes added to the base, each times {origin.removeprefix(LAMBDA)}: one number for "
            "everything, the simplest merge that is tuned."
        )
    if origin.startswith(BASELINE):
        return f"A fixed merge to compare with: {origin.removeprefix(BASELINE)}."
    if number == view.chosen:
        return "The merge that the study chose, by its scores on the confirm split, which the search never saw."
    if origin == RECOMMENDED:
        return "What the strategy recommends at the end of its search."
    if (number, Split.SEARCH) not in results.outcomes:
        return "Asked for and not evaluated yet."
    if results.outcome(number) is None:
        return "Its evaluation failed; the message below says why."
    if not results.candidates[number].request.complete:
        return "Evaluated on a part of the examples only, so it is compared with no others."
    if number in results.front:
        return "On the front: no other merge of the search is at least as good everywhere and better somewhere."
    return "Not on the front: another merge is at least as good in every objective and better in one."


def neighbours(view: StudyView, number: int) -> list[NeighboursOf]:
    """The front's candidates next to one, by each objective on the search split; empty where it is not scored."""
    results = view.results
    own = results.losses(number)
    if own is None or not results.front or len(results.objectives) < 2:
        return []
    numbers, table = results.front_table()
    found = []
    for at, objective in enumerate(results.objectives):
        others = [(float(row[at]), n) for n, row in zip(numbers, table, strict=True) if n != number]
        here = (float(own[at]), number)
        worse = min((o for o in others if o > here), default=None)
        better = max((o for o in others if o < here), default=None)
        found.append(
            NeighboursOf(
                objective=objective.name,
                value=objective.score(here[0]),
                previous=_neighbour(objective, worse),
                next=_neighbour(objective, better),
            )
        )
    return found


def _neighbour(objective: Objective, found: tuple[float, int] | None) -> NeighbourOf | None:
    return None if found is None else NeighbourOf(number=found[1], value=objective.score(found[0]))


def _axes(view: StudyView, found: Candidate) -> list[AxisOf]:
    """The searched numbers, for a search that merges nothing."""
    space = view.space
    if space is None or found.point is None or space.slots:
        return []
    values = space.values(found.point)
    return [
        AxisOf(axis=a.name, value=float(v), start=a.init, low=a.low, high=a.high)
        for a, v in zip(space.axes, values, strict=True)
    ]


def _request(found: Candidate) -> RequestOf:
    request = found.request
    if found.point is None:
        said = "a baseline: it costs the budget nothing"
    elif request.complete and request.continues is None:
        said = "all examples"
    else:
        said = f"{100 * request.share:.3g} % of the examples"
        said += f", from {100 * request.offset:.3g} % on" if request.offset else ""
        said += f", continuing candidate {request.continues}" if request.continues is not None else ""
    said += f", with the gradient of its {request.gradient}" if request.gradient else ""
    return RequestOf(
        share=request.share,
        offset=request.offset,
        gradient=request.gradient,
        continues=request.continues,
        complete=request.complete,
        cost=found.cost if found.point is not None else 0.0,
        sentence=said,
    )


def _evaluations(view: StudyView, number: int) -> list[EvaluationOf]:
    results = view.results
    return [
        _evaluation(split, results.outcomes.get((number, split)), results.objectives)
        for split in Split
        if (number, split) in results.asked
    ]


def _evaluation(split: Split, outcome: Outcome | None, objectives: Sequence[Objective]) -> EvaluationOf:
    if outcome is None:
        return EvaluationOf(split=split.value, status="open")
    t = outcome.timing
    timing = TimingOf(queue=t.queue, build=t.build, score=t.score, record=t.record, gpu=t.gpu)
    if isinstance(outcome, Failed):
        failure = FailureOf(kind=outcome.kind, message=outcome.message)
        return EvaluationOf(split=split.value, status="failed", timing=timing, worker=outcome.worker, failure=failure)
    return EvaluationOf(
        split=split.value,
        status="scored",
        scores=[_score(o.name, outcome.scores[o.name]) for o in objectives],
        metrics=[
            MetricOf(metric=metric, **_score(objective, score).model_dump())
            for objective, named in outcome.metrics.items()
            for metric, score in named.items()
        ],
        mean=_mean(objectives, outcome),
        timing=timing,
        worker=outcome.worker,
    )


def _mean(objectives: Sequence[Objective], outcome: Scored) -> ScoreOf | None:
    if len(objectives) < 2:
        return None
    found = mean(tuple(objectives), outcome)
    return _score("mean", Score(found.value, found.stderr, sum(outcome.scores[o.name].n for o in objectives)))


def _score(objective: str, score: Score) -> ScoreOf:
    return ScoreOf(objective=objective, value=_finite(score.value), stderr=_finite(score.stderr), examples=score.n)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _difference(d: TaskDifference) -> DifferenceOf:
    return DifferenceOf(
        objective=d.objective,
        expert=d.name,
        expert_candidate=d.expert,
        gain=d.gain.value,
        stderr=d.gain.stderr,
        low=d.low,
        high=d.high,
        paired=d.paired,
        examples=d.examples,
        clear=d.clear,
    )


def _artifact(artifact: Artifact) -> ArtifactOf:
    """Without where it lies: paths of the server are nobody's business."""
    folder = artifact.path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return ArtifactOf(kind=artifact.kind, folder=folder, sha256=artifact.sha256, created=artifact.created)
