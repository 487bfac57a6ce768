"""Who watches a controller: told of each evaluation as it is recorded, and of the whole about twice a second."""

from dataclasses import dataclass, field
from typing import Protocol

from mergesearch.pool.base import Usage
from mergesearch.results import Results
from mergesearch.types import Told


@dataclass(frozen=True)
class Progress:
    """A picture of a running study, handed to whoever watches; `results` is live and must only be read.

    `evaluations` counts what was told of the search, `cost` is what that took of the `budget`. `usage` says how busy
    the workers were since this controller started. `ended` says why the search asks nothing more: 'evaluations',
    'examples', 'gpu_seconds', 'hours', 'target', 'plateau' or 'strategy'; '' while it goes on.
    """

    results: Results = field(repr=False)
    evaluations: int
    cost: float
    budget: float
    running: int
    seconds: float
    phase: str
    study: str = ""
    usage: Usage = field(default_factory=Usage)
    ended: str = ""


class Observer(Protocol):
    """Told what happens, in the controller's thread: must be quick, and changes nothing."""

    def evaluated(self, study: str, told: Told, attempt: int) -> None:
        """An evaluation was recorded; `told.outcome.timing` says where its seconds went. Attempt 0: the store knew its
        scores, and no worker was asked."""
        ...

    def repeated(self, study: str, told: Told, attempt: int) -> None:
        """A further outcome of an evaluation that had been told before; `told` holds it, with seq 0."""
        ...

    def progressed(self, progress: Progress) -> None:
        """About twice a second while the study runs."""
        ...
