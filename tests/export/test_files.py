"""The files of a model folder."""

import json
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from mergesearch.export.files import copy_beside_weights, plan_shards, set_dtype, shard_name, write_index, write_shard


@given(st.lists(st.integers(0, 20), max_size=20), st.integers(1, 25))
def test_shards_keep_the_order_and_the_limit(sizes: list[int], limit: int) -> None:
    """Every tensor once, in order; only a tensor that is too large by itself passes the limit."""
    named = {str(i): size for i, size in enumerate(sizes)}
    shards = plan_shards(named, limit)
    assert [name for shard in shards for name in shard] == list(named)
    for shard in shards:
        assert shard
        assert sum(named[name] for name in shard) <= limit or len(shard) == 1 or named[shard[-1]] == 0


def test_shards_and_index_are_named_as_transformers_does(tmp_path: Path) -> None:
    """One file has no number; several have an index."""
    assert shard_name(0, 1) == "model.safetensors"
    assert shard_name(1, 3) == "model-00002-of-00003.safetensors"
    write_index(tmp_path, [["a", "b"], ["c"]], 12)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 12
    assert index["weight_map"]["c"] == "model-00002-of-00002.safetensors"


def test_a_shard_says_that_it_is_torchs(tmp_path: Path) -> None:
    """transformers wants the format in the metadata; views are written whole."""
    write_shard(tmp_path / "x.safetensors", {"a": torch.arange(6.0).reshape(2, 3).T})
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_tensor("a").tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_everything_but_weights_is_copied(tmp_path: Path) -> None:
    """Tokenizers, code and pooling settings come along; weights, saved checkpoints and older cards do not."""
    source, target = tmp_path / "source", tmp_path / "target"
    for name in ("config.json", "tokenizer.json", "modeling.py", "1_Pooling/config.json", "checkpoint-5/config.json"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("{}")
    leftovers = ("model.safetensors", "model.safetensors.index.json", "training_args.bin", "README.md", "recipe.yaml")
    for name in (*leftovers, ".hidden", "checkpoint-5/optimizer.pt"):
        (source / name).write_text("x")
    target.mkdir()
    copy_beside_weights(source, target)
    found = sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file())
    assert found == ["1_Pooling/config.json", "config.json", "modeling.py", "tokenizer.json"]


def test_the_configs_dtype_follows_the_weights(tmp_path: Path) -> None:
    """A float32 head's config on a bfloat16 body does not make transformers widen it."""
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "float32", "name": "é"}))
    set_dtype(tmp_path, "bfloat16")
    assert json.loads((tmp_path / "config.json").read_text()) == {"dtype": "bfloat16", "name": "é"}
