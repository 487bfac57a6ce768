"""What a worker of merges is built from, as plain values, and the scorers that follow from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mergesearch.errors import SpecError
from mergesearch.operators.base import Layout
from mergesearch.plugins import did_you_mean, load, parse_options
from mergesearch.scorers import SCORERS
from mergesearch.scorers.base import AnyScorer, ScorerContext
from mergesearch.space import SearchSpace


@dataclass(frozen=True)
class ObjectiveSetup:
    """An objective as a worker sees it: `metric` of `scorer` on `data` (its options), wearing `head`'s head (None:
    the base's own), of the merged model or of the one that is rebuilt for the expert `rebuild`. `teacher` is the expert
    that differentiable losses without labels are measured against, None: that of the head."""

    name: str
    scorer: str
    data: Mapping[str, object]
    metric: str
    head: str | None = None
    rebuild: str | None = None
    teacher: str | None = None

    @property
    def taught_by(self) -> str | None:
        """The expert that teaches, None where there is none."""
        return self.teacher or self.head


@dataclass(frozen=True)
class WorkerSetup:
    """All that a MergeWorker is built from; picklable.

    `heads` are patterns of tensor names that are not merged. Relative data paths are relative to `root`; `seed` fixes
    the order of the examples. `device` is 'auto', 'cpu' or 'cuda'; `dtype` None takes the base's; `threads` None
    leaves torch's number of threads alone. `space` is what gradients are taken in; without it there are none.
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
    space: SearchSpace | None = None


def scorer_key(objective: ObjectiveSetup) -> str:
    """Objectives that differ in their metric alone share one scorer, and one pass over the data."""
    what = [objective.scorer, dict(objective.data), objective.head, objective.rebuild, objective.taught_by]
    return json.dumps(what, sort_keys=True, default=str)


def make_scorers(setup: WorkerSetup) -> Mapping[str, AnyScorer]:
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
        found[scorer_key(objective)] = kind(options, ScorerContext(model, setup.root, setup.seed))
    return found
