"""What a controller needs of a study."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mergesearch.recipe import Recipe
from mergesearch.strategies.base import Need, Strategy
from mergesearch.study.spec import Budget, Plateau
from mergesearch.types import Candidate, Objective, Request, Split, Vector


@dataclass(frozen=True, eq=False)
class StudyRun:
    """What a controller needs of a study: `work` turns a candidate into what a worker evaluates.

    `evaluations` is the budget: the cost of all that the search asks, an evaluation with a gradient at `gradient_cost`.
    `examples`, `gpu_seconds`, `hours`, `target` and `plateau` limit it too, as in a study file; `count` gives the
    examples of a request, needed where they are limited. `needs` adds to what the strategy itself says that it needs.
    `baselines` are origins 'baseline:...' to evaluate beside the budget; `finalists` 0 means no confirm or test split.
    `digests` gives what a candidate's scores on a split are known by in every study of the store (objective -> digest,
    empty: not to be shared); without it nothing is taken from the store. `lasting`: its evaluations outlive the
    controller, so that a pause need not wait for them.
    """

    name: str
    objectives: tuple[Objective, ...]
    evaluations: float
    strategy: Strategy
    work: Callable[[Candidate], Recipe | Vector]
    baselines: tuple[str, ...] = ()
    finalists: int = 0
    hours: float | None = None
    failures: int = 5
    gradient_cost: float = 3.0
    needs: frozenset[Need] = frozenset()
    examples: int | None = None
    gpu_seconds: float | None = None
    target: Mapping[str, float] = field(default_factory=dict)
    plateau: Plateau | None = None
    count: Callable[[Request], int] | None = None
    digests: Callable[[Candidate, Split], Mapping[str, str]] | None = None
    lasting: bool = False

    @property
    def budget(self) -> Budget:
        """All limits as one value; unchecked, since a black box may have a budget that is no whole number."""
        return Budget.model_construct(
            evaluations=self.evaluations,
            gradient_cost=self.gradient_cost,
            examples=self.examples,
            gpu_seconds=self.gpu_seconds,
            hours=self.hours,
            target=dict(self.target),
            plateau=self.plateau,
            failures=self.failures,
        )
