"""Random experts: noise with the norm of the true task vectors, everything else the expert's own."""

import pytest
import torch
from tiny import make_vit

from mergesearch.checkpoints.random_expert import write_random_expert
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError


def head(name):
    """True for the head of a ViT classifier."""
    return name.startswith("classifier")


@pytest.fixture
def models(tmp_path):
    """A base and an expert."""
    base = make_vit(tmp_path / "base", seed=0)
    return Checkpoint.open(base), Checkpoint.open(make_vit(tmp_path / "expert", seed=1, base=base))


def test_every_merged_tensor_has_the_norm_of_its_task_vector(models, tmp_path):
    """And nothing of its direction; the head is the expert's own, and transformers' files are there."""
    base, expert = models
    made = Checkpoint.open(write_random_expert(base, expert, tmp_path / "noise", 3, head))
    assert made.names == expert.names
    for name in made.names:
        true, random = expert.tensor(name).double(), made.tensor(name).double()
        if head(name):
            assert torch.equal(true, random)
            continue
        start = base.tensor(name).double()
        assert torch.allclose((random - start).norm(), (true - start).norm(), rtol=1e-4)
        if true.numel() > 100:
            cosine = torch.nn.functional.cosine_similarity((random - start).flatten(), (true - start).flatten(), dim=0)
            assert abs(cosine) < 0.5
    assert (tmp_path / "noise" / "preprocessor_config.json").is_file()


def test_the_same_call_gives_the_same_bytes_and_another_seed_others(models, tmp_path):
    """The noise is a function of seed and tensor; a finished folder is left alone, a half-written one made anew."""
    base, expert = models
    first = Checkpoint.open(write_random_expert(base, expert, tmp_path / "a", 3, head))
    again = Checkpoint.open(write_random_expert(base, expert, tmp_path / "b", 3, head))
    other = Checkpoint.open(write_random_expert(base, expert, tmp_path / "c", 4, head))
    assert first.digest == again.digest != other.digest
    before = (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns
    write_random_expert(base, expert, tmp_path / "a", 3, head)
    assert (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns == before
    (tmp_path / "a" / ".random_expert").write_text("unfinished")
    (tmp_path / "a" / "model.safetensors").unlink()
    assert Checkpoint.open(write_random_expert(base, expert, tmp_path / "a", 3, head)).digest == first.digest


def test_a_folder_of_something_else_is_refused(models, tmp_path):
    """It is never overwritten."""
    base, expert = models
    with pytest.raises(CheckpointError, match="was not made as a random expert"):
        write_random_expert(base, expert, expert.folder, 0, head)
