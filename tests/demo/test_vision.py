"""The experts of the default demo: a scaled-down run of the same code, and the full one marked slow."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import ViTForImageClassification

from mergesearch.demo import vision
from mergesearch.demo.data import TASKS, Examples
from mergesearch.demo.training import pixels
from mergesearch.demo.vision import experts_made, make_experts


@pytest.fixture(scope="module")
def short() -> Iterator[None]:
    """Eight steps of pretraining and two of tuning."""
    tuning = {name: dataclasses.replace(run, steps=2) for name, run in vision.TUNING.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vision, "PRETRAINING", dataclasses.replace(vision.PRETRAINING, steps=8))
        patch.setattr(vision, "TUNING", tuning)
        yield


@pytest.fixture(scope="module")
def folder(short: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experts of a short run, two at a time."""
    made = tmp_path_factory.mktemp("vision")
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    make_experts(made, seed=3, threads=2)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state), "the global random state was changed"
    return made


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / name / "model.safetensors"))


def test_threads_do_not_change_the_experts(folder: Path, tmp_path: Path) -> None:
    """One expert at a time or two at once: the same bits; progress is told in sentences."""
    said: list[str] = []
    make_experts(tmp_path, seed=3, threads=1, progress=said.append)
    assert said == ["tuning the experts: 16 of 16 training steps done"]
    for name in ("base", *TASKS):
        one, two = weights(tmp_path, name), weights(folder, name)
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_experts_are_made_once_for_a_seed_and_variant(folder: Path) -> None:
    """A second call says that they stand there; another variant or seed is not taken for them."""
    said: list[str] = []
    make_experts(folder, seed=3, progress=said.append)
    assert said == [f"the base and the gentle experts stand in {folder}, made before"]
    assert experts_made(folder, 3, "gentle")
    assert not experts_made(folder, 3, "strong")
    assert not experts_made(folder, 4, "gentle")


def test_each_expert_has_the_same_trunk_and_its_own_head(folder: Path) -> None:
    """All trunks have the same tensors; each head has its task's classes; the base wears the head of the first task."""
    base = weights(folder, "base")
    assert sum(tensor.numel() for key, tensor in base.items() if key.startswith("vit.")) == 566_592
    for name, classes in zip(TASKS, (10, 10, 10, 26), strict=True):
        expert = weights(folder, name)
        assert {k: v.shape for k, v in expert.items() if k.startswith("vit.")} == {
            k: v.shape for k, v in base.items() if k.startswith("vit.")
        }
        assert expert["classifier.weight"].shape == (classes, 96)
    assert torch.equal(base["classifier.weight"], weights(folder, TASKS[0])["classifier.weight"])


def accuracies(folder: Path, weight: float, only: str | None = None) -> np.ndarray:
    """Test accuracy on each task of base + weight x the task vectors of all experts, or of `only` one."""
    base = ViTForImageClassification.from_pretrained(folder / "base").eval()
    start = {key: tensor.clone() for key, tensor in base.vit.state_dict().items()}
    experts = {name: ViTForImageClassification.from_pretrained(folder / name) for name in TASKS}
    merged = {key: tensor.clone() for key, tensor in start.items()}
    for name in [only] if only else TASKS:
        for key, tensor in experts[name].vit.state_dict().items():
            merged[key] += weight * (tensor - start[key])
    base.vit.load_state_dict(merged)
    found = []
    for name, expert in experts.items():
        base.classifier = expert.classifier
        with np.load(folder / "data" / f"{name}-test.npz") as arrays:
            image, label = pixels(Examples(arrays["image"], arrays["label"])), arrays["label"]
        with torch.inference_mode():
            guess = torch.cat([base(pixel_values=part).logits.argmax(1) for part in image.split(100)])
        found.append(float((guess.numpy() == label).mean()))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_gentle_experts_are_worth_merging(tmp_path: Path) -> None:
    """Each expert beats the base on its own task, no expert is best at two, a uniform average beats the base, and
    adding the experts in full is ruinous."""
    make_experts(tmp_path, seed=0)
    base = accuracies(tmp_path, 0.0)
    each = np.stack([accuracies(tmp_path, 1.0, only=name) for name in TASKS])  # (expert, task)
    own = each.diagonal()
    assert np.all(own > base + np.array([0.05, 0.02, 0.005, 0.10]))
    assert each.argmax(axis=0).tolist() == [0, 1, 2, 3]
    assert 0.72 < (base / own).mean() < 0.92
    assert (accuracies(tmp_path, 0.25) / own).mean() > (base / own).mean()
    assert (accuracies(tmp_path, 1.0) / own).mean() < 0.55
