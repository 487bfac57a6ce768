"""A study as the store alone knows it: enough to show, plot and compare it without its models, torch or its file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mergesearch.recipe import Recipe
from mergesearch.results import Results
from mergesearch.space import SearchSpace
from mergesearch.store.base import StudyRecord, StudyStore
from mergesearch.types import Direction, Guide, Objective


@dataclass(frozen=True, eq=False)
class StoredStudy:
    """A study's record, facts, space and folded log. `chosen` is the candidate the study ended with, if it did.

    `budget` is what the search may cost, in evaluations of all examples.
    """

    record: StudyRecord
    facts: Mapping[str, Any]
    space: SearchSpace
    results: Results
    budget: float

    @property
    def chosen(self) -> int | None:
        """The candidate that the confirm split chose."""
        number = self.facts.get("chosen")
        return number if isinstance(number, int) else None

    def recipe(self, number: int) -> Recipe | None:
        """The recipe of a candidate of the search; None for a baseline, or a black-box search."""
        candidate = self.results.candidates[number]
        if candidate.point is None or not self.space.slots:
            return None
        merge = self.facts["merge"]
        settings = self.space.decode(candidate.point)
        return Recipe(merge["operator"], self.space.experts, self.space.groups, settings, merge["options"])


def describe(
    space: SearchSpace,
    objectives: tuple[Objective, ...],
    budget: float,
    strategy: str,
    **more: Any,
) -> dict[str, Any]:
    """The facts to keep of a study at its launch, JSON values; `read_stored` reads them."""
    return {
        "space": space.to_dict(),
        "objectives": [asdict(o) for o in objectives],
        "budget": budget,
        "strategy": strategy,
        **more,
    }


def read_stored(store: StudyStore, name: str) -> StoredStudy:
    """A study of `store`, its whole log folded. Raises StudyNotFound."""
    record, facts = store.study(name), store.facts(name)
    return stored(record, facts, Results(objectives_of(facts), store.events(name)))


def stored(record: StudyRecord, facts: Mapping[str, Any], results: Results) -> StoredStudy:
    """A study from its record, its facts and its folded log."""
    return StoredStudy(record, facts, SearchSpace.from_dict(facts["space"]), results, facts["budget"])


def objectives_of(facts: Mapping[str, Any]) -> tuple[Objective, ...]:
    """The objectives among a study's facts."""
    return tuple(_objective(body) for body in facts["objectives"])


def _objective(body: Mapping[str, Any]) -> Objective:
    """Inverse of `asdict`."""
    guide = body.get("guide")
    if guide is not None:
        guide = Guide(guide["metric"], Direction(guide["direction"]), guide["low"], guide["high"])
    return Objective(body["name"], Direction(body["direction"]), body["weight"], body["low"], body["high"], guide)
