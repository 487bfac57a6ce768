"""`mergesearch resume` with limits: a study that is done goes on, and bad values are one sentence."""

from pathlib import Path

import pytest
from export.small_study import STUDY, make_models
from typer.testing import CliRunner

from mergesearch.cli.app import app
from mergesearch.cli.limits import limits
from mergesearch.errors import SpecError
from mergesearch.store.open import open_store
from mergesearch.stored import read_stored
from mergesearch.types import Status


@pytest.mark.timeout(120)
def test_a_done_study_is_raised_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly the new budget is asked, controls and all; it stands for the next resume, which has nothing to do."""
    make_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/s.db"
    short = (
        "strategy: {kind: random}\nbudget: {evaluations: 2}\nholdout: {finalists: 1}\nbaselines: {lambdas: []}\n"
        "controls: [lambda]\n"
    )
    (tmp_path / "small.yaml").write_text(STUDY.replace("store: memory://", f"{short}store: '{url}'"))

    def command(*words: str) -> str:
        done = CliRunner().invoke(app, [*words])
        assert done.exit_code == 0, done.output
        return done.output

    command("launch", "small.yaml")
    command("resume", "small.yaml", "--evaluations", "4", "--hours", "2", "--plateau", "30:0.01")
    store = open_store(url)
    for name in ("small", "small--lambda"):
        study = read_stored(store, name)
        assert study.record.status is Status.DONE
        assert (study.results.search_told, study.budget) == (4, 4)
    kept = {"examples": None, "gpu_seconds": None, "hours": 2.0, "target": {}}
    assert store.facts("small")["limits"] == {**kept, "plateau": {"evaluations": 30.0, "gain": 0.01}}
    assert store.facts("small--lambda")["limits"] == {**kept, "plateau": None}
    assert store.facts("small")["ended"] == "evaluations"
    before = len(store.events("small"))
    command("resume", "small", "--store", url)
    assert len(store.events("small")) == before
    command("resume", "small", "--store", url, "--examples", "400", "--evaluations", "9")
    assert read_stored(store, "small").results.search_told == 5
    assert store.facts("small")["ended"] == "examples"
    store.close()


def test_gpu_seconds_without_a_gpu_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one sentence, before anything is recorded."""
    make_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = STUDY.replace("store: memory://", f"budget: {{gpu_seconds: 60}}\nstore: 'sqlite:///{tmp_path}/s.db'")
    (tmp_path / "small.yaml").write_text(text)
    done = CliRunner().invoke(app, ["launch", "small.yaml"])
    assert done.exit_code != 0
    assert isinstance(done.exception, SpecError) or "has no GPUs to count" in done.output
    assert not (tmp_path / "s.db").exists() or open_store(f"sqlite:///{tmp_path}/s.db").studies() == []


def test_options_become_limits() -> None:
    """Numbers, pairs and 'off'; what is not given is not changed."""
    assert limits(None, None, None, None, None, None) == {}
    assert limits(5, "off", "2.5", None, "a=0.5, b=-1", "30") == {
        "evaluations": 5,
        "examples": "off",
        "gpu_seconds": 2.5,
        "target": {"a": 0.5, "b": -1.0},
        "plateau": {"evaluations": 30.0},
    }


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((None, "many", None, None, None, None), "--examples 'many' must be a number, or 'off'"),
        ((None, None, None, None, "acc", None), "--target 'acc' must be NAME=VALUE,NAME=VALUE, or 'off'"),
        ((None, None, None, None, None, "a:b"), "--plateau 'a:b' must be N or N:GAIN, or 'off'"),
    ],
)
def test_a_bad_option_is_one_sentence(values: tuple[None, ...], sentence: str) -> None:
    """Which option, what was given, what it takes."""
    with pytest.raises(SpecError, match=sentence):
        limits(*values)  # type: ignore[arg-type]
