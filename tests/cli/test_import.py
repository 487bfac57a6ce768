"""mergesearch import as a user types it."""

import sys
from pathlib import Path

import pytest

from mergesearch.cli.app import main
from mergesearch.study.source import Source, parse_study

CONFIG = """
models:
  - {model: models/a, parameters: {weight: 0.4}}
merge_method: task_arithmetic
base_model: models/base
"""
OBJECTIVE = "objectives: [{name: o, scorer: text_classification, data: {path: o.csv}}]"


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["mergesearch", *arguments])
    try:
        main()
    except SystemExit as exit:
        return int(exit.code or 0)
    return 0


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A merge config in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "merge.yaml").write_text(CONFIG)
    return tmp_path / "merge.yaml"


def test_a_study_file_is_written(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user is told what to fill in and which models to fetch; then the file loads."""
    assert typed(monkeypatch, "import", "mergekit", "merge.yaml", "--to", "study.yaml") == 0
    out = capsys.readouterr().out
    assert "fill in 'objectives' in study.yaml" in out
    assert "'models/a' is no folder here" in out
    text = (config.parent / "study.yaml").read_text()
    study = parse_study(Source("study.yaml", text.replace("objectives: []", OBJECTIVE), config.parent))
    assert study.name == "merge"
    assert study.space.searched["coefficient"].init == 0.4


def test_without_to_it_is_printed(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing but the study, to be piped."""
    assert typed(monkeypatch, "import", "mergekit", "merge.yaml") == 0
    assert capsys.readouterr().out.startswith("# From mergekit's merge config (merge_method: task_arithmetic)")
    assert sorted(p.name for p in config.parent.iterdir()) == ["merge.yaml"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mergekit", "merge.yaml", "--to", "merge.yaml"), "merge.yaml exists already"),
        (("mergekit", "merge.yaml", "--to", "no/where.yaml"), "cannot write 'no/where.yaml'"),
        (("mergekit", "nothing.yaml"), "cannot read 'nothing.yaml'"),
        (("mergekt", "merge.yaml"), "did you mean 'mergekit'"),
    ],
)
def test_faults_are_one_sentence(
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    """And leave every file as it was."""
    assert typed(monkeypatch, "import", *arguments) == 2
    assert words in capsys.readouterr().err
    assert config.read_text() == CONFIG
