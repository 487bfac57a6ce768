"""Progress of a running study: a moving panel on a terminal, a plain line now and then in a log."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mergesearch.controller.observer import Observer, Progress
from mergesearch.report.estimate import Estimate, duration, mean_unit
from mergesearch.report.table import mean
from mergesearch.report.view import hypervolume, spent
from mergesearch.results import Results
from mergesearch.types import Told

REDRAW_SECONDS = 0.2
LINE_SECONDS = 10.0


@final
class LiveView(Observer):
    """Shows progress while a `with` block lasts; an observer of the controller.

    On a terminal a panel is redrawn in place, at most five times a second, and stays as it last was. Elsewhere one
    line is printed when the phase changes, at most every ten seconds when something else did, and at the end. One
    thread at a time; no thread of its own.
    """

    def __init__(self, console: Console, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._name = name
        self._clock = clock
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._last: Progress | None = None
        self._shown: tuple[str, int, int] | None = None
        self._shown_at = float("-inf")
        self._began: tuple[float, float] | None = None
        self._volume: tuple[int, float | None] = (-1, None)

    def __enter__(self) -> "LiveView":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._last is not None and self._shown != _state(self._last):
            self._show(self._last)
        if self._live is not None:
            self._live.stop()

    def evaluated(self, study: str, told: Told, attempt: int) -> None:
        """Nothing to show."""

    def repeated(self, study: str, told: Told, attempt: int) -> None:
        """Nothing to show."""

    def progressed(self, progress: Progress) -> None:
        """Show it, unless something was shown a moment ago."""
        self._last = progress
        if progress.phase == "search" and self._began is None:
            self._began = (progress.seconds, progress.cost)
        now, state = self._clock(), _state(progress)
        if self._live is not None:
            due = now - self._shown_at >= REDRAW_SECONDS
        else:
            new_phase = self._shown is None or self._shown[0] != state[0]
            due = new_phase or (now - self._shown_at >= LINE_SECONDS and self._shown != state)
        if due:
            self._shown_at = now
            self._show(progress)

    def _show(self, progress: Progress) -> None:
        self._shown = _state(progress)
        if self._live is not None:
            self._live.update(self._panel(progress), refresh=True)
        else:
            self._console.print(
                Text(f"{self._name}: {progress.phase}: " + ", ".join(self._figures(progress))), soft_wrap=True
            )

    def _figures(self, progress: Progress) -> list[str]:
        results = progress.results
        texts = [spent(progress.evaluations, progress.cost, progress.budget), f"best {best_text(results)}"]
        if len(results.objectives) > 1:
            texts.append(f"front {len(results.front)}")
            volume = self._hypervolume(results)
            texts += [] if volume is None else [f"hypervolume {volume:.4g}"]
        texts.append(f"failures {results.failed}")
        if progress.usage.workers > 1:
            texts.append(f"{progress.usage.workers} workers, {100 * progress.usage.share:.0f} % busy")
        texts.append(f"{duration(progress.seconds)}")
        left = self.seconds_left(progress)
        return texts if left is None else [*texts, f"about {duration(left)} left"]

    def _hypervolume(self, results: Results) -> float | None:
        """Computed anew only after something was told."""
        if self._volume[0] != results.last_seq:
            self._volume = (results.last_seq, hypervolume(results))
        return self._volume[1]

    def seconds_left(self, progress: Progress) -> float | None:
        """Seconds to the end of the search at the pace seen so far; None before the first result, and after the search.

        What was evaluated before a resume does not count for the pace.
        """
        if self._began is None or progress.phase != "search":
            return None
        done = progress.cost - self._began[1]
        taken = progress.seconds - self._began[0]
        if done <= 0 or taken <= 0:
            return None
        return taken / done * max(progress.budget - progress.cost, 0)

    def _panel(self, progress: Progress) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(progress.budget, 1), completed=progress.cost, width=30)
        count = Text(f"{round(progress.cost, 1):.10g}/{progress.budget:.10g}", style="bold")
        grid.add_row(Text(self._name, style="bold cyan"), bar, count, Text(progress.phase, style="dim"))
        return Group(grid, Text(" · ".join(self._figures(progress)[1:])))


def _state(progress: Progress) -> tuple[str, int, int]:
    return progress.phase, progress.results.last_seq, progress.running


def best_text(results: Results) -> str:
    """'#57 (mean 73.8±1.2 %)'; a dash while nothing is scored."""
    number = results.best
    outcome = None if number is None else results.outcome(number)
    if outcome is None:
        return "–"
    unit = mean_unit(results.objectives)
    value: Estimate = mean(results.objectives, outcome)
    label = "mean " if len(results.objectives) > 1 else ""
    return f"#{number} ({label}{unit.estimate(value)}{unit.suffix})"
