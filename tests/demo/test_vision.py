"""The experts of the default demo, by a scaled-down run of the same code."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mergesearch.demo import vision
from mergesearch.demo.data import TASKS
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
