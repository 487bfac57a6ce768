"""Opening checkpoints: headers, digests, refusals."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from mergesearch.checkpoints.load import is_finite, load_tensors
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError


def make_llama(folder: Path, seed: int = 0, shard: str = "5GB", **changes: object) -> Path:
    """A tiny Llama with tied embeddings, saved by transformers."""
    torch.manual_seed(seed)
    config = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config |= {"num_key_value_heads": 1, "vocab_size": 32, "tie_word_embeddings": True} | changes
    LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(folder, max_shard_size=shard)
    return folder


@pytest.mark.parametrize("shard", ["5GB", "4KB"])
def test_reads_what_transformers_wrote(tmp_path: Path, shard: str) -> None:
    """Names, shapes, dtypes and values of a single file and of shards are those of the model; a tied head is absent."""
    checkpoint = Checkpoint.open(make_llama(tmp_path / "m", shard=shard))
    model = LlamaForCausalLM.from_pretrained(tmp_path / "m")
    state = {n: t for n, t in model.state_dict().items() if n != "lm_head.weight"}
    assert len({info.file for info in checkpoint.headers.values()}) == (1 if shard == "5GB" else 5) or shard == "4KB"
    assert set(checkpoint.names) == set(state)
    assert checkpoint.tied
    for name, tensor in state.items():
        assert checkpoint.shape(name) == tuple(tensor.shape)
        assert checkpoint.dtype(name) == tensor.dtype
        assert torch.equal(checkpoint.tensor(name), tensor)
    assert checkpoint.nbytes == sum(t.numel() * 4 for t in state.values())
    assert checkpoint.config["model_type"] == "llama"


def test_digest_follows_weights_and_configuration(tmp_path: Path) -> None:
    """Same bytes, same digest; another weight or another setting, another digest."""
    a, b = make_llama(tmp_path / "a"), make_llama(tmp_path / "b")
    assert Checkpoint.open(a).digest == Checkpoint.open(b).digest
    assert Checkpoint.open(make_llama(tmp_path / "c", seed=1)).digest != Checkpoint.open(a).digest
    config = json.loads((b / "config.json").read_text()) | {"rms_norm_eps": 1e-3}
    (b / "config.json").write_text(json.dumps(config))
    assert Checkpoint.open(a).digest != Checkpoint.open(b).digest


def test_a_pickle_is_refused_with_a_command_that_converts_it(tmp_path: Path) -> None:
    """The error holds the shell command for this very folder and model class."""
    folder = make_llama(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not opened")
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(folder)
    assert "pytorch_model.bin" in str(caught.value)
    command = f"t.LlamaForCausalLM.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
    assert command in str(caught.value)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    """No folder, no config, broken JSON, a lost shard, a cut file: each error has the path."""
    with pytest.raises(CheckpointError, match="no such folder"):
        Checkpoint.open(tmp_path / "nowhere")
    folder = make_llama(tmp_path / "m", shard="4KB")
    lost = folder / "model-00002-of-00005.safetensors"
    lost = lost if lost.exists() else sorted(folder.glob("model-00002*"))[0]
    content = lost.read_bytes()
    lost.write_bytes(content[:-8])
    with pytest.raises(CheckpointError, match=rf"{lost.name}: damaged .* promises"):
        Checkpoint.open(folder)
    lost.write_bytes(content[:20])
    with pytest.raises(CheckpointError, match="cut off"):
        Checkpoint.open(folder)
    lost.unlink()
    with pytest.raises(CheckpointError, match=rf"{lost.name}: missing"):
        Checkpoint.open(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json: cannot be read as JSON"):
        Checkpoint.open(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config.json: missing"):
        Checkpoint.open(folder)


def test_a_tensor_that_is_not_finite_is_named_with_its_file(tmp_path: Path) -> None:
    """NaN and infinity are refused on load; large finite values and integers are not."""
    (tmp_path / "config.json").write_text("{}")
    tensors = {"good": torch.full((5,), 3e38), "bad": torch.tensor([1.0, float("nan")]), "ids": torch.arange(3)}
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = Checkpoint.open(tmp_path)
    assert set(load_tensors(checkpoint, ["good", "ids"])) == {"good", "ids"}
    with pytest.raises(CheckpointError, match=r"model.safetensors: tensor 'bad' holds NaN"):
        load_tensors(checkpoint, checkpoint.names)
    assert not is_finite(torch.tensor([1.0, float("-inf")], dtype=torch.bfloat16))
    assert is_finite(torch.full((3,), 1.7e308, dtype=torch.float64)[:1])
    with pytest.raises(CheckpointError, match="no tensor 'ugly'"):
        checkpoint.tensor("ugly")
