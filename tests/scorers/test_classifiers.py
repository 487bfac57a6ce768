"""Promises of the two classification scorers beyond the contract: against plain transformers, and their data forms."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_images, make_text, make_texts, make_vit
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from mergesearch.errors import CheckpointError, DataError, EvaluationError
from mergesearch.plugins import parse_options
from mergesearch.scorers.base import Scorer, ScorerContext
from mergesearch.scorers.data import permutation
from mergesearch.scorers.image_classification import ImageClassification
from mergesearch.scorers.text_classification import TextClassification
from mergesearch.types import Split

SIZES = {"search": 10, "confirm": 5, "test": 5}
NAMES = ("cat", "dog", "cow")


def images(model: Path, path: Path, **options: object) -> Scorer:
    """The image scorer on one path."""
    given = {"path": str(path), "sizes": SIZES, **options}
    return ImageClassification(
        parse_options("data", ImageClassification.Options, given), ScorerContext(model, path.parent, 0)
    )


def texts(model: Path, path: Path, **options: object) -> Scorer:
    """The text scorer on one path."""
    given = {"path": str(path), "sizes": SIZES, **options}
    return TextClassification(
        parse_options("data", TextClassification.Options, given), ScorerContext(model, path.parent, 0)
    )


def expected(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
    """The metrics of logits, computed another way."""
    chance = torch.softmax(logits.double(), dim=1)
    loss = -chance[torch.arange(len(labels)), labels].log()
    return {"accuracy": (logits.argmax(1) == labels).float().numpy(), "loss": loss.float().numpy()}


def test_image_scores_are_those_of_transformers(tmp_path: Path) -> None:
    """Accuracy and loss of a split, by transformers' own processor and one image at a time."""
    folder = make_vit(tmp_path / "model", size=8, channels=3)
    path = make_images(tmp_path / "data.npz", 20, size=11, channels=3)
    model = ViTForImageClassification.from_pretrained(str(folder)).eval()
    ours = images(folder, path, batch_size=4).score(model, Split.SEARCH)
    data, rows = np.load(path), permutation(20, 0)[:10]
    processor = ViTImageProcessorPil.from_pretrained(str(folder))
    with torch.no_grad():
        pixels = [processor(Image.fromarray(data["image"][i]), return_tensors="pt")["pixel_values"] for i in rows]
        theirs = expected(torch.cat([model(p).logits for p in pixels]), torch.from_numpy(data["label"][rows]))
    assert ours["accuracy"].tolist() == theirs["accuracy"].tolist()
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_text_scores_are_those_of_transformers(tmp_path: Path, side: str) -> None:
    """Accuracy and loss of a split, by transformers' own tokenizer and one text at a time; padding changes nothing."""
    folder = make_text(tmp_path / "model")
    set_tokenizer(folder, padding_side=side)
    path = make_texts(tmp_path / "data.csv", 20)
    model = BertForSequenceClassification.from_pretrained(str(folder)).eval()
    ours = texts(folder, path, batch_size=4).score(model, Split.SEARCH)
    rows = list(csv.DictReader(path.open()))
    chosen = [rows[i] for i in permutation(20, 0)[:10]]
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    with torch.no_grad():
        logits = torch.cat([model(**tokenizer(row["text"], return_tensors="pt")).logits for row in chosen])
    theirs = expected(logits, torch.tensor([int(row["label"]) for row in chosen]))
    assert ours["accuracy"].tolist() == theirs["accuracy"].tolist()
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-4, atol=1e-5)


def set_tokenizer(folder: Path, **values: object) -> None:
    """Change keys of a tokenizer's configuration."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_pairs_have_their_segments(tmp_path: Path) -> None:
    """With text_pair the model reads both texts, each with its own segment number, as transformers gives them."""
    folder = make_text(tmp_path / "model", labels=2)
    path = tmp_path / "data.jsonl"
    pairs = [("good film", "bad plot"), ("the end", "fine"), ("awful", "not very good")] * 7
    path.write_text("\n".join(json.dumps({"a": a, "b": b, "label": i % 2}) for i, (a, b) in enumerate(pairs)))
    model = BertForSequenceClassification.from_pretrained(str(folder)).eval()
    ours = texts(folder, path, text="a", text_pair="b").score(model, Split.SEARCH)
    rows = permutation(21, 0)[:10]
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    with torch.no_grad():
        logits = torch.cat([model(**tokenizer(*pairs[i], return_tensors="pt")).logits for i in rows])
    theirs = expected(logits, torch.from_numpy(rows % 2))
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-4, atol=1e-5)
    alone = texts(folder, path, text="a").score(model, Split.SEARCH)
    assert alone["loss"].tolist() != ours["loss"].tolist()


def test_long_texts_are_cut(tmp_path: Path) -> None:
    """A text longer than the model's positions is cut, and max_length cuts further."""
    folder = make_text(tmp_path / "model")
    path = tmp_path / "data.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{'good bad ' * 40}\t{i % 3}\n" for i in range(20)))
    model = BertForSequenceClassification.from_pretrained(str(folder)).eval()
    whole = texts(folder, path).score(model, Split.SEARCH)
    short = texts(folder, path, max_length=5).score(model, Split.SEARCH)
    assert np.isfinite(whole["loss"]).all()
    assert whole["loss"].tolist() != short["loss"].tolist()


def test_without_a_padding_token_texts_go_one_by_one(tmp_path: Path) -> None:
    """A model without padding gives the same scores, more slowly."""
    folder, path = make_text(tmp_path / "model"), make_texts(tmp_path / "data.csv", 20)
    model = BertForSequenceClassification.from_pretrained(str(folder)).eval()
    padded = texts(folder, path).score(model, Split.SEARCH)
    model.config.pad_token_id = None
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, __, given: seen.append(len(given["input_ids"])), with_kwargs=True)
    alone = texts(folder, path).score(model, Split.SEARCH)
    assert seen == [1] * 10
    np.testing.assert_allclose(padded["loss"], alone["loss"], rtol=1e-4, atol=1e-5)


def test_labels_may_be_names(tmp_path: Path) -> None:
    """Names of the model's label map and class numbers score the same."""
    folder = make_text(tmp_path / "model", labels=NAMES)
    numbers = make_texts(tmp_path / "numbers.csv", 20)
    rows = list(csv.DictReader(numbers.open()))
    named = tmp_path / "named.jsonl"
    named.write_text("\n".join(json.dumps({"text": r["text"], "label": NAMES[int(r["label"])]}) for r in rows))
    model = BertForSequenceClassification.from_pretrained(str(folder)).eval()
    one, other = (texts(folder, path).score(model, Split.TEST) for path in (numbers, named))
    assert one["loss"].tobytes() == other["loss"].tobytes()


def test_images_may_be_files(tmp_path: Path) -> None:
    """A folder per label and a table of paths give the same pixels as an npz file."""
    folder = make_vit(tmp_path / "model", labels=NAMES)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (21, 8, 8), dtype=np.uint8)
    marks = np.repeat([0, 2, 1], 7)  # as the folders' names sort: cat, cow, dog
    np.savez(tmp_path / "data.npz", image=pixels, label=marks)
    lines = ["image,label"]
    for i, (image, mark) in enumerate(zip(pixels, marks, strict=True)):
        file = tmp_path / "pictures" / NAMES[mark] / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        lines.append(f"pictures/{NAMES[mark]}/{i:02}.png,{NAMES[mark]}")
    (tmp_path / "data.csv").write_text("\n".join(lines))
    model = ViTForImageClassification.from_pretrained(str(folder)).eval()
    for name in ("pictures", "data.csv"):
        scorer = images(folder, tmp_path / name)
        scorer.check()
        from_array = images(folder, tmp_path / "data.npz").score(model, Split.SEARCH)
        assert scorer.score(model, Split.SEARCH)["loss"].tobytes() == from_array["loss"].tobytes()


def test_splits_may_be_files(tmp_path: Path) -> None:
    """With a file for each split, each is read from its own."""
    folder = make_vit(tmp_path / "model")
    for i, split in enumerate(Split):
        make_images(tmp_path / f"{split.value}.npz", 10, seed=i)
    paths = {split.value: f"{split.value}.npz" for split in Split}
    model = ViTForImageClassification.from_pretrained(str(folder)).eval()
    given = {"path": paths, "sizes": {"search": 10, "confirm": 10, "test": 4}}
    options = parse_options("data", ImageClassification.Options, given)
    scorer = ImageClassification(options, ScorerContext(folder, tmp_path, 0))
    losses = [scorer.score(model, split)["loss"] for split in Split]
    assert [len(values) for values in losses] == [10, 10, 4]
    assert losses[0].tolist() != losses[1].tolist()


def test_a_head_that_is_too_small_is_refused(tmp_path: Path) -> None:
    """Labels beyond the model's classes are an error of the candidate, not a crash of the worker."""
    big, small = make_vit(tmp_path / "big", labels=9), make_vit(tmp_path / "small", labels=3)
    path = make_images(tmp_path / "data.npz", 40, 9)
    model = ViTForImageClassification.from_pretrained(str(small)).eval()
    with pytest.raises(EvaluationError, match=r"logits of shape \(10, 3\), the labels go up to"):
        images(big, path).score(model, Split.SEARCH)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"image": np.zeros((20, 8, 8)), "label": np.zeros(20, int)}, r"must be uint8 .* it is float64 \(20, 8, 8\)"),
        ({"image": np.zeros((20, 8, 8, 4), np.uint8), "label": np.zeros(20, int)}, r"must be uint8"),
        ({"image": np.zeros((20, 8, 8), np.uint8), "label": np.zeros(19, int)}, r"has 20 rows, 'label' is \(19,\)"),
        ({"image": np.zeros((20, 8, 8), np.uint8), "label": np.full(20, 3)}, r"row 1: label 3 .* has 3 labels"),
        ({"images": np.zeros((20, 8, 8), np.uint8), "label": np.zeros(20, int)}, r"no array 'image'; did you mean"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], sentence: str) -> None:
    """The check reads an npz file's headers and labels, and says what is wrong with them."""
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(DataError, match=sentence):
        images(make_vit(tmp_path / "model"), tmp_path / "data.npz").check()


def test_a_text_that_is_none_is_refused(tmp_path: Path) -> None:
    """A row without text is named."""
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "good", "label": 0}\n{"text": null, "label": 1}\n' * 10)
    with pytest.raises(DataError, match="row 2: 'text' must be text, it is None"):
        texts(make_text(tmp_path / "model"), path).check()


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    """The check says that the tokenizer's files are missing."""
    folder = make_text(tmp_path / "model")
    for name in ("vocab.txt", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        texts(folder, make_texts(tmp_path / "data.csv", 20)).check()
