"""Where the time went: figures that can be checked by hand, and what a terminal shows of them."""

import numpy as np
import pytest
from export.stored_study import OBJECTIVES, SPACE, fill, scored
from report.synthetic import text_of

from mergesearch.report.size import size
from mergesearch.report.stores import read_store, render_store
from mergesearch.report.terminal import render_show
from mergesearch.report.timing import render_timing, repeat_report, timing_report
from mergesearch.report.view import read_view
from mergesearch.results import Results
from mergesearch.store.base import Repeat, StudyRecord
from mergesearch.store.memory import MemoryStore
from mergesearch.types import Asked, Candidate, Failed, Scored, Split, Status, Timing, Told

RECORD = StudyRecord("made", "", "", Status.DONE, 0.0, 0.0, seconds=120.0)
FACTS = {"usage": {"workers": 2, "busy": 30.0, "available": 40.0}}


def results(count: int = 20) -> Results:
    """Evaluations that scored for 1, 2, … seconds on two workers, one of them failed, one more from the cache."""
    found = Results(OBJECTIVES)
    for n in range(count + 1):
        candidate = Candidate(n, np.full(SPACE.dim, 0.5))
        timing = Timing(1.0, 0.5, float(n + 1), 0.25, 2.0)
        outcome = Scored(scored(0.5).scores, timing=timing, worker=f"w{n % 2}")
        if n == count:
            outcome = Scored(outcome.scores, worker="cache")
        found.add(Asked(2 * n + 1, candidate, Split.SEARCH))
        found.add(Told(2 * n + 2, candidate, Split.SEARCH, Failed("x", "y", timing, "w1") if n == 3 else outcome))
    return found


def test_parts_and_workers_add_up() -> None:
    """Totals, means, quantiles and shares of each part; each worker's evaluations, busy seconds and failures."""
    times = {(n, Split.SEARCH): (float(n), 10.0 + 3.0 * n) for n in range(21)}
    report = timing_report(results(), RECORD, FACTS, times)
    parts = {spent.part: spent for spent in report.parts}
    score = parts["score"]
    assert (score.total, score.mean, score.median, score.max) == (210.0, 10.5, 10.5, 20.0)
    assert score.p95 == pytest.approx(19.05)
    assert sum(spent.share for spent in report.parts) == pytest.approx(1.0)
    assert (parts["queue"].total, parts["record"].mean) == (20.0, 0.25)
    assert [(w.worker, w.evaluations, w.busy, w.failures) for w in report.workers] == [
        ("w1", 10, 115.0, 1),
        ("w0", 10, 105.0, 0),
    ]
    assert (report.evaluations, report.cached, report.gpu_seconds) == (21, 1, 40.0)
    assert (report.per_minute, report.recent_per_minute, report.busy_share) == (10.5, 20.0, 0.75)
    assert report.summary()["busy_share"] == 0.75


def test_the_terminal_shows_it_in_80_columns() -> None:
    """Tables of parts and workers, then sentences."""
    text = text_of(render_timing(timing_report(results(), RECORD, FACTS, {})))
    assert max(map(len, text.splitlines())) <= 80
    for words in ("p95", "record", "w1", "10.5 a minute", "2 workers busy 75.0% of 40.0 s", "1 evaluations taken"):
        assert words in text or "1 evaluation taken" in text, words
    assert "of late" not in text


def test_a_study_without_evaluations_has_no_times() -> None:
    """A sentence instead of empty tables."""
    report = timing_report(Results(OBJECTIVES), RECORD, {}, {})
    assert (report.parts, report.per_minute, report.busy_share) == ((), None, None)
    assert "No evaluation" in text_of(render_timing(report))


def test_only_cached_evaluations_have_no_times_either() -> None:
    """Nothing is divided by nothing."""
    found = Results(OBJECTIVES)
    candidate = Candidate(0, np.full(SPACE.dim, 0.5))
    found.add(Asked(1, candidate, Split.SEARCH))
    found.add(Told(2, candidate, Split.SEARCH, Scored(scored(0.5).scores, worker="cache")))
    assert "taken from the cache" in text_of(render_timing(timing_report(found, RECORD, {}, {})))


def test_repeats_are_told_with_their_largest_difference() -> None:
    """In a sentence of `show`; a failure in place of a score counts without one."""
    store = MemoryStore()
    fill(store)
    lease = store.acquire("made", "test", 60.0)
    assert read_view(store, "made").repeats is None
    for number, value in ((1, 0.125), (2, 0.7), (2, 0.1)):
        assert store.tell(lease, number, Split.SEARCH, scored(value)) is None
    view = read_view(store, "made")
    assert view.repeats is not None
    sentence = "2 evaluations gave other scores when repeated; the largest: acc of #2 on search, +0.5"
    assert view.repeats.sentence == sentence
    assert "gave other scores" in text_of(render_show(view), 200)
    assert view.summary()["repeats"]["difference"] == pytest.approx(0.5)  # type: ignore[index]
    late = Repeat(1, Split.SEARCH, Failed("timeout", "no"), 0.0)
    report = repeat_report(view.results, [late])
    assert report is not None
    assert report.sentence == "1 evaluation ended otherwise when repeated"


def test_a_store_is_shown_in_80_columns() -> None:
    """Counts by status, evaluations, and the biggest studies first."""
    store = MemoryStore()
    fill(store, "small", 2, Status.FAILED)
    fill(store, "large", 30)
    view = read_store(store, "memory://", 0.0)
    text = text_of(render_store(view))
    assert max(map(len, text.splitlines())) <= 80
    assert "2: 1 failed, 1 done" in text
    assert text.index("large") < text.index("small")
    body = view.summary()
    assert (body["candidates"], body["evaluations"], body["open"]) == (34, 38, 2)


def test_bytes_are_written_for_people() -> None:
    """Powers of 1000."""
    assert [size(n) for n in (0, 999, 1000, 12_345, 4.56e9, 7e12)] == [
        "0 B", "999 B", "1 kB", "12.3 kB", "4.56 GB", "7 TB",
    ]  # fmt: skip
