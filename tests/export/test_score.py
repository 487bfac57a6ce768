"""Scoring a folder as a study would."""

from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file
from small_study import Small, evaluated, resolved_study
from tiny import make_text, make_texts

from mergesearch.errors import CheckpointError, EvaluationError
from mergesearch.export.export import export_study
from mergesearch.export.score import score_checkpoint
from mergesearch.export.select import select
from mergesearch.report.plot import plot_front
from mergesearch.types import Split

STUDY = """
name: text
models:
  base: base
  experts: {a: a, b: b}
merge: {operator: ties}
space: {groups: module}
objectives:
  - {name: reviews, scorer: text_classification, data: {path: t.csv, sizes: {search: 40, confirm: 20, test: 30}}}
store: memory://
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A study that merges whole text classifiers, heads included."""
    root = tmp_path_factory.mktemp("text")
    base = make_text(root / "base", 0)
    for seed, name in enumerate("ab", 1):
        make_text(root / name, seed, base=base)
    make_texts(root / "t.csv", 90)
    return evaluated(root, STUDY)


def test_a_merge_without_heads_apart_is_one_folder(whole: Small, tmp_path: Path) -> None:
    """The export's own folder is the model, with tokenizer and mergekit.yaml; it scores what the store says."""
    number = select(whole.stored)
    found = export_study(whole.resolved, whole.stored, whole.store, number, tmp_path / "out", plot=plot_front)
    assert not (found.folder / "front.png").exists()  # one objective has no front to draw
    assert found.models == {"": found.folder}
    names = {path.name for path in found.folder.iterdir()}
    assert {"config.json", "model.safetensors", "vocab.txt", "recipe.yaml", "README.md", "mergekit.yaml"} <= names
    assert yaml.safe_load((found.folder / "mergekit.yaml").read_text())["merge_method"] == "ties"
    for split in Split:
        outcome = whole.results.outcome(number, split)
        assert outcome is not None
        assert score_checkpoint(found.folder, whole.resolved, split, "cpu") == dict(outcome.scores)


def test_any_folder_can_be_scored(whole: Small) -> None:
    """An expert's own folder gives the score of the baseline that is the expert."""
    number = whole.results.baselines()["baseline:expert:a"]
    outcome = whole.results.outcome(number)
    assert outcome is not None
    found = score_checkpoint(whole.file.parent / "a", whole.resolved, Split.SEARCH, "cpu")
    assert found["reviews"].value == pytest.approx(outcome.scores["reviews"].value, abs=0.03)


def test_a_folder_without_a_model_is_refused(whole: Small, tmp_path: Path) -> None:
    """One sentence for an empty folder, one for a damaged configuration."""
    with pytest.raises(CheckpointError, match=r"config\.json"):
        score_checkpoint(tmp_path, whole.resolved, Split.SEARCH, "cpu")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        score_checkpoint(tmp_path, whole.resolved, Split.SEARCH, "cpu")


def test_a_score_that_is_not_finite_is_an_error(whole: Small, tmp_path: Path) -> None:
    """A broken checkpoint does not get a number."""
    folder = make_text(tmp_path / "broken", 0)
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"][:] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(EvaluationError, match="not finite"):
        score_checkpoint(folder, resolved_study(whole.file.parent, STUDY), Split.SEARCH, "cpu")
