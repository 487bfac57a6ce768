"""Small vision transformers for the demos: build, train, save as transformers folders.

Nothing here draws from torch's global random state or leaves it changed.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification
from transformers.utils import logging

from mergesearch.demo.data import Examples, Task

_MEAN, _STD = 0.5, 0.5
_HEAD = "classifier"


@dataclass(frozen=True)
class TrunkSize:
    """Shape of a vision transformer on 28x28 images of one channel."""

    patch: int
    hidden: int
    layers: int
    heads: int
    mlp: int
    init_range: float  # standard deviation of the first weights


@dataclass(frozen=True)
class Training:
    """A run of AdamW with weight decay under a one-cycle rate whose first tenth is warm-up."""

    steps: int
    rate: float
    batch: int = 64
    decay: float = 0.01
    warm_up: float = 0.1


@contextmanager
def one_thread() -> Iterator[None]:
    """torch's own threads off: a model this small gains little from them and loses much where cores are busy, and sums
    then come out the same on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pixels(examples: Examples) -> Tensor:
    """Network input (n, 1, 28, 28) float32, -1 to 1; what the saved preprocessor_config.json says."""
    image = torch.from_numpy(examples.image).unsqueeze(1).to(torch.float32)  # (n, 1, 28, 28)
    return image.div_(255.0).sub_(_MEAN).div_(_STD)


def new_model(size: TrunkSize, classes: tuple[str, ...], seed: int) -> ViTForImageClassification:
    """A model with seeded random weights and a head for `classes`."""
    config = ViTConfig(
        image_size=28,
        num_channels=1,
        patch_size=size.patch,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.mlp,
        initializer_range=size.init_range,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(classes)),
        label2id={name: index for index, name in enumerate(classes)},
        attn_implementation="eager",  # a sixth faster than the fused kernel on 17 tokens; not saved with the model
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ViTForImageClassification(config)


def batches(rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of row numbers (size,): one shuffled pass after another, a short rest of a pass left out."""
    while True:
        order = torch.randperm(rows, generator=generator)
        yield from order[: rows - rows % size].view(-1, size)


def train(
    models: Mapping[str, ViTForImageClassification],
    data: Mapping[str, tuple[Tensor, Tensor]],
    training: Training,
    generator: torch.Generator,
    on_step: Callable[[], None],
) -> None:
    """Train the `models`, which may share tensors, on their `data` (pixels, labels), one batch of each task in turn.

    Tensors that do not require a gradient stay as they are.
    """
    free = {id(p): p for model in models.values() for p in model.parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(free.values(), lr=training.rate, weight_decay=training.decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=training.rate, total_steps=training.steps, pct_start=training.warm_up
    )
    feeds = {name: batches(len(label), training.batch, generator) for name, (_, label) in data.items()}
    names = list(models)
    for step in range(training.steps):
        name = names[step % len(names)]
        image, label = data[name]
        rows = next(feeds[name])
        optimizer.zero_grad()
        logits = models[name](pixel_values=image[rows]).logits  # (batch, classes)
        torch.nn.functional.cross_entropy(logits, label[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        on_step()


def share_trunk(models: Mapping[str, ViTForImageClassification]) -> None:
    """Make all models use the trunk of the first, so that training one trains all; heads stay their own."""
    first = next(iter(models.values()))
    for model in models.values():
        model.vit = first.vit


def freeze_head(model: ViTForImageClassification) -> None:
    """Hold the head as it is: experts differ in the trunk alone."""
    getattr(model, _HEAD).requires_grad_(False)


def save(model: ViTForImageClassification, folder: Path) -> None:
    """Write a transformers folder with its preprocessor_config.json, tensors named as transformers publishes them."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar of its own would tear a live display
    try:
        model.eval().save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [_MEAN],
        "image_std": [_STD],
        "size": {"height": 28, "width": 28},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def tensors(task: Task, rows: int | None = None) -> tuple[Tensor, Tensor]:
    """Pixels and labels of a task's training rows, or of the first `rows`."""
    image, label = pixels(task.train), torch.from_numpy(task.train.label)
    return image[:rows], label[:rows]
