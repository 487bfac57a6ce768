"""The experts of the default demo as a user gets them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ViTForImageClassification

from mergesearch.demo.data import TASKS, Examples
from mergesearch.demo.training import pixels
from mergesearch.demo.vision import make_experts


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
