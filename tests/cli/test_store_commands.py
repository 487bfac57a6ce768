"""`mergesearch store`, `show --timing` and the log and metrics of `launch`, as a user types them."""

import json
import socket
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pyarrow.csv
import pyarrow.parquet
import pytest

from mergesearch.cli.app import main
from mergesearch.demo.smoke import make_smoke
from mergesearch.export.optuna_storage import open_storage

ROOT = Path(__file__).parents[2]
EVALUATIONS = 8

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the smoke experts and a short smoke study."""
    made = tmp_path_factory.mktemp("store")
    make_smoke(made / "runs" / "smoke", seed=0)
    text = (ROOT / "studies" / "smoke.yaml").read_text()
    (made / "smoke.yaml").write_text(text.replace("evaluations: 60", f"evaluations: {EVALUATIONS}"))
    return made


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Types a command in that folder: exit code, stdout, stderr."""
    monkeypatch.chdir(folder)

    def typed(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mergesearch", *arguments])
        code = 0
        try:
            main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return typed


@pytest.fixture
def launched(run: Run, folder: Path) -> Run:
    """As `run`, once the study has been searched, with a log."""
    if not (folder / "runs" / "mergesearch.db").exists():
        code, _, err = run("launch", "smoke.yaml", "--log-file", "logs/smoke.jsonl", "--log-format", "json")
        assert code == 0, err
    return run


def test_launch_logs_every_evaluation(launched: Run, folder: Path) -> None:
    """One JSON line each, between the study's first and its last line."""
    lines = [json.loads(line) for line in (folder / "logs" / "smoke.jsonl").read_text().splitlines()]
    shown = json.loads(launched("store", "info", "--json")[1])
    evaluations = [line for line in lines if line["event"] == "evaluation"]
    assert len(evaluations) == shown["evaluations"] == shown["scored"]
    assert (lines[0]["event"], lines[-1]["event"]) == ("study_started", "study_done")
    assert {"score_a", "loss_b", "queue_seconds", "build_seconds", "score_seconds"} <= evaluations[0].keys()


def test_a_log_on_stderr_takes_the_panels_place(run: Run) -> None:
    """Text lines for people, with the moment; the metrics' address is told."""
    code, _, err = run(
        "launch", "smoke.yaml", "--store", "sqlite:///logged.db", "--log-level", "info", "--metrics-port", "0"
    )
    assert code == 0
    assert "metrics: http://127.0.0.1:" in err
    assert "INFO study 'smoke': #0 search scored" in err
    assert err.rstrip().endswith("INFO study 'smoke': done")


def test_a_taken_metrics_port_stops_the_launch_before_anything_is_recorded(run: Run, folder: Path) -> None:
    """Exit code 2, one sentence, no store."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = run("launch", "smoke.yaml", "--store", "sqlite:///none.db", "--metrics-port", port)
    assert (code, "name another --metrics-port" in err, "Traceback" in err) == (2, True, False)
    assert not (folder / "none.db").exists()


def test_info_tells_what_a_store_holds(launched: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For people and for programs; a copy beside the file counts as a backup; a password is never shown."""
    _, out, _ = launched("store", "info")
    assert "1: 1 done" in out
    assert "none beside the file" in out
    copy = folder / "runs" / "mergesearch.2026-01-01.backup"
    with sqlite3.connect(folder / "runs" / "mergesearch.db") as source, sqlite3.connect(copy) as target:
        source.backup(target)
    assert copy.name in launched("store", "info")[1]
    copy.unlink()
    monkeypatch.setenv("MERGESEARCH_STORE", "postgresql://me:secret@127.0.0.1:1/db?timeout=0.1")
    code, out, err = launched("store", "info")
    assert (code, "secret" in out + err) == (4, False), err


def test_show_timing_says_where_the_time_went(launched: Run) -> None:
    """For people and for programs."""
    _, out, _ = launched("show", "smoke", "--timing")
    for words in ("queue", "record", "p95", "inline", "a minute"):
        assert words in out
    body = json.loads(launched("show", "smoke", "--timing", "--json")[1])
    assert [part["part"] for part in body["parts"]] == ["queue", "build", "score", "record"]
    assert body["workers"][0]["evaluations"] + body["cached"] == body["evaluations"]


@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.jsonl", "t.parquet"])
def test_export_writes_a_row_per_evaluation(launched: Run, folder: Path, name: str) -> None:
    """The format follows the file's name."""
    wanted = json.loads(launched("store", "info", "--json")[1])["evaluations"]
    code, out, err = launched("store", "export", "smoke", "--to", name)
    assert (code, out) == (0, f"{wanted} evaluations written to {name}\n"), err
    assert len((folder / name).read_bytes()) > 1000
    if name == "t.csv":
        assert pyarrow.csv.read_csv(folder / name).num_rows == wanted
    code, _, err = launched("store", "export", "smoke", "--to", name)
    assert (code, "--force" in err) == (2, True)
    assert launched("store", "export", "--all", "--to", name, "--force")[0] == 0


def test_export_takes_examples_along(launched: Run, folder: Path) -> None:
    """As many as each score stands for."""
    assert launched("store", "export", "--all", "--to", "e", "--format", "parquet", "--examples")[0] == 0
    row = pyarrow.parquet.read_table(folder / "e").to_pylist()[0]
    assert len(row["examples.a"]) == row["n.a"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--to", "x.csv"], "name one study or --all"),
        (["smoke", "--all", "--to", "x.csv"], "name one study or --all"),
        (["smoke", "--to", "x.txt"], "say --format"),
        (["smoke", "--to", "x.csv", "--examples"], "CSV has no place"),
    ],
)
def test_exports_that_cannot_be_meant_are_refused(launched: Run, arguments: list[str], sentence: str) -> None:
    """One sentence, exit code 2."""
    code, _, err = launched("store", "export", *arguments)
    assert (code, sentence in err) == (2, True), err


def test_export_optuna_is_opened_by_optuna(launched: Run, folder: Path) -> None:
    """Every candidate of the search stands in it."""
    code, out, err = launched("store", "export-optuna", "smoke", "--to", "sqlite:///o/optuna.db")
    assert code == 0, err
    assert out.startswith(f"{EVALUATIONS} candidates of smoke written")
    loaded = optuna.load_study(study_name="smoke", storage=open_storage(f"sqlite:///{folder}/o/optuna.db"))
    assert len(loaded.trials) == EVALUATIONS


def test_gc_shows_first_and_deletes_on_yes(launched: Run) -> None:
    """Nothing goes without --yes; a named study goes with it."""
    url = "sqlite:///other.db"
    assert launched("launch", "smoke.yaml", "--store", url)[0] == 0
    _, out, _ = launched("store", "gc", "--store", url, "--study", "smoke")
    assert ("named" in out, "nothing was deleted" in out) == (True, True)
    body = json.loads(launched("store", "gc", "--store", url, "--status", "done", "--json")[1])
    assert (body["studies"][0]["study"], body["deleted"]) == ("smoke", None)
    _, out, _ = launched("store", "gc", "--store", url, "--status", "done", "--yes")
    assert "deleted 1 study; the store went from" in out
    assert json.loads(launched("studies", "--store", url, "--json")[1]) == []
    code, _, err = launched("store", "gc", "--store", url, "--older-than", "30d")
    assert (code, "needs --status" in err) == (2, True)
