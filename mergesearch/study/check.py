"""Everything that can be known of a study before anything heavy is loaded: headers, data, axes, memory."""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mergesearch.errors import EvaluationError, MergesearchError, SpecError
from mergesearch.memory import memory_needed
from mergesearch.merging import make_operator
from mergesearch.plugins import load, parse_options
from mergesearch.pool.base import Job
from mergesearch.scorers import SCORERS
from mergesearch.scorers.base import AnyScorer, ScorerContext
from mergesearch.space import SearchSpace
from mergesearch.store.base import StudyStore
from mergesearch.store.open import open_store
from mergesearch.study.problem import gradients_of, missing
from mergesearch.study.resolve import ResolvedStudy, resolve
from mergesearch.study.source import Source
from mergesearch.study.spec import ObjectiveSpec, StudySpec, folder
from mergesearch.study.warm import warm_start
from mergesearch.types import Candidate, Failed, Split

GIB = 1024**3


class Level(StrEnum):
    """How grave a finding is; an ERROR means that the study cannot be launched."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One thing that a check found; `line` of the study file, counted from 1, where it belongs to one."""

    level: Level
    sentence: str
    line: int | None = None


@dataclass(frozen=True, eq=False)
class Checked:
    """All findings, and the resolved study where the models fit together; of a study without models its space."""

    findings: tuple[Finding, ...]
    resolved: ResolvedStudy | None
    axes: SearchSpace | None = None

    @property
    def space(self) -> SearchSpace | None:
        """What would be searched, where that is known."""
        return self.axes if self.resolved is None else self.resolved.space

    @property
    def ok(self) -> bool:
        """Whether the study can be launched."""
        return all(finding.level is not Level.ERROR for finding in self.findings)


def file_findings(error: SpecError, source_name: str) -> tuple[Finding, ...]:
    """A finding for each line of what reading a study file refused, without the 'file:line:column: ' it begins with."""
    place = re.compile(re.escape(source_name) + r":(\d+):\d+: ")
    found = []
    for sentence in str(error).split("\n"):
        at = place.match(sentence)
        found.append(Finding(Level.ERROR, sentence[at.end() if at else 0 :], int(at[1]) if at else None))
    return tuple(found)


def check_study(spec: StudySpec, source: Source, store: Callable[[], StudyStore] | None = None) -> Checked:
    """Look at headers and data of a study whose file has been read. Never raises for what it finds.

    Args:
        store: opens the store that a warm start is looked up in; the file's own unless given.
    """

    def line(*path: str | int) -> int:
        return source.position(path)[0]

    findings: list[Finding] = []
    resolved = None
    try:
        resolved = resolve(spec, source.root)
        count = sum(name in resolved.layout.group_of for name in resolved.base.names)
        findings.append(
            Finding(
                Level.OK,
                f"models: base and {len(resolved.experts)} experts agree, {count} tensors merged",
                line("models"),
            )
        )
        findings.extend(_memory(resolved))
        if losses := gradients_of(resolved):
            sentence = f"gradients: every objective gives those of {', '.join(losses)}"
            findings.append(Finding(Level.OK, sentence, line("objectives")))
        if why := missing(resolved):
            at = source.at(("strategy", "kind"))
            findings.append(Finding(Level.ERROR, f"{at}: {why}", line("strategy", "kind")))
        if spec.space.warm_start is not None:
            resolved, start = warm_start(resolved, store() if store else open_store(spec.store, create=False))
            assert start is not None
            sentence = f"the axes start where candidate {start.candidate} of study {start.study!r} is"
            findings.append(Finding(Level.OK, f"warm start: {sentence}", line("space", "warm_start")))
    except MergesearchError as error:
        findings.extend(
            Finding(Level.ERROR, said, source.position(_culprit(spec, source.root, said))[0])
            for said in str(error).split("\n")
        )
    for i, objective in enumerate(spec.objectives):
        try:
            make_scorer(spec, objective, source).check()
            findings.append(Finding(Level.OK, f"objective {objective.name!r}: data fit", line("objectives", i)))
        except MergesearchError as error:
            at = source.at(("objectives", i, "data"))
            findings.append(Finding(Level.ERROR, f"{at}: {error}", line("objectives", i, "data")))
    return Checked(tuple(findings), resolved)


def _culprit(spec: StudySpec, root: Path, sentence: str) -> tuple[str | int, ...]:
    """The key that an error about models is about: the expert or base whose folder or name it says, else the models, or
    the section that it names first."""
    for name, path in spec.models.experts.items():
        if str(folder(root, path)) in sentence or f"expert {name!r}" in sentence:
            return ("models", "experts", name)
    if str(folder(root, spec.models.base)) in sentence:
        return ("models", "base")
    first = re.match(r"(space|merge|strategy|budget|objectives)(?:\.(\w+))?", sentence)
    return tuple(part for part in first.groups() if part) if first else ("models",)


def make_scorer(spec: StudySpec, objective: ObjectiveSpec, source: Source) -> AnyScorer:
    """The scorer of one objective, with no data opened."""
    plugin = load("scorer", SCORERS, objective.scorer)
    options = parse_options(f"objective {objective.name!r}", plugin.Options, objective.data)
    model = spec.models.base if objective.head is None else spec.models.experts[objective.head]
    scorer: AnyScorer = plugin(options, ScorerContext(folder(source.root, model), source.root, spec.strategy.seed))
    return scorer


def _memory(resolved: ResolvedStudy) -> Iterable[Finding]:
    merge = resolved.spec.merge
    operator = make_operator(merge.operator, merge.options)
    need = memory_needed(resolved.base, list(resolved.experts.values()), resolved.layout, operator)
    level = Level.OK if need.needed <= need.available else Level.WARNING
    advice = "" if level is Level.OK else ": the experts will be read from disk for each candidate, which is slow"
    yield Finding(
        level, f"memory: {need.needed / GIB:.2f} GiB for each worker, {need.available / GIB:.2f} GiB free{advice}"
    )


def time_candidate(resolved: ResolvedStudy) -> float:
    """Seconds that one candidate takes on this machine, from the start point evaluated twice (the second counts).

    Raises:
        EvaluationError: it cannot be evaluated; the message is the failure's.
    """
    worker = resolved.worker()()
    recipe = resolved.recipe(Candidate(0, resolved.space.start, "start"))
    seconds = 0.0
    for number in range(2):
        began = time.perf_counter()
        outcome = worker.evaluate(Job(number, Split.SEARCH, recipe))
        seconds = time.perf_counter() - began
        if isinstance(outcome, Failed):
            raise EvaluationError(f"the start candidate failed: {outcome.kind}: {outcome.message}")
    return seconds
