"""Where a study's time went: waiting, building, scoring, recording; by worker; how many evaluations a minute."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mergesearch.export.tables import Times
from mergesearch.report.estimate import NOTHING, duration
from mergesearch.results import Results
from mergesearch.store.base import Repeat, StudyRecord
from mergesearch.store.values import CACHE
from mergesearch.types import Failed, Outcome, Scored, Split

PARTS: Final = ("queue", "build", "score", "record")
WORKERS_SHOWN: Final = 20
RECENT: Final = 50  # evaluations that the recent throughput is taken over


@dataclass(frozen=True)
class Spent:
    """Seconds that evaluations spent on one part; `share` of all parts' total."""

    part: str
    total: float
    mean: float
    median: float
    p95: float
    max: float
    share: float


@dataclass(frozen=True)
class WorkerTime:
    """One worker: how many evaluations, busy seconds (build and score), failures among them."""

    worker: str
    evaluations: int
    busy: float
    failures: int


@dataclass(frozen=True)
class TimingReport:
    """Of all splits. `per_minute` and `recent_per_minute` are evaluations a minute over the study's whole time and over
    the last 50 of them; None where it cannot be told. `busy_share` is that of the workers since the last resume."""

    parts: tuple[Spent, ...]
    workers: tuple[WorkerTime, ...]
    evaluations: int
    cached: int
    gpu_seconds: float
    per_minute: float | None
    recent_per_minute: float | None
    usage: Mapping[str, float]

    @property
    def busy_share(self) -> float | None:
        """Busy worker-seconds of those available; None where nobody noted them."""
        available = self.usage.get("available", 0.0)
        return min(1.0, self.usage.get("busy", 0.0) / available) if available > 0 else None

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "evaluations": self.evaluations,
            "cached": self.cached,
            "gpu_seconds": self.gpu_seconds,
            "per_minute": self.per_minute,
            "recent_per_minute": self.recent_per_minute,
            "busy_share": self.busy_share,
            "usage": dict(self.usage),
            "parts": [asdict(part) for part in self.parts],
            "workers": [asdict(worker) for worker in self.workers],
        }


def timing_report(results: Results, record: StudyRecord, facts: Mapping[str, object], times: Times) -> TimingReport:
    """Where the time of a study's evaluations went; those taken from the cache are counted, and left out of the rest.

    `facts['usage']` is what the controller noted of its workers. `times`: when each evaluation was asked and told.
    """
    told = list(results.outcomes.values())
    made = [outcome for outcome in told if outcome.worker != CACHE]
    usage = facts.get("usage")
    known = {k: float(v) for k, v in usage.items() if isinstance(v, int | float)} if isinstance(usage, Mapping) else {}
    return TimingReport(
        parts=_parts(made),
        workers=_workers(made),
        evaluations=len(told),
        cached=len(told) - len(made),
        gpu_seconds=sum(outcome.timing.gpu for outcome in made),
        per_minute=60.0 * len(told) / record.seconds if record.seconds > 0 and told else None,
        recent_per_minute=_recent(times),
        usage=known,
    )


def _parts(outcomes: Sequence[Outcome]) -> tuple[Spent, ...]:
    if not outcomes:
        return ()
    seconds = {part: np.array([getattr(outcome.timing, part) for outcome in outcomes]) for part in PARTS}
    whole = sum(float(values.sum()) for values in seconds.values()) or 1.0
    return tuple(
        Spent(
            part,
            float(values.sum()),
            float(values.mean()),
            float(np.median(values)),
            float(np.quantile(values, 0.95)),
            float(values.max()),
            float(values.sum()) / whole,
        )
        for part, values in seconds.items()
    )


def _workers(outcomes: Sequence[Outcome]) -> tuple[WorkerTime, ...]:
    by_worker: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_worker.setdefault(outcome.worker, []).append(outcome)
    found = [
        WorkerTime(
            worker,
            len(own),
            sum(outcome.timing.build + outcome.timing.score for outcome in own),
            sum(isinstance(outcome, Failed) for outcome in own),
        )
        for worker, own in by_worker.items()
    ]
    return tuple(sorted(found, key=lambda w: (-w.busy, w.worker)))


def _recent(times: Times) -> float | None:
    told = sorted(at for _, at in times.values() if at is not None)[-RECENT - 1 :]
    return 60.0 * (len(told) - 1) / (told[-1] - told[0]) if len(told) > 1 and told[-1] > told[0] else None


def render_timing(report: TimingReport) -> RenderableType:
    """Tables of parts and workers, and a line of figures; fits 80 columns."""
    if not report.evaluations:
        return Text("No evaluation has ended yet.", style="dim")
    parts = Table(box=None, pad_edge=False)
    for name in ("seconds of", "total", "share", "mean", "median", "p95", "max"):
        parts.add_column(name, header_style="bold", justify="left" if name == "seconds of" else "right")
    for spent in report.parts:
        shown = (spent.mean, spent.median, spent.p95, spent.max)
        parts.add_row(spent.part, duration(spent.total), f"{spent.share:.1%}", *(duration(s) for s in shown))
    workers = Table(box=None, pad_edge=False)
    for name in ("worker", "evaluations", "busy", "failures"):
        workers.add_column(name, header_style="bold", justify="left" if name == "worker" else "right")
    for worker in report.workers[:WORKERS_SHOWN]:
        row = str(worker.evaluations), duration(worker.busy), str(worker.failures)
        workers.add_row(Text(worker.worker or NOTHING, overflow="fold"), *row)
    found: list[RenderableType] = [parts, Text(), workers]
    if len(report.workers) > WORKERS_SHOWN:
        found.append(Text(f"… and {len(report.workers) - WORKERS_SHOWN} more workers: see --json.", style="dim"))
    return Group(*found, Text(), Text("\n".join(_figures(report))))


def _figures(report: TimingReport) -> list[str]:
    """Sentences: throughput, how busy the workers were, GPUs, the cache."""
    pace = NOTHING if report.per_minute is None else f"{report.per_minute:.4g}"
    text = f"{report.evaluations} evaluations, {pace} a minute"
    if report.recent_per_minute is not None:
        text += f"; of late {report.recent_per_minute:.4g} a minute"
    texts = [text]
    if report.busy_share is not None:
        count = report.usage.get("workers")
        who = "the workers" if not count else "1 worker" if count == 1 else f"{count:.0f} workers"
        texts.append(
            f"{who} busy {report.busy_share:.1%} of {duration(report.usage['available'])} since the last start"
        )
    if report.gpu_seconds > 0:
        texts.append(f"{report.gpu_seconds:.4g} GPU-seconds")
    if report.cached:
        texts.append(f"{report.cached} evaluations taken from the cache")
    return texts


@dataclass(frozen=True)
class RepeatReport:
    """Evaluations that gave other scores when repeated. The largest difference of a score, and where."""

    count: int
    objective: str
    number: int
    split: Split
    difference: float

    @property
    def sentence(self) -> str:
        """For people."""
        what = "1 evaluation" if self.count == 1 else f"{self.count} evaluations"
        if self.objective:
            where = f"#{self.number} on {self.split.value}"
            return f"{what} gave other scores when repeated; the largest: {self.objective} of {where}, {self._apart}"
        return f"{what} ended otherwise when repeated"

    @property
    def _apart(self) -> str:
        return f"{self.difference:+.3g}"


def repeat_report(results: Results, repeats: Sequence[Repeat]) -> RepeatReport | None:
    """How far repeats lie from what counts; None while there are none.

    A failure that was a score before, or the other way round, counts without a difference.
    """
    if not repeats:
        return None
    found = [("", repeats[0].number, repeats[0].split, 0.0)]
    for repeat in repeats:
        first = results.outcomes.get((repeat.number, repeat.split))
        if isinstance(first, Scored) and isinstance(repeat.outcome, Scored):
            found += [
                (name, repeat.number, repeat.split, score.value - first.scores[name].value)
                for name, score in repeat.outcome.scores.items()
                if name in first.scores
            ]
    largest = max(found, key=lambda row: abs(row[3]))
    return RepeatReport(len({(r.number, r.split) for r in repeats}), *largest)
