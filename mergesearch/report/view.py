"""All that a report shows of one study, read from its store once."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np

from mergesearch import pareto
from mergesearch.errors import StudyNotFound
from mergesearch.report.table import Comparison, Control, compare
from mergesearch.report.timing import RepeatReport, repeat_report
from mergesearch.results import Results
from mergesearch.space import SearchSpace, Settings
from mergesearch.stats import Examples
from mergesearch.store.base import StudyRecord, StudyStore
from mergesearch.stored import StoredStudy, read_stored
from mergesearch.types import Failed, Split, Timing

FAILURES_SHOWN = 20


@dataclass(frozen=True)
class Failure:
    """One evaluation that did not work."""

    number: int
    split: Split
    failed: Failed


@dataclass(frozen=True, eq=False)
class StudyView:
    """One study. `budget` is what the search may cost, in evaluations of all examples; `strategy` its kind, `heads`
    objective -> expert.

    `chosen` is the controller's choice, None until the confirm split is done. `space` is None where it is not known.
    `notes` are the strategy's sentences about what it decided; `ended` says which limit ended the search, '' while none
    did.
    """

    record: StudyRecord
    results: Results
    budget: float
    strategy: str = ""
    chosen: int | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    heads: Mapping[str, str] = field(default_factory=dict)
    space: SearchSpace | None = None
    examples: Examples | None = None
    notes: tuple[str, ...] = ()
    controls: tuple[Control, ...] = ()
    repeats: RepeatReport | None = None
    ended: str = ""

    @property
    def searched(self) -> int | None:
        """The merge the report is about: the chosen one, or the best on the search split so far."""
        return self.results.best if self.chosen is None else self.chosen

    def comparison(self, seed: int = 0) -> Comparison:
        """The final table, its bootstrap drawn from `seed`."""
        generator = np.random.Generator(np.random.Philox(seed))
        return compare(self.results, self.chosen, self.heads, self.examples, generator, self.controls)

    def settings(self, number: int) -> Settings | None:
        """Knob -> (G, K) of a candidate of the search; None for a baseline or where the space is not known."""
        point = self.results.candidates[number].point
        return None if self.space is None or point is None else self.space.decode(point)

    def start(self) -> Settings:
        """Knob -> (G, K) where the search began; empty where the space is not known."""
        return {} if self.space is None else self.space.decode(self.space.start)

    def summary(self) -> dict[str, object]:
        """Plain values for JSON: status, evaluations, budget, best, front_size and what else a program would ask."""
        results = self.results
        return {
            "name": self.record.name,
            "status": self.record.status.value,
            "message": self.record.message,
            "strategy": self.strategy,
            "evaluations": results.search_told,
            "cost": results.cost_told,
            "budget": self.budget,
            "best": results.best,
            "chosen": self.chosen,
            "front_size": len(results.front),
            "hypervolume": hypervolume(results),
            "failures": results.failed,
            "seconds": self.record.seconds,
            "ended": self.ended,
            "diagnostics": dict(self.diagnostics),
            "notes": list(self.notes),
            "repeats": None if self.repeats is None else asdict(self.repeats),
        }


def read_view(store: StudyStore, name: str) -> StudyView:
    """A study as its store knows it now.

    Raises:
        StudyNotFound: no study has that name.
    """
    return view_of(store, read_stored(store, name))


def view_of(store: StudyStore, study: StoredStudy, read: Callable[[str], StoredStudy] | None = None) -> StudyView:
    """What a report shows of a study that was read before. The rest comes from `store`: its controls by `read`, for
    those who keep them too; it raises StudyNotFound. None reads their whole logs."""
    name, heads = study.record.name, study.facts.get("heads")
    return StudyView(
        record=study.record,
        results=study.results,
        budget=study.budget,
        strategy=str(study.facts.get("strategy", "")),
        chosen=study.chosen,
        diagnostics=numbers(study.facts.get("diagnostics")),
        heads={o: e for o, e in heads.items() if e is not None} if isinstance(heads, Mapping) else {},
        space=study.space,
        examples=lambda number, split: store.examples(name, number, split),
        notes=tuple(map(str, notes)) if isinstance(notes := study.facts.get("notes"), list) else (),
        controls=_controls(read or partial(read_stored, store), study.facts.get("controls")),
        repeats=repeat_report(study.results, store.repeats(name)),
        ended=str(study.facts.get("ended", "")),
    )


def _controls(read: Callable[[str], StoredStudy], named: object) -> tuple[Control, ...]:
    """The controls of a study that stand in its store; `named` is label -> name of its study."""
    found = []
    for label, name in named.items() if isinstance(named, Mapping) else ():
        try:
            study = read(str(name))
        except StudyNotFound:
            continue
        found.append(Control(str(label), study.results, study.chosen))
    return tuple(found)


def numbers(diagnostics: object) -> dict[str, float]:
    """The figures among a strategy's diagnostics, as they come back from JSON."""
    if not isinstance(diagnostics, Mapping):
        return {}
    return {str(k): float(v) for k, v in diagnostics.items() if isinstance(v, int | float)}


def hypervolume(results: Results) -> float | None:
    """Normalised hypervolume of the front; None without baselines, and above the objectives it is exact for."""
    return results.hypervolume() if len(results.objectives) <= pareto.EXACT_UP_TO else None


def knee(results: Results) -> int | None:
    """The knee of the search's front; None for one objective or while nothing is scored."""
    numbers, table = results.front_table()
    return numbers[pareto.knee(table, is_front=True)] if len(results.objectives) > 1 and numbers else None


def marks(view: StudyView) -> dict[int, str]:
    """What candidates are called beside their number: 'best', 'knee', 'chosen', or several of them."""
    found: dict[int, str] = {}
    for word, number in (("best", view.results.best), ("knee", knee(view.results)), ("chosen", view.chosen)):
        if number is not None:
            found[number] = f"{found[number]} {word}" if number in found else word
    return found


def spent(evaluations: int, cost: float, budget: float) -> str:
    """'37 of 60 evaluations'; where some were cheaper or dearer than one: '90 evaluations, cost 37.5 of 60'."""
    if abs(cost - evaluations) < 1e-6:
        return f"{evaluations} of {budget:.10g} evaluations"
    return f"{evaluations} evaluations, cost {cost:.1f} of {budget:.10g}"


def failures(results: Results) -> list[Failure]:
    """Every failed evaluation, the latest first."""
    return [Failure(*found) for found in results.outcomes.failures()][::-1]


def timing(results: Results) -> Timing | None:
    """Median seconds that the search's evaluations waited, built and scored; None while there are none."""
    taken = [o.timing for n in results.scored if (o := results.outcome(n)) is not None]
    if not taken:
        return None
    return Timing(*(statistics.median(getattr(t, part) for t in taken) for part in ("queue", "build", "score")))
