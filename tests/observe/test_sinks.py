"""Sinks: a real study written by each real package, offline, and read back with the package's own readers."""

import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from controller.black_box import BASELINES, run, study
from observe.watched_study import tell_all

from mergesearch.errors import SpecError
from mergesearch.observe.sinks import SINKS
from mergesearch.observe.sinks import open as opening
from mergesearch.observe.sinks.base import Heading
from mergesearch.observe.sinks.observer import Known, SinkObserver
from mergesearch.observe.sinks.open import choose, known_of
from mergesearch.observe.sinks.wandb import records
from mergesearch.results import Results
from mergesearch.store.memory import MemoryStore

Series = Mapping[str, list[tuple[int, float]]]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing but this machine can be reached, and neither thread nor process stays behind."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        assert isinstance(address, str) or address[0] in ("127.0.0.1", "::1", "localhost"), address
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    before = set(threading.enumerate())
    children = set(psutil.Process().children(recursive=True))
    yield
    assert [t.name for t in set(threading.enumerate()) - before if t.is_alive()] == []
    assert [child.name() for child in set(psutil.Process().children(recursive=True)) - children] == []


def tensorboard(folder: Path) -> tuple[Series, str]:
    """Scalars by TensorBoard's accumulator, and its texts."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (place,) = (folder / "tensorboard").iterdir()
    read = EventAccumulator(str(place), size_guidance={"scalars": 0, "tensors": 0})
    read.Reload()
    tags = read.Tags()
    series = {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in tags["scalars"]}
    texts = "".join(e.tensor_proto.string_val[0].decode() for tag in tags["tensors"] for e in read.Tensors(tag))
    return series, texts


def mlflow(folder: Path) -> tuple[Series, str]:
    """Metrics, params and tags by MLflow's client."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    try:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=(folder / "mlflow").as_uri())
        place = client.get_experiment_by_name("mergesearch")
        (found,) = client.search_runs([place.experiment_id])
        history = {name: client.get_metric_history(found.info.run_id, name) for name in found.data.metrics}
    finally:
        del os.environ["MLFLOW_ALLOW_FILE_STORE"]
    assert found.info.status == "FINISHED"
    return {n: [(m.step, m.value) for m in h] for n, h in history.items()}, f"{found.data.params} {found.data.tags}"


def wandb(folder: Path) -> tuple[Series, str]:
    """History and the rest of every offline file of the one run, by W&B's own records."""
    import json

    from wandb.proto.wandb_internal_pb2 import Record

    series: dict[str, list[tuple[int, float]]] = {}
    rest = ""
    files = sorted(folder.glob("wandb/wandb/offline-run-*/run-*.wandb"))
    assert len({file.name for file in files}) == 1
    for file in files:
        for data in records(file.read_bytes()):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") != "history":
                rest += str(record)
                continue
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                value = json.loads(item.value_json)
                if isinstance(value, int | float) and not name.startswith("_"):
                    series.setdefault(name, []).append((record.history.step.num, value))
                else:
                    rest += str(value)
    return series, rest


READERS = {"tensorboard": tensorboard, "mlflow": mlflow, "wandb": wandb}


def observer(kind: str, folder: Path, store: MemoryStore) -> SinkObserver:
    """As the command line makes it."""
    return choose(kind, folder).observer(lambda name: known_of(lambda: store, name))


@pytest.mark.parametrize("kind", sorted(SINKS))
def test_a_study_and_its_resume_are_one_series(kind: str, tmp_path: Path) -> None:
    """Scores, best, hypervolume, coefficients and config stand there; a resume doubles and skips no step."""
    store = MemoryStore()
    more: dict[str, Any] = {"baselines": BASELINES}
    for evaluations in (6, 12):
        with observer(kind, tmp_path, store) as sink:
            results: Results = run(store, study(evaluations=evaluations, **more), observers=[sink])
            sink.ended("done")
    series, rest = READERS[kind](tmp_path)
    told = len(results.outcomes)
    assert [step for step, _ in series["evaluations/search"]] == list(range(1, told + 1))
    scores = [
        results.outcome(number).scores["up"].value  # type: ignore[union-attr]
        for (number, split), _ in results.outcomes.items()
        if not results.candidates[number].origin.startswith("baseline") and split == "search"
    ]
    assert [value for _, value in series["search/up"]] == pytest.approx(scores, rel=1e-6)
    assert series["best/loss"][-1][1] == pytest.approx(results.weighted(results.best), rel=1e-6)  # type: ignore[arg-type]
    assert series["front/hypervolume"][-1][1] == pytest.approx(results.hypervolume(), rel=1e-6)
    assert len(series["baseline/base/up"]) == 1
    assert any(name.startswith("coefficient/") for name in series)
    assert "cma_es" in rest


@pytest.mark.parametrize("kind", sorted(SINKS))
def test_failures_are_told_without_passwords(kind: str, tmp_path: Path) -> None:
    """Counted, and said in words; a password in a message is hidden."""
    with choose(kind, tmp_path).observer(lambda name: Known(Heading(name, "ab" * 32))) as sink:
        tell_all([sink])
        sink.ended("done")
    series, rest = READERS[kind](tmp_path)
    assert series["evaluations/failed"][-1][1] == 1
    assert "timeout" in rest
    assert "secret" not in rest


def test_what_an_earlier_controller_did_not_write_is_written(tmp_path: Path) -> None:
    """A sink that was not there from the start, or was killed, gets the evaluations that it lacks."""
    store = MemoryStore()
    results = run(store, study(evaluations=5))
    with observer("tensorboard", tmp_path, store) as sink:
        results = run(store, study(evaluations=8), observers=[sink])
    (file,) = tmp_path.glob("tensorboard/*/events*")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) * 2 // 3])  # cut within a record
    with observer("tensorboard", tmp_path, store) as sink:
        results = run(store, study(evaluations=10), observers=[sink])
    series, _ = tensorboard(tmp_path)
    assert [step for step, _ in series["evaluations/search"]] == list(range(1, len(results.outcomes) + 1))
    assert [round(v) for _, v in series["evaluations/search"]] == list(range(1, 11))


def test_a_sink_that_breaks_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file stands where its folder should be: the study runs to its end all the same."""
    (tmp_path / "tensorboard").write_text("in the way")
    store = MemoryStore()
    with caplog.at_level(logging.WARNING), observer("tensorboard", tmp_path, store) as sink:
        results = run(store, study(evaluations=30), observers=[sink])
    assert results.search_told == 30
    warnings = [r.getMessage() for r in caplog.records if "sink" in r.getMessage()]
    assert len(warnings) == 1
    assert "the study goes on" in warnings[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wandbb", "did you mean 'wandb'"),
        ("wandb:mode=loud", "mode"),
        ("wandb:project", "options look like"),
        ("mlflow:uri=nowhere", "uri"),
        ("tensorboard:project=x", "unknown key 'project'"),
    ],
)
def test_what_cannot_be_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """Unknown kinds and options, before the study starts."""
    with pytest.raises(SpecError, match=message):
        choose(text, tmp_path)


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to type."""
    monkeypatch.setattr(opening.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"pip install 'mergesearch\[mlflow\]'"):
        choose("mlflow", tmp_path)
