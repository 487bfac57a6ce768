"""The log of a running study: a line per evaluation and per turn of the study, as text or as JSON for programs."""

import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, final

from mergesearch.controller.observer import Observer, Progress
from mergesearch.errors import SpecError
from mergesearch.observe.passwords import hide_passwords
from mergesearch.store.base import StudyRecord
from mergesearch.types import Failed, Scored, Status, Told, losses, weighted_loss

ROOT: Final = "mergesearch"
FIELDS: Final = "mergesearch_fields"

_LOG = logging.getLogger(f"{ROOT}.study")


@contextmanager
def logging_to(file: Path | None, *, as_json: bool, level: str) -> Iterator[None]:
    """Send what mergesearch logs from `level` on ('debug', 'info', 'warning', 'error') to the end of `file`, None: to
    stderr, until the block ends. 'info' is a line per evaluation, 'warning' failures and repeats.

    Raises:
        SpecError: the file cannot be written.
    """
    handler: logging.Handler = _Stderr()
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(file, encoding="utf-8")
        except OSError as error:
            raise SpecError(f"log file {file} cannot be written: {error.strerror or error}") from None
    handler.setFormatter(JsonLines() if as_json else TextLines())
    logger = logging.getLogger(ROOT)
    before = logger.level, logger.propagate
    logger.setLevel(level.upper())
    logger.propagate = False  # another library's root handler would say everything twice
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
        handler.close()


class _Stderr(logging.Handler):
    """Writes to what stderr is now: a live panel replaces it while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")


@final
class JsonLines(logging.Formatter):
    """A JSON object a line: `ts` (ISO 8601, UTC), `level`, `logger`, `event`, `message`, and the event's own keys."""

    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, Any] = getattr(record, FIELDS, {})
        body: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": fields.get("event", "message"),
            "message": record.getMessage(),
        }
        body |= {key: value for key, value in fields.items() if key not in body}
        if record.exc_info:
            body["traceback"] = self.formatException(record.exc_info)
        # Texts are cleaned one by one: a quote in a password would break a line that is cleaned as a whole.
        return json.dumps({key: _plain(value) for key, value in body.items()}, ensure_ascii=False)


@final
class TextLines(logging.Formatter):
    """'2026-07-01T12:00:00Z INFO sentence', for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        return hide_passwords(super().format(record)).replace("\n", "\n    ")


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return hide_passwords(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return value


@final
class LogObserver(Observer):
    """Logs what an observer sees: see `store/base.py` and `controller/observer.py` for what it is told.

    Lines of an evaluation are 'info', of a failed one 'warning', of one that gave other scores when repeated
    'warning'. A study's first and last line say how it starts and how it ended.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Progress] = {}

    def evaluated(self, study: str, told: Told, attempt: int) -> None:
        fields = evaluation_fields(self._seen.get(study), study, told, attempt)
        failed = isinstance(told.outcome, Failed)
        seconds = sum((told.outcome.timing.queue, told.outcome.timing.build, told.outcome.timing.score))
        end = f"{fields['kind']}: {fields['error']}" if failed else _scores_text(fields)
        message = (
            f"study {study!r}: #{told.candidate.number} {told.split.value} {fields['status']} after {seconds:.3g} s"
            f" on {told.outcome.worker or 'a worker'}: {end}"
        )
        _say(logging.WARNING if failed else logging.INFO, message, fields)

    def repeated(self, study: str, told: Told, attempt: int) -> None:
        fields = {**evaluation_fields(self._seen.get(study), study, told, attempt), "event": "repeat"}
        message = (
            f"study {study!r}: #{told.candidate.number} {told.split.value} ended once more, on"
            f" {told.outcome.worker or 'a worker'}, attempt {attempt}; the first outcome counts"
        )
        _say(logging.WARNING, message, fields)

    def progressed(self, progress: Progress) -> None:
        if progress.study not in self._seen:
            resumed = progress.results.last_seq > 0 and progress.results.outcomes
            event = "study_resumed" if resumed else "study_started"
            fields: dict[str, Any] = {"event": event, "study": progress.study, **_standing(progress)}
            _say(logging.INFO, f"study {progress.study!r}: {event.removeprefix('study_')}", fields)
        self._seen[progress.study] = progress

    def ended(self, record: StudyRecord) -> None:
        """How a study stands once its controller has left it: done, paused, stopped or failed."""
        progress = self._seen.get(record.name)
        fields: dict[str, Any] = {
            "event": f"study_{record.status.value}",
            "study": record.name,
            "reason": record.message,
        }
        fields |= {} if progress is None else _standing(progress)
        fields["seconds"] = record.seconds
        level = logging.ERROR if record.status is Status.FAILED else logging.INFO
        because = f": {record.message}" if record.message else ""
        _say(level, f"study {record.name!r}: {record.status.value}{because}", fields)


def evaluation_fields(progress: Progress | None, study: str, told: Told, attempt: int) -> dict[str, Any]:
    """The flat keys of an evaluation's line: `score_<objective>` and `loss_<objective>`, seconds by part, and more."""
    candidate, outcome = told.candidate, told.outcome
    fields: dict[str, Any] = {
        "event": "evaluation",
        "study": study,
        "seq": told.seq,
        "candidate": candidate.number,
        "split": told.split.value,
        "status": "scored" if isinstance(outcome, Scored) else "failed",
        "origin": candidate.origin,
        "cost": candidate.cost,
        "attempt": attempt,
        "worker": outcome.worker,
    }
    fields |= {f"{part}_seconds": getattr(outcome.timing, part) for part in ("queue", "build", "score", "record")}
    fields["gpu_seconds"] = outcome.timing.gpu
    if isinstance(outcome, Failed):
        return fields | {"kind": outcome.kind, "error": outcome.message}
    fields |= {f"score_{name}": score.value for name, score in outcome.scores.items()}
    if progress is not None:
        objectives = progress.results.objectives
        values = losses(objectives, outcome)
        assert values is not None
        fields |= {f"loss_{o.name}": float(value) for o, value in zip(objectives, values, strict=True)}
        fields["loss"] = weighted_loss(objectives, values)
    return fields


def _scores_text(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.removeprefix('score_')} {value:.6g}" for key, value in fields.items() if _is_score(key))


def _is_score(key: str) -> bool:
    return key.startswith("score_") and key != "score_seconds"


def _standing(progress: Progress) -> dict[str, Any]:
    return {
        "evaluations": progress.evaluations,
        "cost": progress.cost,
        "budget": progress.budget,
        "failures": progress.results.failed,
        "front": len(progress.results.front),
        "best": progress.results.best,
        "seconds": progress.seconds,
    }


def _say(level: int, message: str, fields: Mapping[str, Any]) -> None:
    _LOG.log(level, "%s", message, extra={FIELDS: fields})
