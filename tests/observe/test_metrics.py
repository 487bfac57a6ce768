"""Metrics: a real study's endpoint, scraped while it runs, read as Prometheus reads it."""

import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable

import numpy as np
import pytest
from controller.black_box import BASELINES, Sphere, run, study
from observe.watched_study import tell_all
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from mergesearch.controller.observer import Observer, Progress
from mergesearch.errors import SpecError
from mergesearch.observe.metrics import MOST_KINDS, MetricsObserver
from mergesearch.store.memory import MemoryStore
from mergesearch.types import Candidate, Failed, Split, Told


def scrape(port: int) -> dict[str, Metric]:
    """The metric families of an endpoint, parsed."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return {family.name: family for family in text_string_to_metric_families(answer.read().decode())}


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    """One sample's value."""
    found = [
        sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, (name, labels, found)
    return float(found[0])


def test_what_a_controller_tells_is_counted() -> None:
    """Totals by status, split and kind; histograms; gauges of budget, front, best, workers."""
    with MetricsObserver(0) as metrics:
        tell_all([metrics])
        found = scrape(metrics.port)
    made = {"study": "made"}
    assert value(found, "mergesearch_evaluations_total", split="search", status="scored", **made) == 4
    assert value(found, "mergesearch_evaluations_total", split="search", status="failed", **made) == 1
    assert value(found, "mergesearch_evaluation_failures_total", kind="timeout", **made) == 1
    assert value(found, "mergesearch_evaluations_cached_total", **made) == 1
    assert value(found, "mergesearch_evaluation_repeats_total", **made) == 1
    assert value(found, "mergesearch_evaluation_seconds_count", part="build", **made) == 4  # the cached one took none
    assert value(found, "mergesearch_evaluation_seconds_sum", part="score", **made) == 6.0
    assert value(found, "mergesearch_evaluation_seconds_bucket", part="score", le="1.0", **made) == 1
    assert value(found, "mergesearch_gpu_seconds_total", **made) == 13.5
    assert value(found, "mergesearch_worker_busy_seconds_total", **made) == 9.0
    assert value(found, "mergesearch_worker_available_seconds_total", **made) == 12.0
    for name, wanted in {
        "jobs_in_flight": 1, "search_evaluations": 5, "cost_evaluations": 5, "budget_evaluations": 10, "workers": 2,
        "workers_busy_ratio": 0.75, "study_running": 1, "study_seconds": 9,
    }.items():  # fmt: skip
        assert value(found, f"mergesearch_{name}", **made) == wanted, name
    assert value(found, "mergesearch_study_phase", phase="search", **made) == 1
    assert value(found, "mergesearch_study_phase", phase="baselines", **made) == 0
    assert "process_resident_memory_bytes" in found


class Scraper(Observer):
    """Scrapes within the study's own thread, now and then."""

    def __init__(self, port: Callable[[], int]) -> None:
        self._port = port
        self.seen: list[dict[str, Metric]] = []

    def evaluated(self, study: str, told: Told, attempt: int) -> None:
        """Nothing."""

    def repeated(self, study: str, told: Told, attempt: int) -> None:
        """Nothing."""

    def progressed(self, progress: Progress) -> None:
        if progress.evaluations % 10 == 0:
            self.seen.append(scrape(self._port()))


def test_a_running_study_is_scraped() -> None:
    """Its endpoint answers while it runs, counters only grow, and it is gone when the study has ended."""
    with MetricsObserver(0) as metrics:
        scraper = Scraper(lambda: metrics.port)
        results = run(
            MemoryStore(),
            study(evaluations=30, baselines=BASELINES),
            worker=Sphere(gpu=0.5),
            observers=[metrics, scraper],
        )
        last = scrape(metrics.port)
    totals = [
        sum(s.value for s in found["mergesearch_evaluations"].samples if s.name.endswith("_total"))
        for found in [*scraper.seen, last]
        if "mergesearch_evaluations" in found
    ]
    assert totals == sorted(totals)
    assert (totals[-1], totals[0] < totals[-1]) == (30 + len(BASELINES), True)
    assert value(last, "mergesearch_gpu_seconds_total", study="s") == pytest.approx(0.5 * totals[-1])
    assert results.best is not None
    assert value(last, "mergesearch_best_score", study="s", objective="up") <= 1.0
    assert value(last, "mergesearch_front_size", study="s") >= 1
    assert value(last, "mergesearch_hypervolume", study="s") > 0
    with pytest.raises(urllib.error.URLError):
        scrape(metrics.port)


def test_a_port_that_is_taken_is_one_sentence() -> None:
    """Exit code 2, with the option to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SpecError, match=f"127.0.0.1:{port}.*name another --metrics-port"), MetricsObserver(port):
            pass


def test_kinds_of_failures_are_bounded() -> None:
    """An error class of its own for each candidate does not make a time series each."""
    with MetricsObserver(0) as metrics:
        for n in range(3 * MOST_KINDS):
            told = Told(2, Candidate(n, np.zeros(2)), Split.SEARCH, Failed(f"Error{n}", "no"))
            metrics.evaluated("made", told, 1)
        samples = scrape(metrics.port)["mergesearch_evaluation_failures"].samples
    kinds = {s.labels["kind"]: s.value for s in samples if s.name.endswith("_total")}
    assert (len(kinds), kinds["other"]) == (MOST_KINDS + 1, 2 * MOST_KINDS)


def test_a_control_takes_the_place_of_its_study() -> None:
    """Of two studies of one controller only the running one says that it runs."""
    with MetricsObserver(0) as metrics:
        tell_all([metrics])
        tell_all([metrics], "made--random")
        found = scrape(metrics.port)
    assert value(found, "mergesearch_study_running", study="made") == 0
    assert value(found, "mergesearch_study_running", study="made--random") == 1
    assert value(found, "mergesearch_study_phase", study="made", phase="search") == 0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's prometheus is not installed")
def test_promtool_accepts_the_metrics() -> None:
    """Prometheus' own linter has nothing to say of ours."""
    with MetricsObserver(0) as metrics:
        tell_all([metrics])
        text = urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=10).read()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
