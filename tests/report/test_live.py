"""Live progress moves on a terminal and stays readable in a log."""

import io

import pytest
from report.synthetic import finished, unfinished
from rich.console import Console

from mergesearch.controller.observer import Progress
from mergesearch.pool.base import Usage
from mergesearch.report.live import LiveView
from mergesearch.results import Results
from mergesearch.types import Asked, Split, Told


def watch(view, terminal, gap=0.5):
    """Feed a study's log event by event, `gap` seconds apart; what the console got."""
    file, now = io.StringIO(), [0.0]
    console = Console(file=file, width=80, force_terminal=terminal)
    results = Results(view.results.objectives)
    with LiveView(console, "vision-4", lambda: now[0]) as live:
        for event in view_events(view):
            results.add(event)
            now[0] += gap
            phase = "search" if event.split is Split.SEARCH else "confirm and test"
            phase = "baselines" if event.candidate.point is None and phase == "search" else phase
            live.progressed(Progress(results, results.search_told, results.cost_told, view.budget, 1, now[0], phase))
    return file.getvalue()


def view_events(view):
    """The log again, from the folded results: each evaluation asked and told at once."""
    events = []
    for (number, split), outcome in view.results.outcomes.items():
        candidate = view.results.candidates[number]
        events += [Asked(len(events) + 1, candidate, split), Told(len(events) + 2, candidate, split, outcome)]
    return events


def test_a_log_gets_a_line_now_and_then():
    """A change of phase, then at most one line in ten seconds, and the end; no control characters."""
    lines = watch(finished(3, 60), terminal=False).splitlines()
    assert "\x1b" not in "".join(lines)
    assert 8 <= len(lines) <= 20
    assert lines[0].split(": ")[1] == "baselines"
    assert lines[-1].startswith("vision-4: confirm and test: 60 of 60 evaluations, best #")
    assert "hypervolume" in lines[-1]
    assert "left" in next(line for line in lines if ": search: 2" in line)


def test_nothing_new_is_not_said_again():
    """A worker that takes minutes leaves no hundred equal lines."""
    file, now = io.StringIO(), [0.0]
    results = unfinished(2).results
    with LiveView(Console(file=file, force_terminal=False), "x", lambda: now[0]) as live:
        for _ in range(200):
            now[0] += 5.0
            live.progressed(Progress(results, 12, 12.0, 40, 2, now[0], "search"))
    assert len(file.getvalue().splitlines()) == 1


def test_a_terminal_is_redrawn_in_place():
    """The panel holds evaluations, best and failures, and is drawn at most five times a second."""
    text = watch(finished(2, 30), terminal=True)
    assert "30/30" in text
    assert "failures 0" in text
    fast = watch(finished(2, 30), terminal=True, gap=0.0005)
    assert fast.count("evaluations") < 3
    assert len(fast) < len(text) / 5


def test_the_time_left_follows_the_pace_since_the_start_of_this_run():
    """What a resumed study had done before does not count; nothing is promised before the first result."""
    results = unfinished(2).results
    live = LiveView(Console(file=io.StringIO(), force_terminal=False), "x", lambda: 0.0)
    first = Progress(results, 10, 10.0, 40, 2, 500.0, "search")
    live.progressed(first)
    assert live.seconds_left(first) is None
    assert live.seconds_left(Progress(results, 20, 20.0, 40, 2, 520.0, "search")) == pytest.approx(40.0)
    assert live.seconds_left(Progress(results, 40, 40.0, 40, 2, 560.0, "confirm and test")) is None


def test_an_interrupt_leaves_the_terminal_clean():
    """The cursor is shown again when the block ends by Ctrl-C."""
    file = io.StringIO()
    live = LiveView(Console(file=file, force_terminal=True), "x")
    step = Progress(unfinished(2).results, 1, 1.0, 40, 1, 1.0, "search")

    def interrupted():
        with live:
            live.progressed(step)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert file.getvalue().rfind("\x1b[?25h") > file.getvalue().rfind("\x1b[?25l")


def test_busy_workers_are_shown():
    """Several workers are counted, with the share of their time that they were busy."""
    file = io.StringIO()
    with LiveView(Console(file=file, force_terminal=False, width=200), "x") as live:
        live.progressed(Progress(unfinished(2).results, 1, 1.0, 40, 4, 1.0, "search", "x", Usage(4, 39.0, 40.0)))
    assert "4 workers, 98 % busy" in file.getvalue()
