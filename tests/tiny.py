"""Makers of tiny random models and data for tests: seeded, on the CPU, done in milliseconds.

An expert is its base with a little seeded noise on every weight and a head of its own.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedConfig,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)

WORDS = ("good", "bad", "fine", "awful", "film", "plot", "the", "a", "was", "not", "very", "##ly", "end", "cast")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_vit(
    folder: Path,
    seed: int = 0,
    labels: int | Sequence[str] = 3,
    base: Path | None = None,
    *,
    size: int = 8,
    channels: int = 1,
    layers: int = 2,
    hidden: int = 16,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A ViTForImageClassification for `size` x `size` images, with its preprocessor_config.json."""
    config = ViTConfig(
        image_size=size,
        patch_size=size // 2,
        num_channels=channels,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        **label_options(labels),
    )
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * channels,
        "image_std": [0.5] * channels,
    }
    save(folder, ViTForImageClassification, config, seed, base, dtype)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def make_text(
    folder: Path,
    seed: int = 0,
    labels: int | Sequence[str] = 3,
    base: Path | None = None,
    *,
    kind: str = "bert",
    layers: int = 2,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A BertForSequenceClassification ('bert') or DistilBertForSequenceClassification ('distilbert'), with a WordPiece
    tokenizer of a few words."""
    vocabulary = [*SPECIAL, *WORDS]
    options = label_options(labels)
    config: PreTrainedConfig
    if kind == "bert":
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=32,
            **options,
        )
        save(folder, BertForSequenceClassification, config, seed, base, dtype)
    else:
        config = DistilBertConfig(
            vocab_size=len(vocabulary),
            dim=16,
            n_layers=layers,
            n_heads=2,
            hidden_dim=32,
            max_position_embeddings=32,
            **options,
        )
        save(folder, DistilBertForSequenceClassification, config, seed, base, dtype)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 32}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


def make_gpt2(folder: Path, seed: int = 0, base: Path | None = None) -> Path:
    """A GPT2LMHeadModel, whose embedding and output head are one tied tensor."""
    config = GPT2Config(vocab_size=24, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    return save(folder, GPT2LMHeadModel, config, seed, base, torch.float32)


def label_options(labels: int | Sequence[str]) -> dict[str, object]:
    """Config options for a number of classes, or for their names."""
    if isinstance(labels, int):
        return {"num_labels": labels}
    return {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}


def save(
    folder: Path,
    kind: type[PreTrainedModel],
    config: PreTrainedConfig,
    seed: int,
    base: Path | None,
    dtype: torch.dtype,
) -> Path:
    """A seeded random model in `folder`; with `base`, that model's body with noise of 0.1 standard deviations."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
        # Larger than transformers' own start, so that random models differ in what they predict.
        for parameter in model.parameters():
            parameter.data.normal_(0.0, 0.3)
        if base is not None:
            body = kind.from_pretrained(str(base)).state_dict()
            for name, tensor in model.state_dict().items():
                if name in body and body[name].shape == tensor.shape:
                    tensor.copy_(body[name] + 0.03 * torch.randn_like(tensor))
    model.to(dtype).save_pretrained(str(folder))
    return folder


def make_images(path: Path, rows: int, labels: int = 3, seed: int = 0, *, size: int = 8, channels: int = 0) -> Path:
    """An npz file of random uint8 images 'image' (n, h, w), or (n, h, w, channels), and class numbers 'label' (n,)."""
    generator = np.random.default_rng(seed)
    shape = (rows, size, size, channels) if channels else (rows, size, size)
    image: NDArray[np.uint8] = generator.integers(0, 256, shape, dtype=np.uint8)
    np.savez(path, image=image, label=generator.integers(0, labels, rows))
    return path


def make_texts(path: Path, rows: int, labels: int = 3, seed: int = 0) -> Path:
    """A csv file of random sentences 'text' and class numbers 'label'."""
    generator = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(rows):
            words = generator.choice(WORDS[:11], size=int(generator.integers(1, 9)))
            writer.writerow([" ".join(words), int(generator.integers(0, labels))])
    return path
