"""Merged weights on disk: tied, sharded, of either dtype, and the same bits each time."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from mergesearch.checkpoints.groups import group_tensors
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.export.checkpoint import MergePlan, build, write_checkpoint
from mergesearch.export.export import plan_mergekit
from mergesearch.operators.base import Layout
from mergesearch.recipe import Recipe


def make_llama(
    folder: Path, seed: int, *, tied: bool = True, dtype: torch.dtype = torch.float32, shard: str = "5GB"
) -> Path:
    """A tiny Llama, random by `seed`, in shards of at most `shard`."""
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(str(folder), max_shard_size=shard)
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def plan_of(base: Path, experts: dict[str, Path], operator: str = "task_arithmetic", seed: int = 0) -> MergePlan:
    """A plan with random layer-wise coefficients, as a study would make it."""
    opened = Checkpoint.open(base)
    grouping = group_tensors(opened, "block", ())
    layout = Layout(tuple(experts), grouping.groups, grouping.group_of)
    shape = (len(layout.groups), len(experts))
    settings = {"coefficient": np.random.default_rng(seed).uniform(0.1, 0.9, shape), "scale": np.ones(shape)}
    if operator == "ties":
        settings["density"] = np.full(shape, 0.5)
    recipe = Recipe(operator, layout.experts, layout.groups, settings)
    return MergePlan(recipe, layout, opened, {name: Checkpoint.open(path) for name, path in experts.items()}, (), ())


def written(plan: MergePlan, folder: Path, shard_bytes: int = 5_000_000_000) -> Path:
    """The plan's only model folder."""
    folder.mkdir()
    assert write_checkpoint(plan, folder, shard_bytes) == {"": folder}
    return folder


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor in a folder's shards."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_llama_loads_and_holds_the_merge(tmp_path: Path, tied: bool, dtype: torch.dtype) -> None:
    """Nothing is missing or left over; a tied head is written once and tied again; the values are base + Σ w τ."""
    base = make_llama(tmp_path / "base", 0, tied=tied, dtype=dtype)
    experts = {name: make_llama(tmp_path / name, i, tied=tied, dtype=dtype) for i, name in enumerate("ab", 1)}
    plan = plan_of(base, experts)
    folder = written(plan, tmp_path / "out")
    model, info = AutoModelForCausalLM.from_pretrained(str(folder), output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == dtype
    assert (model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()) == tied
    assert ("lm_head.weight" in tensors_of(folder)) != tied
    sources = [tensors_of(path) for path in (base, *experts.values())]
    for name, tensor in tensors_of(folder).items():
        row = plan.recipe.settings["coefficient"][plan.layout.group_of[name]]
        zero = sources[0][name].double()
        wanted = zero + sum(w * (s[name].double() - zero) for w, s in zip(row, sources[1:], strict=True))
        tolerance = 1e-6 if dtype == torch.float32 else 2**-8
        torch.testing.assert_close(tensor.double(), wanted, atol=1e-6, rtol=tolerance)


def test_shards_in_and_out_do_not_change_the_bits(tmp_path: Path) -> None:
    """Experts in many files, output in many files: the same tensors as from one file to one file."""
    one = {n: make_llama(tmp_path / "one" / n, i) for i, n in enumerate(("base", "a", "b"))}
    many = {n: make_llama(tmp_path / "many" / n, i, shard="4KB") for i, n in enumerate(("base", "a", "b"))}
    assert len(list(many["a"].glob("*.safetensors"))) > 2
    whole = written(plan_of(one.pop("base"), one), tmp_path / "whole")
    cut = written(plan_of(many.pop("base"), many), tmp_path / "cut", shard_bytes=4000)
    assert [p.name for p in whole.glob("*.safetensors")] == ["model.safetensors"]
    shards = sorted(p.name for p in cut.glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    index = json.loads((cut / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(shards)
    for name, tensor in tensors_of(whole).items():
        assert torch.equal(tensor, tensors_of(cut)[name])
    AutoModelForCausalLM.from_pretrained(str(cut))


def test_building_twice_gives_the_same_bits(tmp_path: Path) -> None:
    """The same plan, the same weights: also for an operator that elects signs."""
    base = make_llama(tmp_path / "base", 0, dtype=torch.bfloat16)
    experts = {name: make_llama(tmp_path / name, i, dtype=torch.bfloat16) for i, name in enumerate("ab", 1)}
    first, second = (build(plan_of(base, experts, "ties")) for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_tokenizer_and_generation_files_come_along(tmp_path: Path) -> None:
    """What stands beside the weights of the base stands beside those of the merge."""
    base = make_llama(tmp_path / "base", 0)
    folder = written(plan_of(base, {"a": make_llama(tmp_path / "a", 1)}), tmp_path / "out")
    for name in ("tokenizer_config.json", "generation_config.json"):
        assert (folder / name).read_bytes() == (base / name).read_bytes()
    assert json.loads((folder / "config.json").read_text()) == json.loads((base / "config.json").read_text())


def test_a_tied_tensor_that_was_stored_twice_stays_one(tmp_path: Path) -> None:
    """Some files hold the tied head beside the embeddings: both get the value that the live model scored with."""
    folders = []
    for seed, name in enumerate(("base", "a")):
        folder = make_llama(tmp_path / name, seed)
        tensors = tensors_of(folder)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        folders.append(folder)
    plan = plan_of(folders[0], {"a": folders[1]})
    found = tensors_of(written(plan, tmp_path / "out"))
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path / "out"))
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert "lm_head" in plan_mergekit(plan).why_not or "embed_tokens" in plan_mergekit(plan).why_not
