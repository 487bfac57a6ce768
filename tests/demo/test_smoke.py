"""The experts of the smoke study."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, ViTForImageClassification

from mergesearch.demo.data import Examples
from mergesearch.demo.smoke import PARTS, SMOKE_TASKS, make_smoke
from mergesearch.demo.training import pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("smoke")
    before = torch.random.get_rng_state()
    make_smoke(made, seed=0)
    assert torch.equal(before, torch.random.get_rng_state()), "the global random state was changed"
    return made


def examples(folder: Path, name: str, split: str) -> Examples:
    with np.load(folder / "data" / f"{name}-{split}.npz") as arrays:
        return Examples(arrays["image"], arrays["label"])


def accuracies(folder: Path, weights: dict[str, float]) -> list[float]:
    """Test accuracy of base + sum of weight x task vector on each task, with that task's head."""
    base = ViTForImageClassification.from_pretrained(folder / "base").eval()
    heads = {name: ViTForImageClassification.from_pretrained(folder / name) for name in SMOKE_TASKS}
    merged = {k: v.clone() for k, v in base.vit.state_dict().items()}
    for name, weight in weights.items():
        for key, tensor in heads[name].vit.state_dict().items():
            merged[key] += weight * (tensor - base.vit.state_dict()[key])
    found = []
    for name, expert in heads.items():
        base.vit.load_state_dict(merged)
        base.classifier = expert.classifier
        test = examples(folder, name, "test")
        with torch.inference_mode():
            guess = base(pixel_values=pixels(test)).logits.argmax(1)
        found.append(float((guess == torch.from_numpy(test.label)).float().mean()))
    return found


def test_the_folder_has_the_promised_layout(folder: Path) -> None:
    """A base, two experts and their data; each model loads with transformers and knows its classes."""
    assert all((folder / part).is_dir() for part in PARTS)
    for name in ("base", *SMOKE_TASKS):
        model = ViTForImageClassification.from_pretrained(folder / name)
        assert model.config.num_labels == 10
        assert all(not label.startswith("LABEL") for label in model.config.id2label.values())


def test_the_experts_disagree(folder: Path) -> None:
    """Each expert beats the base on its own task and loses on the other: a real trade-off."""
    base, a, b = accuracies(folder, {}), accuracies(folder, {"a": 1.0}), accuracies(folder, {"b": 1.0})
    assert a[0] > base[0] + 0.05
    assert b[1] > base[1] + 0.05
    assert a[1] < base[1] - 0.05
    assert b[0] < base[0] - 0.05


def test_heads_are_those_of_the_pretraining(folder: Path) -> None:
    """Heads stay frozen while an expert is tuned: the base's head is that of task a."""
    base, expert = (load_file(folder / name / "model.safetensors") for name in ("base", "a"))
    assert torch.equal(base["classifier.weight"], expert["classifier.weight"])
    assert sum(not torch.equal(base[key], expert[key]) for key in base) == len(base) - 2


def test_the_saved_processor_does_what_training_did(folder: Path) -> None:
    """preprocessor_config.json maps uint8 pictures to the very numbers that the experts learned from."""
    test = examples(folder, "a", "test")
    processor = AutoImageProcessor.from_pretrained(folder / "a", use_fast=False)
    images = [np.repeat(image[:, :, None], 3, axis=2) for image in test.image[:4]]
    processor.image_mean, processor.image_std = processor.image_mean * 3, processor.image_std * 3
    got = torch.as_tensor(np.stack(processor(images)["pixel_values"]))[:, :1]
    torch.testing.assert_close(got, pixels(test)[:4])


def test_the_same_seed_gives_the_same_experts(folder: Path, tmp_path: Path) -> None:
    """Weights are bit for bit those of another call with the same seed."""
    make_smoke(tmp_path, seed=0)
    for name in ("base", *SMOKE_TASKS):
        one, two = (load_file(where / name / "model.safetensors") for where in (folder, tmp_path))
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_second_call_reuses_them(folder: Path) -> None:
    """Nothing is trained again."""
    written = (folder / "a" / "model.safetensors").stat().st_mtime_ns
    make_smoke(folder, seed=0)
    assert (folder / "a" / "model.safetensors").stat().st_mtime_ns == written
