"""What keeps models from being merged is said in clear sentences, from headers alone."""

import json
from pathlib import Path

import pytest
import torch
from checkpoints.test_reader import make_llama
from safetensors.torch import load_file, save_file

from mergesearch.checkpoints.compare import check_compatible, compare
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError


def edited(folder: Path, change: dict[str, torch.Tensor | None]) -> Checkpoint:
    """The checkpoint with tensors replaced, added, or (None) removed."""
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in change.items():
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return Checkpoint.open(folder)


def test_a_model_and_its_like_are_compatible(tmp_path: Path) -> None:
    """Other weights of the same form are fine, and check_compatible says nothing."""
    base = Checkpoint.open(make_llama(tmp_path / "base"))
    experts = {"a": Checkpoint.open(make_llama(tmp_path / "a", seed=1, shard="4KB"))}
    assert compare(base, experts) == []
    check_compatible(base, experts)


def test_depth_vocabulary_and_architecture_are_said_alone(tmp_path: Path) -> None:
    """Each is one sentence with both values, not a list of the tensors that follow from it."""
    base = Checkpoint.open(make_llama(tmp_path / "base"))
    deep = Checkpoint.open(make_llama(tmp_path / "deep", num_hidden_layers=3))
    assert compare(base, {"deep": deep}) == [
        "expert 'deep' has 3 layers (num_hidden_layers), the base 2: use an expert trained from it"
    ]
    wide = Checkpoint.open(make_llama(tmp_path / "wide", vocab_size=40))
    (sentence,) = compare(base, {"wide": wide})
    assert sentence.startswith("vocabularies differ: expert 'wide' has 40 tokens (vocab_size), the base 32")
    config = tmp_path / "wide" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "mistral"}))
    (sentence,) = compare(base, {"wide": Checkpoint.open(tmp_path / "wide")})
    assert "is a 'mistral' model, the base a 'llama'" in sentence


def test_equal_sizes_of_different_vocabularies_are_noticed(tmp_path: Path) -> None:
    """Tokens in another order are refused; another truncation setting is not."""
    base, expert = make_llama(tmp_path / "base"), make_llama(tmp_path / "a")
    for folder, vocab, cut in ((base, {"x": 0, "y": 1}, None), (expert, {"x": 0, "y": 1}, 5)):
        (folder / "tokenizer.json").write_text(json.dumps({"truncation": cut, "model": {"vocab": vocab}}))
    assert compare(Checkpoint.open(base), {"a": Checkpoint.open(expert)}) == []
    (expert / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"x": 1, "y": 0}}}))
    (sentence,) = compare(Checkpoint.open(base), {"a": Checkpoint.open(expert)})
    assert "number their tokens differently" in sentence


def test_tensors_that_differ_are_named_with_both_forms(tmp_path: Path) -> None:
    """Missing, extra, reshaped and retyped tensors, each with its name."""
    base = Checkpoint.open(make_llama(tmp_path / "base"))
    expert = edited(
        make_llama(tmp_path / "a"),
        {
            "model.norm.weight": None,
            "extra.bias": torch.zeros(3),
            "model.layers.0.mlp.up_proj.weight": torch.zeros(24, 8),
            "model.layers.1.mlp.up_proj.weight": torch.zeros(24, 16, dtype=torch.bfloat16),
        },
    )
    text = "\n".join(compare(base, {"a": expert}))
    assert "expert 'a' lacks tensor 'model.norm.weight' of the base" in text
    assert "expert 'a' has tensor 'extra.bias' that the base lacks" in text
    assert "'model.layers.0.mlp.up_proj.weight' has shape (24, 8), in the base (24, 16)" in text
    assert "has dtype torch.bfloat16, in the base torch.float32" in text
    with pytest.raises(CheckpointError, match=r"extra\.bias"):
        check_compatible(base, {"a": expert})


def test_heads_may_differ(tmp_path: Path) -> None:
    """A tensor under a head's pattern is not compared."""
    base = edited(make_llama(tmp_path / "base"), {"classifier.weight": torch.zeros(3, 16)})
    expert = edited(
        make_llama(tmp_path / "a"), {"classifier.weight": torch.zeros(7, 16), "classifier.bias": torch.zeros(7)}
    )
    assert len(compare(base, {"a": expert})) == 2
    assert compare(base, {"a": expert}, ["classifier.*"]) == []
