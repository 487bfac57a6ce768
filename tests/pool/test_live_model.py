"""Promises of the bridge between a live model and the names in its files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_gpt2, make_text, make_vit
from transformers import ViTForImageClassification

from mergesearch.errors import CheckpointError
from mergesearch.pool.live import live_tensors, load_model, make_head, wear

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["vit", "bert", "distilbert"])
def test_every_tensor_of_the_files_has_its_live_place(tmp_path: Path, kind: str) -> None:
    """Each name in the files leads to the live tensor with its values, also where transformers renames it."""
    folder = tmp_path / "model"
    name = {"vit": "ViTForImageClassification", "bert": "BertForSequenceClassification"}.get(
        kind, "DistilBertForSequenceClassification"
    )
    if kind == "vit":
        make_vit(folder)
    else:
        make_text(folder, kind=kind)
    files = load_file(folder / "model.safetensors")
    live = live_tensors(load_model(folder, [name], CPU, None), list(files))
    assert list(live) == list(files)
    assert all(torch.equal(live[n], files[n]) for n in files)


def test_writing_a_live_tensor_changes_the_model(tmp_path: Path) -> None:
    """What is written under a file's name is what the model computes with and saves."""
    folder = make_vit(tmp_path / "model")
    files = load_file(folder / "model.safetensors")
    model = load_model(folder, ["ViTForImageClassification"], CPU, None)
    for i, tensor in enumerate(live_tensors(model, sorted(files)).values()):
        tensor.fill_(i)
    assert isinstance(model, ViTForImageClassification)
    model.save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert [saved[name].unique().tolist() for name in sorted(files)] == [[i] for i in range(len(files))]


def test_tied_tensors_stay_tied(tmp_path: Path) -> None:
    """A language model's head changes with its embedding."""
    folder = make_gpt2(tmp_path / "model")
    files = load_file(folder / "model.safetensors")
    model = load_model(folder, ["GPT2LMHeadModel"], CPU, None)
    live_tensors(model, list(files))["transformer.wte.weight"].fill_(2.0)
    assert torch.equal(model.get_parameter("lm_head.weight"), torch.full((24, 16), 2.0))


def test_a_name_without_a_place_is_refused(tmp_path: Path) -> None:
    """The first tensor that the model does not hold is named."""
    model = load_model(make_vit(tmp_path / "model"), ["ViTForImageClassification"], CPU, None)
    with pytest.raises(CheckpointError, match=r"1 tensor.*'classifier.wieght'; did you mean 'classifier.weight'"):
        live_tensors(model, ["classifier.bias", "classifier.wieght"])


@pytest.mark.parametrize(("said", "why"), [([], "has no 'architectures'"), (["NoSuchModel"], "does not know")])
def test_a_class_that_is_not_known_is_refused(tmp_path: Path, said: list[str], why: str) -> None:
    """A config.json without a usable class name gets a sentence."""
    with pytest.raises(CheckpointError, match=why):
        load_model(make_vit(tmp_path / "model"), said, CPU, None)


def test_a_head_of_another_size_is_worn_by_reference(tmp_path: Path) -> None:
    """After `wear` the model gives the classes of that head, and its parameter is the very tensor."""
    model = load_model(make_vit(tmp_path / "model", labels=3), ["ViTForImageClassification"], CPU, None)
    weight, bias = torch.randn(5, 16), torch.randn(5)
    own = make_head(model, {n: p.detach() for n, p in model.named_parameters() if n.startswith("classifier")})
    wear(model, make_head(model, {"classifier.weight": weight, "classifier.bias": bias}))
    assert model(pixel_values=torch.zeros(2, 1, 8, 8)).logits.shape == (2, 5)
    assert model.get_parameter("classifier.weight").data_ptr() == weight.data_ptr()
    wear(model, own)
    assert model(pixel_values=torch.zeros(2, 1, 8, 8)).logits.shape == (2, 3)


def test_a_head_that_fits_nowhere_is_refused(tmp_path: Path) -> None:
    """A head tensor whose module the model lacks is named."""
    model = load_model(make_vit(tmp_path / "model"), ["ViTForImageClassification"], CPU, None)
    with pytest.raises(CheckpointError, match=r"'score.weight' fits nowhere in ViTForImageClassification"):
        make_head(model, {"score.weight": torch.zeros(2, 16)})
