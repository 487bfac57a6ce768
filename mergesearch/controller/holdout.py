"""What is still to be asked on the held-out splits once the search is over."""

from collections.abc import Callable
from typing import final

from mergesearch.controller.finalists import choose, compared, finalists
from mergesearch.results import Results
from mergesearch.stats import Examples
from mergesearch.types import Split


@final
class Holdout:
    """The finalists, fixed when they are first looked for, and the choice among them, made when all are confirmed.

    `chosen` is told of the choice once. After a raised budget another controller makes both anew; what was confirmed or
    tested before is not asked again.
    """

    def __init__(self, results: Results, count: int, examples: Examples, chosen: Callable[[int | None], None]) -> None:
        self._results, self._count, self._examples, self._tell = results, count, examples, chosen
        self._finalists: list[int] | None = None
        self._chosen: int | None = None

    @property
    def begun(self) -> bool:
        """Whether the finalists are fixed."""
        return self._finalists is not None

    def confirms(self) -> list[int]:
        """Candidates to confirm that were not asked yet."""
        if self._finalists is None:
            self._finalists = finalists(self._results, self._count)
        return self._open([*self._finalists, *compared(self._results)], Split.CONFIRM)

    def tests(self) -> list[int]:
        """Candidates to test that were not asked yet; call it when every confirmation was told."""
        if self._chosen is None:
            self._chosen = choose(self._results, self._finalists or [], self._examples)
            self._tell(self._chosen)
        chosen = [] if self._chosen is None else [self._chosen]
        return self._open([*chosen, *compared(self._results)], Split.TEST)

    def _open(self, wanted: list[int], split: Split) -> list[int]:
        return [n for n in dict.fromkeys(wanted) if (n, split) not in self._results.asked]
