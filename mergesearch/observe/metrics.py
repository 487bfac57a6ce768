"""Prometheus metrics of a running study, over HTTP. One registry per study run, nothing global.

Names follow Prometheus' conventions: base units (seconds), `_total` for what only grows. Labels take few values: the
study and its controls, the split, a status, the objectives, a failure's kind (the first 20, then 'other').
"""

import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from mergesearch import pareto
from mergesearch.controller.observer import Observer, Progress
from mergesearch.errors import SpecError
from mergesearch.pool.base import Usage
from mergesearch.results import Results
from mergesearch.store.values import CACHE
from mergesearch.types import Failed, Scored, Told

OTHER: Final = "other"
MOST_KINDS: Final = 20
PHASES: Final = ("baselines", "search", "confirm and test")
PARTS: Final = ("queue", "build", "score", "record")
BUCKETS: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
FRONT_SHARE: Final = 0.02  # of the controller's time at most goes to the hypervolume, which may take a while
FRONT_QUICK: Final = 0.01  # seconds; what takes less is done at each result


class Metrics:
    """The metrics themselves, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        study, registry = ["study"], self.registry
        self.evaluations = Counter(
            "mergesearch_evaluations", "Evaluations recorded by this controller.", ["study", "split", "status"],
            registry=registry,
        )  # fmt: skip
        self.failures = Counter(
            "mergesearch_evaluation_failures", "Evaluations that failed, by kind.", ["study", "kind"], registry=registry
        )
        self.cached = Counter(
            "mergesearch_evaluations_cached", "Evaluations taken from the store's cache.", study, registry=registry
        )
        self.repeats = Counter(
            "mergesearch_evaluation_repeats", "Evaluations that ended once more.", study, registry=registry
        )
        self.seconds = Histogram(
            "mergesearch_evaluation_seconds", "Seconds of evaluations: queue, build, score or record.",
            ["study", "part"], buckets=BUCKETS, registry=registry,
        )  # fmt: skip
        self.gpu = Counter("mergesearch_gpu_seconds", "GPU-seconds that evaluations held.", study, registry=registry)
        self.busy_seconds = Counter(
            "mergesearch_worker_busy_seconds", "Worker-seconds spent on jobs.", study, registry=registry
        )
        self.available_seconds = Counter(
            "mergesearch_worker_available_seconds", "Worker-seconds that workers were ready.", study, registry=registry
        )
        self._gauges()

    def _gauges(self) -> None:
        study, registry = ["study"], self.registry

        def gauge(name: str, text: str, labels: list[str] = study) -> Gauge:
            return Gauge(f"mergesearch_{name}", text, labels, registry=registry)

        self.in_flight = gauge("jobs_in_flight", "Evaluations that were submitted and have not ended.")
        self.searched = gauge("search_evaluations", "Evaluations of the search told so far, in all sessions.")
        self.cost = gauge("cost_evaluations", "What the search has cost, in evaluations of all examples.")
        self.budget = gauge("budget_evaluations", "What the search may cost, in evaluations of all examples.")
        self.best_loss = gauge("best_loss", "Least weighted loss on the search split.")
        self.best_score = gauge("best_score", "Score of the candidate with the least loss.", ["study", "objective"])
        self.front = gauge("front_size", "Candidates on the front of the search split.")
        self.volume = gauge("hypervolume", "Normalised hypervolume of the front; NaN until it is known.")
        self.workers = gauge("workers", "Workers that are ready.")
        self.busy_share = gauge("workers_busy_ratio", "Share of their time that workers were busy, 0 to 1.")
        self.running = gauge("study_running", "1 while this controller runs the study, else 0.")
        self.phase = gauge("study_phase", "1 for the phase that the study is in, else 0.", ["study", "phase"])
        self.time = gauge("study_seconds", "Seconds that controllers have spent on the study, in all sessions.")
        self.last = gauge("last_evaluation_timestamp_seconds", "When the last evaluation was recorded, Unix time.")


@final
class MetricsObserver(Observer):
    """Keeps the metrics, and serves them on http://host:port/metrics while a `with` block lasts.

    Raises SpecError, on entering, where the port is taken. Port 0 takes a free one; `port` then says which.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", clock: Callable[[], float] = time.time) -> None:
        self.metrics = Metrics()
        self.port = port
        self.host = host
        self._clock = clock
        self._kinds: set[str] = set()
        self._usage: dict[str, Usage] = {}
        self._front: tuple[str, int, float] = ("", -1, -math.inf)  # study, seq, when it may be looked at again
        self._study = ""
        self._results: dict[str, Results] = {}  # live: what the controller folds its log into

    def __enter__(self) -> "MetricsObserver":
        try:
            self._server, self._thread = start_http_server(self.port, self.host, self.metrics.registry)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SpecError(
                f"metrics cannot be served on {self.host}:{self.port}: {reason}; name another --metrics-port"
            ) from None
        self.port = self._server.server_port
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def evaluated(self, study: str, told: Told, attempt: int) -> None:  # noqa: ARG002
        metrics, outcome = self.metrics, told.outcome
        status = "scored" if isinstance(outcome, Scored) else "failed"
        metrics.evaluations.labels(study, told.split.value, status).inc()
        if isinstance(outcome, Failed):
            metrics.failures.labels(study, self._kind(outcome.kind)).inc()
        metrics.last.labels(study).set(self._clock())
        if (results := self._results.get(study)) is not None:
            self._note_search(study, results)
        if outcome.worker == CACHE:
            metrics.cached.labels(study).inc()
            return  # it took no time: it would only bring the histograms' means down
        for part in PARTS:
            metrics.seconds.labels(study, part).observe(max(0.0, getattr(outcome.timing, part)))
        metrics.gpu.labels(study).inc(max(0.0, outcome.timing.gpu))

    def repeated(self, study: str, told: Told, attempt: int) -> None:  # noqa: ARG002
        self.metrics.repeats.labels(study).inc()

    def progressed(self, progress: Progress) -> None:
        metrics, study, usage = self.metrics, progress.study, progress.usage
        if study != self._study:
            if self._study:  # the study before this one: a study and its controls run one after the other
                self._left(self._study)
            self._study = study
            for counter in (metrics.cached, metrics.repeats, metrics.gpu):
                counter.labels(study)  # there from the start: a rate needs its zero
        metrics.running.labels(study).set(1)
        metrics.in_flight.labels(study).set(progress.running)
        metrics.budget.labels(study).set(progress.budget)
        metrics.time.labels(study).set(progress.seconds)
        metrics.workers.labels(study).set(usage.workers)
        metrics.busy_share.labels(study).set(usage.share)
        before = self._usage.get(study, Usage())
        metrics.busy_seconds.labels(study).inc(max(0.0, usage.busy - before.busy))
        metrics.available_seconds.labels(study).inc(max(0.0, usage.available - before.available))
        self._usage[study] = usage
        for phase in PHASES:
            metrics.phase.labels(study, phase).set(progress.phase.endswith(phase))  # a control's name stands before it
        self._results[study] = progress.results
        self._note_search(study, progress.results)

    def _note_search(self, study: str, results: Results) -> None:
        self.metrics.searched.labels(study).set(results.search_told)
        self.metrics.cost.labels(study).set(results.cost_told)
        seen, seq, due = self._front
        if seen == study and (seq == results.last_seq or time.monotonic() < due):
            return
        metrics, began = self.metrics, time.thread_time()
        metrics.front.labels(study).set(len(results.front))
        volume = results.hypervolume() if len(results.objectives) <= pareto.EXACT_UP_TO else None
        metrics.volume.labels(study).set(math.nan if volume is None else volume)
        best = None if results.best is None else results.outcome(results.best)
        if results.best is not None and best is not None:
            metrics.best_loss.labels(study).set(results.weighted(results.best) or 0.0)
            for name, score in best.scores.items():
                metrics.best_score.labels(study, name).set(score.value)
        taken = time.thread_time() - began
        wait = taken / FRONT_SHARE if taken > FRONT_QUICK else 0.0
        self._front = (study, results.last_seq, time.monotonic() + wait)

    def _left(self, study: str) -> None:
        self.metrics.running.labels(study).set(0)
        self.metrics.in_flight.labels(study).set(0)
        for phase in PHASES:
            self.metrics.phase.labels(study, phase).set(0)

    def _kind(self, kind: str) -> str:
        """The kind as a label: error classes come from scorers' code, so that their number has no bound of its own."""
        if kind not in self._kinds and len(self._kinds) >= MOST_KINDS:
            return OTHER
        self._kinds.add(kind)
        return kind
