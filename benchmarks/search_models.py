"""Pools of real experts for the search benchmark: the demo's vision transformers, and smaller ones on 8x8 digits.

`digits`: four tasks made of scikit-learn's 1,797 digits (as they are, turned by 90 degrees, upside down, transposed and
inverted); a transformer of 3 layers, pretrained on all four for a short while, then one expert tuned for each task with
its head held. A few seconds to make; one candidate takes hundredths of a second. Every split holds different digits,
and the same ones in each task, so that no digit is in the training set of one task and in the test set of another.
"""

import io
import lzma
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

from mergesearch.checkpoints.groups import layer_groups
from mergesearch.demo.cache import digest, make_once
from mergesearch.demo.data import DATA_FILE, Examples
from mergesearch.demo.training import Training, freeze_head, one_thread, pixels, save, share_trunk, train
from mergesearch.demo.vision import TASKS, make_experts
from mergesearch.types import Split

Data = dict[Split, tuple[Tensor, Tensor]]
VISION_ROWS = {Split.SEARCH: 150, Split.CONFIRM: 250, Split.TEST: 400}
DIGITS_ROWS = {Split.SEARCH: 200, Split.CONFIRM: 300, Split.TEST: 597}
DIGITS_TASKS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "plain": lambda x: x,
    "turned": lambda x: np.rot90(x, axes=(1, 2)),
    "flipped": lambda x: x[:, ::-1],
    "inverted": lambda x: -x.transpose(0, 2, 1),
}
PRETRAINING = Training(steps=160, rate=2e-3)
TUNING = Training(steps=150, rate=1e-3)


@dataclass(frozen=True, eq=False)
class Pool:
    """A base, K experts and their tasks. Trunks are flat float32 vectors, tensors one after the other in the order of
    `shapes`; `heads[task]` are the weight and bias of its classifier."""

    name: str
    tasks: tuple[str, ...]
    shapes: Mapping[str, torch.Size]
    base: Tensor  # (P,)
    experts: Tensor  # (K, P)
    heads: Mapping[str, tuple[Tensor, Tensor]]
    attention_heads: int
    data: Mapping[str, Data]

    def grouped(self, granularity: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """Names of the layer groups, and the group (T,) of each tensor."""
        grouping = layer_groups({name: tuple(shape) for name, shape in self.shapes.items()}, granularity)
        return grouping.groups, np.array([grouping.group_of[name] for name in self.shapes])

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a flat trunk (P,) by tensor name."""
        parts = flat.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


def load_pool(name: str, seed: int, cache: Path) -> Pool:
    """The pool 'gentle' or 'strong' (the demo's) or 'digits'; made in `cache` unless it stands there."""
    folder = cache / f"{name}-{seed}"
    if name == "digits":
        data = _digits()
        settings = {"seed": seed, "format": 1, "pretraining": str(PRETRAINING), "tuning": str(TUNING)}
        make_once(folder, digest(settings), ("base", *DIGITS_TASKS), lambda work: _make_digits(work, seed))
        scored = {task: {split: data[task][split] for split in Split} for task in data}
        return _read(name, folder, tuple(DIGITS_TASKS), scored, attention_heads=2)
    make_experts(folder, seed, "gentle" if name == "gentle" else "strong")
    return _read(name, folder, TASKS, {task: _stored(folder, task) for task in TASKS}, attention_heads=4)


def _read(name: str, folder: Path, tasks: tuple[str, ...], data: Mapping[str, Data], attention_heads: int) -> Pool:
    files = {part: load_file(folder / part / "model.safetensors") for part in ("base", *tasks)}
    trunk = sorted(key for key in files["base"] if key.startswith("vit."))
    flat = {part: torch.cat([file[key].flatten() for key in trunk]) for part, file in files.items()}
    heads = {task: (files[task]["classifier.weight"], files[task]["classifier.bias"]) for task in tasks}
    shapes = {key: files["base"][key].shape for key in trunk}
    return Pool(name, tasks, shapes, flat["base"], torch.stack([flat[t] for t in tasks]), heads, attention_heads, data)


def _stored(folder: Path, task: str) -> Data:
    found = {}
    for split, rows in VISION_ROWS.items():
        with np.load(folder / "data" / f"{task}-{split.value}.npz") as arrays:
            label = torch.from_numpy(arrays["label"][:rows])
            found[split] = (pixels(Examples(arrays["image"][:rows], arrays["label"][:rows])), label)
    return found


def _digits() -> dict[str, dict[Split | str, tuple[Tensor, Tensor]]]:
    with np.load(io.BytesIO(lzma.decompress(DATA_FILE.read_bytes())), allow_pickle=False) as arrays:
        raw, target = arrays["digits_image"], arrays["digits_label"]  # (1797, 8, 8) of 0 to 16
    order = np.random.default_rng(8).permutation(len(target))
    image, label = (raw[order] / 8.0 - 1.0).astype(np.float32), target[order]
    ends = np.cumsum(list(DIGITS_ROWS.values()))
    found: dict[str, dict[Split | str, tuple[Tensor, Tensor]]] = {}
    for task, change in DIGITS_TASKS.items():
        x = torch.from_numpy(np.ascontiguousarray(change(image))).unsqueeze(1)
        y = torch.from_numpy(label.astype(np.int64))
        cut = {split: (x[e - n : e], y[e - n : e]) for e, (split, n) in zip(ends, DIGITS_ROWS.items(), strict=True)}
        found[task] = {**cut, "train": (x[ends[-1] :], y[ends[-1] :])}
    return found


def _make_digits(work: Path, seed: int) -> None:
    config = ViTConfig(
        image_size=8,
        num_channels=1,
        patch_size=2,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.08,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=10,
        attn_implementation="eager",
    )
    data = {task: splits["train"] for task, splits in _digits().items()}
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        models = {task: ViTForImageClassification(config) for task in data}
        share_trunk(models)
        train(models, data, PRETRAINING, torch.Generator().manual_seed(1000 * seed), lambda: None)
        save(models["plain"], work / "base")
        start = {key: value.clone() for key, value in models["plain"].vit.state_dict().items()}
        for stage, (task, model) in enumerate(models.items(), start=1):
            model.vit.load_state_dict(start)
            freeze_head(model)
            train({task: model}, {task: data[task]}, TUNING, torch.Generator().manual_seed(1000 * seed + stage), int)
            save(model, work / task)
