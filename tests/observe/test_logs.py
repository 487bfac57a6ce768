"""The log: a line per evaluation, JSON that programs read, never a password."""

import json
import logging
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from observe.watched_study import tell_all

from mergesearch.errors import SpecError
from mergesearch.observe.logs import LogObserver, logging_to
from mergesearch.observe.passwords import hide_passwords
from mergesearch.store.base import StudyRecord
from mergesearch.types import Status

ENDED = StudyRecord("made", "", "", Status.PAUSED, 0.0, 9.0, 9.0, "paused on request")


def logged(file: Path, *, as_json: bool, level: str = "info") -> list[str]:
    """The lines of a study's log."""
    with logging_to(file, as_json=as_json, level=level):
        log = LogObserver()
        tell_all([log])
        log.ended(ENDED)
    return file.read_text(encoding="utf-8").splitlines()


def test_json_lines_have_flat_keys(tmp_path: Path) -> None:
    """Every line is one JSON object with ts, level, logger and event; an evaluation says all that is known of it."""
    lines = [json.loads(line) for line in logged(tmp_path / "deep" / "log.jsonl", as_json=True)]
    assert [line["event"] for line in lines] == ["study_started", *["evaluation"] * 5, "repeat", "study_paused"]
    assert all(line["logger"] == "mergesearch.study" and line["study"] == "made" for line in lines)
    assert datetime.fromisoformat(lines[0]["ts"]).utcoffset() == timedelta(0)
    assert not any(isinstance(value, dict | list) for line in lines for value in line.values())
    wanted = {
        "candidate": 4, "split": "search", "status": "scored", "origin": "sample", "cost": 1.0, "attempt": 2,
        "worker": "w1", "seq": 10, "queue_seconds": 0.5, "build_seconds": 0.25, "score_seconds": 2.0,
        "record_seconds": 0.0625, "gpu_seconds": 4.5, "score_acc": 0.4, "score_loss": 0.4, "loss_acc": -0.4,
        "loss_loss": 0.4, "loss": 0.0, "level": "info",
    }  # fmt: skip
    assert wanted.items() <= lines[5].items()
    failed = lines[3]
    assert (failed["level"], failed["status"], failed["kind"]) == ("warning", "failed", "timeout")
    assert failed["error"] == 'store "postgresql://me:***@db/x" said\nno'
    assert (lines[6]["level"], lines[6]["attempt"], lines[6]["score_acc"]) == ("warning", 3, None)
    assert (lines[7]["reason"], lines[7]["evaluations"], lines[7]["seconds"]) == ("paused on request", 5, 9.0)


def test_text_is_a_line_each(tmp_path: Path) -> None:
    """For people: moment, level, sentence; a second line of a message is indented; a password is not there."""
    lines = logged(tmp_path / "log.txt", as_json=False)
    assert "secret" not in "\n".join(lines)
    assert len([line for line in lines if not line.startswith("    ")]) == 8
    assert lines[1].endswith("INFO study 'made': #0 search scored after 2.75 s on w1: acc 0, loss 0")
    assert "WARNING study 'made': #2 search failed after 3.5 s on w2: timeout: store" in lines[3]
    assert "on cache" in lines[5]
    assert lines[-1].endswith("INFO study 'made': paused: paused on request")


def test_a_resumed_study_says_so(tmp_path: Path) -> None:
    """Its first line is not that of a new one."""
    quiet = LogObserver()
    progress = tell_all([quiet])
    with logging_to(tmp_path / "log", as_json=True, level="info"):
        LogObserver().progressed(progress)
    assert json.loads((tmp_path / "log").read_text())["event"] == "study_resumed"


def test_the_level_says_what_is_worth_a_line(tmp_path: Path) -> None:
    """Warnings are failures and repeats; an error is a failed study."""
    assert len(logged(tmp_path / "a", as_json=True, level="warning")) == 2
    with logging_to(tmp_path / "b", as_json=True, level="error"):
        LogObserver().ended(StudyRecord("made", "", "", Status.FAILED, 0.0, 0.0, message="no worker"))
    assert json.loads((tmp_path / "b").read_text())["message"] == "study 'made': failed: no worker"


def test_the_log_goes_to_what_stderr_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    """Also what the store and the pool say, an exception's traceback included; afterwards all is as before."""
    logger = logging.getLogger("mergesearch")
    before = logger.level, logger.propagate, list(logger.handlers)
    with logging_to(None, as_json=True, level="warning"):
        try:
            raise ValueError("odd")
        except ValueError:
            logging.getLogger("mergesearch.store.sql").exception("lost postgresql://me:secret@db/x")
    assert (logger.level, logger.propagate, list(logger.handlers)) == before
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["message"]) == ("message", "lost postgresql://me:***@db/x")
    assert "ValueError: odd" in line["traceback"]


def test_a_log_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """One sentence, before the study starts."""
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(SpecError, match="cannot be written"),
        logging_to(tmp_path / "file" / "log", as_json=False, level="info"),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:se:cr@et@db:5432/x?y=1", "postgresql://me:***@db:5432/x?y=1"),
        (
            "postgresql+psycopg://me@db/x?password=secret&sslmode=on",
            "postgresql+psycopg://me@db/x?password=***&sslmode=on",
        ),
        ("host=db password=secret user=me", "host=db password=*** user=me"),
        ("postgresql://:secret@db/x", "postgresql://:***@db/x"),
        ("sqlite:///runs/a.db at 12:30 by me@home", "sqlite:///runs/a.db at 12:30 by me@home"),
        ("http://127.0.0.1:8265/jobs", "http://127.0.0.1:8265/jobs"),
    ],
)
def test_passwords_are_hidden_and_nothing_else(text: str, shown: str) -> None:
    """Of URLs and connection strings, wherever they stand."""
    assert hide_passwords(text) == shown
