"""The files of a model folder: shards of weights with their index, and everything beside the weights."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from mergesearch.export.folder import RECIPE_FILE

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".index.json")
OURS = (RECIPE_FILE, "mergekit.yaml", "README.md", "front.png")
"""Files that an export writes itself; those of the source folder are not copied."""


def tensor_bytes(tensor: torch.Tensor) -> int:
    """Bytes that a tensor takes in a file."""
    return tensor.numel() * tensor.element_size()


def plan_shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names in order, cut into shards of at most `limit` bytes; a tensor above the limit has a shard of its own."""
    shards: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not shards or size > room:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= size
    return shards


def write_shard(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """One safetensors file that transformers reads. Tensors that share memory are each written whole."""
    seen: set[int] = set()
    whole = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        whole[name] = plain.clone() if plain.data_ptr() in seen else plain
        seen.add(plain.data_ptr())
    save_file(whole, path, {"format": "pt"})


def shard_name(at: int, count: int) -> str:
    """File name of shard `at` (from 0) of `count`, as transformers names them."""
    return "model.safetensors" if count == 1 else f"model-{at + 1:05d}-of-{count:05d}.safetensors"


def write_index(folder: Path, shards: Sequence[Sequence[str]], total: int) -> None:
    """model.safetensors.index.json for `shards` (names in each) of `total` bytes."""
    files = {name: shard_name(at, len(shards)) for at, names in enumerate(shards) for name in names}
    body = {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


def copy_beside_weights(source: Path, target: Path) -> None:
    """Copy config, tokenizer, processor, code: every file of `source` that holds no weights.

    Subfolders are copied whole unless they hold weights (saved checkpoints); hidden files and what an earlier export
    wrote are left out. Training leftovers ('*.pt', 'training_args.bin') count as weights.
    """
    for item in sorted(source.iterdir()):
        if item.name.startswith(".") or item.name in OURS or is_weights(item):
            continue
        if item.is_file():
            shutil.copyfile(item, target / item.name)
        elif item.is_dir() and not any(is_weights(inner) for inner in item.rglob("*")):
            shutil.copytree(item, target / item.name, ignore=shutil.ignore_patterns(".*"))


def is_weights(path: Path) -> bool:
    """True for files that hold weights or say where they lie."""
    return path.is_file() and path.name.endswith(WEIGHTS)


def set_dtype(folder: Path, dtype: str) -> None:
    """Bring config.json's dtype in line with the weights, where it names one."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("dtype", "torch_dtype"):
        if key in config:
            config[key] = dtype
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
