"""Exported merges: they load, score what the record says, and can be built again."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_study import Small, make_study, new_process
from transformers import AutoModelForImageClassification

from mergesearch.errors import CheckpointError, SpecError
from mergesearch.export.export import ExportResult, export_study, folder_digest
from mergesearch.export.rebuilding import rebuild
from mergesearch.export.select import select
from mergesearch.report.plot import plot_front
from mergesearch.types import Split


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """One study for all tests here."""
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def exported(small: Small, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """The study's choice, exported."""
    to = tmp_path_factory.mktemp("out") / "merged"
    return export_study(
        small.resolved, small.stored, small.store, select(small.stored), to, plot=plot_front, clock=lambda: 5.0
    )


SCORE = """
import json, sys
from pathlib import Path
from mergesearch.export.score import score_checkpoint
from mergesearch.study.resolve import resolve
from mergesearch.study.source import read_study
from mergesearch.types import Split
spec, source = read_study(Path("small.yaml"))
resolved = resolve(spec, source.root)
scores = {s.value: score_checkpoint(Path(sys.argv[1]), resolved, s, "cpu") for s in Split}
print(json.dumps({s: {name: [x.value, x.stderr, x.n] for name, x in found.items()} for s, found in scores.items()}))
"""


def test_a_new_process_scores_the_export_as_the_record_says(small: Small, exported: ExportResult) -> None:
    """Loaded by transformers elsewhere, every split gives the stored score, error and n, to the last bit."""
    found = json.loads(new_process(SCORE, str(exported.folder), cwd=small.file.parent))
    for split in Split:
        outcome = small.results.outcome(exported.candidate, split)
        assert outcome is not None
        for name, score in outcome.scores.items():
            assert found[split.value][name] == [score.value, score.stderr, score.n]


def test_each_head_has_a_whole_folder_of_its_own(exported: ExportResult) -> None:
    """Any program loads DIR/<expert>: right number of classes, right labels, the processor beside."""
    for head, labels in (("digits", ["0", "1", "2"]), ("letters", list("abcde"))):
        folder = exported.models[head]
        assert folder == exported.folder / head
        model, info = AutoModelForImageClassification.from_pretrained(str(folder), output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert [model.config.id2label[i] for i in range(len(labels))] == labels
        assert (folder / "preprocessor_config.json").is_file()
    assert not (exported.folder / "config.json").exists()


def test_the_body_is_on_the_disk_once(exported: ExportResult) -> None:
    """The trunk's shard is one file under two names; the heads are the experts' own."""
    shards = [exported.models[head] / "model-00001-of-00002.safetensors" for head in ("digits", "letters")]
    assert os.stat(shards[0]).st_ino == os.stat(shards[1]).st_ino
    head = load_file(exported.models["letters"] / "model-00002-of-00002.safetensors")
    assert sorted(head) == ["classifier.bias", "classifier.weight"]


def test_what_belongs_to_an_export_is_there(small: Small, exported: ExportResult) -> None:
    """Recipe, card and picture; no mergekit.yaml, and the reason in notes and card."""
    names = sorted(p.name for p in exported.folder.iterdir())
    assert names == ["README.md", "digits", "front.png", "letters", "recipe.yaml"]
    assert any("mergekit cannot express this merge" in note for note in exported.notes)
    card = (exported.folder / "README.md").read_text()
    assert "![The front" in card
    assert "heads are kept apart" in card
    recipe = yaml.safe_load((exported.folder / "recipe.yaml").read_text())
    assert set(recipe["scores"]) == {"search", "confirm", "test"}
    assert recipe["digest"] == small.resolved.recipe(small.results.candidates[exported.candidate]).digest(
        small.resolved.digests()
    )


def test_the_store_knows_the_export(small: Small, exported: ExportResult) -> None:
    """Candidate, folder and SHA-256 of all files stand in the store; the digest can be checked later."""
    artifact = small.store.artifacts("small")[0]
    assert (artifact.candidate, artifact.kind, artifact.created) == (exported.candidate, "export", 5.0)
    assert artifact.path == str(exported.folder)
    assert artifact.sha256 == exported.sha256 == folder_digest(exported.folder)


def test_rebuild_gives_the_same_bits(small: Small, exported: ExportResult, tmp_path: Path) -> None:
    """recipe.yaml and the models alone give every weight file again, byte for byte; moved models are named."""
    moved = tmp_path / "elsewhere"
    (small.file.parent / "models" / "base").rename(moved)
    try:
        with pytest.raises(CheckpointError, match=r"not at .* any more"):
            rebuild(exported.folder, tmp_path / "again")
        rebuild(exported.folder / "recipe.yaml", tmp_path / "again", models={"base": moved})
    finally:
        moved.rename(small.file.parent / "models" / "base")
    for head in ("digits", "letters"):
        for file in exported.models[head].glob("*"):
            assert (tmp_path / "again" / head / file.name).read_bytes() == file.read_bytes(), file.name


def test_rebuild_refuses_other_models(exported: ExportResult, tmp_path: Path) -> None:
    """A model whose weights changed since is noticed by its digest."""
    other = exported.models["digits"]
    with pytest.raises(CheckpointError, match="another one now"):
        rebuild(exported.folder, tmp_path / "again", models={"digits": other})
    with pytest.raises(SpecError, match="did you mean 'digits'"):
        rebuild(exported.folder, tmp_path / "again", models={"digit": other})
    assert not (tmp_path / "again").exists()


def test_an_expert_by_itself_exports_as_the_expert(small: Small, tmp_path: Path) -> None:
    """A baseline can be exported; the expert's own body comes out."""
    number = small.results.baselines()["baseline:expert:digits"]
    found = export_study(small.resolved, small.stored, small.store, number, tmp_path / "out")
    body = load_file(found.models["digits"] / "model-00001-of-00002.safetensors")
    expert = load_file(small.file.parent / "models" / "digits" / "model.safetensors")
    for name, tensor in body.items():
        torch.testing.assert_close(tensor, expert[name], atol=1e-7, rtol=1e-6)


def test_an_export_is_not_written_over(small: Small, exported: ExportResult) -> None:
    """A second export to the same place needs force; the first stays whole."""
    with pytest.raises(SpecError, match="force"):
        export_study(small.resolved, small.stored, small.store, 0, exported.folder)
    assert folder_digest(exported.folder) == exported.sha256
