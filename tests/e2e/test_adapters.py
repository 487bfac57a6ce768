"""A study whose experts are LoRA adapters, from the check to the exported model."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from adapters import Factors, random_factors, write_adapter
from safetensors.torch import load_file
from tiny import make_images, make_vit
from transformers import AutoModelForImageClassification

import mergesearch
from mergesearch.errors import CheckpointError, SpecError
from mergesearch.export.export import export_study
from mergesearch.export.rebuilding import rebuild
from mergesearch.pool.base import Job
from mergesearch.stored import read_stored
from mergesearch.study.check import check_study
from mergesearch.study.resolve import ResolvedStudy, resolve
from mergesearch.study.source import Source, parse_study
from mergesearch.types import Candidate, Scored, Split

STUDY = """
name: adapters
models:
  base: base
  experts: {one: one, two: two}
merge: {operator: lora_soups}
space: {groups: block}
objectives:
  - name: d
    scorer: image_classification
    data: {path: d.npz, sizes: {search: 40, confirm: 20, test: 30}}
strategy: {kind: random}
baselines: {lambdas: [0.5]}
budget: {evaluations: 3}
store: memory://
"""
FILES = "vit.encoder.layer.{}.attention.attention.query"
MEMORY = "vit.layers.{}.attention.q_proj"


def make_folder(root: Path, dtype: torch.dtype = torch.float32) -> dict[str, dict[str, Factors]]:
    """A vision transformer and two adapters of it, one with the names in files, one with those in memory."""
    make_vit(root / "base", dtype=dtype)
    make_images(root / "d.npz", 90, labels=3, seed=3)
    made = {
        "one": random_factors({FILES.format(i): (16, 16) for i in (0, 1)}, 2, 1, 0.7),
        "two": random_factors({MEMORY.format(1): (16, 16)}, 4, 2, 0.7),
    }
    for name, factors in made.items():
        write_adapter(root / name, factors)
    return made


def resolved(root: Path, text: str = STUDY) -> ResolvedStudy:
    """The study in `root`."""
    return resolve(parse_study(Source("study.yaml", text, root)), root)


def test_a_study_of_adapters_from_launch_to_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chosen candidate's export is the base plus the weighted products, and can be built again to the bit."""
    made = make_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    launched = mergesearch.launch(tmp_path / "study.yaml")
    study = read_stored(launched.store, "adapters")
    found = resolved(tmp_path)
    number = max(n for n, c in study.results.candidates.items() if c.point is not None)
    recipe = found.recipe(study.results.candidates[number])
    assert (recipe.operator, recipe.groups) == ("lora_soups", ("L0", "L1"))
    exported = export_study(found, study, launched.store, number, tmp_path / "out")
    (folder,) = exported.paths
    merged, base = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "base"))
    wanted = {name: tensor.clone() for name, tensor in base.items()}
    for k, factors in enumerate(made.values()):
        for module, (down, up) in factors.items():
            layer = 1 if ".1." in module else 0
            weight = float(recipe.settings["coefficient"][layer, k])
            wanted[f"{FILES.format(layer)}.weight"] += 2 * weight * up @ down
    for name, tensor in wanted.items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-5, atol=1e-6)
        changed = name in {f"{FILES.format(i)}.weight" for i in (0, 1)}
        assert torch.equal(merged[name], base[name]) != changed
    AutoModelForImageClassification.from_pretrained(str(folder))
    assert any("mergekit cannot express this merge" in note for note in exported.notes)
    shutil.move(tmp_path / "two", tmp_path / "moved")
    again = rebuild(exported.folder, tmp_path / "again", models={"two": tmp_path / "moved"})
    assert (again[""] / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="another one now"):
        rebuild(exported.folder, tmp_path / "more", models={"two": tmp_path / "one"})
    launched.store.close()


@pytest.mark.parametrize("operator", ["do_merge", "knots", "lora_lego", "rmm"])
def test_every_operator_on_adapters_is_built_by_a_worker(tmp_path: Path, operator: str) -> None:
    """In bfloat16, factors in float32: it scores, with the same bits after another candidate."""
    make_folder(tmp_path, torch.bfloat16)
    study = resolved(tmp_path, STUDY.replace("lora_soups", operator))
    worker = study.worker("cpu", threads=1)()
    start = Candidate(0, study.space.start, "start")
    outcomes = [
        worker.evaluate(Job(i, Split.SEARCH, study.recipe(candidate)))
        for i, candidate in enumerate([start, Candidate(1, None, "baseline:base"), start])
    ]
    assert all(isinstance(outcome, Scored) for outcome in outcomes), outcomes
    one, base, again = (o.examples["d"] for o in outcomes if isinstance(o, Scored))
    assert np.array_equal(one, again)
    assert one.shape == base.shape
    assert check_study(study.spec, Source("study.yaml", STUDY, tmp_path)).ok


def test_experts_that_the_operator_does_not_merge_are_refused(tmp_path: Path) -> None:
    """By `mergesearch check` and at launch, with operator and expert named: adapters, whole models, and both."""
    make_folder(tmp_path)
    shutil.copytree(tmp_path / "base", tmp_path / "whole")
    whole = STUDY.replace("two: two", "two: whole")
    for text, sentence in (
        (STUDY.replace("lora_soups", "ties"), "operator 'ties' merges whole models, but expert 'one' is a LoRA"),
        (whole, "operator 'lora_soups' merges LoRA adapters, but expert 'two' is a whole model"),
        (whole.replace("lora_soups", "knots"), "expert 'one' is an adapter and 'two' a whole model"),
    ):
        with pytest.raises(SpecError, match=sentence):
            resolved(tmp_path, text)
        source = Source("study.yaml", text, tmp_path)
        checked = check_study(parse_study(source), source)
        assert not checked.ok
        assert any(sentence in finding.sentence for finding in checked.findings)


def test_an_adapter_has_no_head(tmp_path: Path) -> None:
    """An objective cannot wear it; what an adapter changes must be in the base."""
    make_folder(tmp_path)
    with pytest.raises(SpecError, match="expert 'one' is a LoRA adapter, which has no head of its own"):
        resolved(tmp_path, STUDY.replace("scorer: image", "head: one\n    scorer: image"))
    write_adapter(tmp_path / "two", random_factors({"vit.layers.7.attention.q_proj": (16, 16)}, 2, 0))
    with pytest.raises(CheckpointError, match=r"expert 'two' adapts module 'vit.layers.7.attention.q_proj'"):
        resolved(tmp_path)
