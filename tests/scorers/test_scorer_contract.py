"""Every scorer keeps the contract of `scorers/base.py`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from contracts.scorer import *  # noqa: F403 - the contract's tests
from contracts.scorer import ScorerCase
from tiny import make_images, make_text, make_texts, make_vit
from transformers import BertForSequenceClassification, ViTForImageClassification

from mergesearch.plugins import load
from mergesearch.scorers import SCORERS


def image_case(folder: Path) -> ScorerCase:
    """A tiny vision transformer and random grey images."""
    model, data = make_vit(folder / "model"), make_images(folder / "data.npz", 40)
    return ScorerCase("image_classification", model, data, partial(loaded, ViTForImageClassification, model), {})


def text_case(folder: Path) -> ScorerCase:
    """A tiny Bert and random sentences."""
    model, data = make_text(folder / "model"), make_texts(folder / "data.csv", 40)
    return ScorerCase("text_classification", model, data, partial(loaded, BertForSequenceClassification, model), {})


def loaded(kind: type, model: Path) -> object:
    """The model as a worker has it."""
    return kind.from_pretrained(str(model)).eval()  # type: ignore[attr-defined]


CASES: dict[str, Callable[[Path], ScorerCase]] = {
    "image_classification": image_case,
    "text_classification": text_case,
}


@pytest.fixture(params=[k for k in SCORERS if hasattr(load("scorer", SCORERS, k), "score")], scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ScorerCase:
    """A case for each registered scorer; a new one needs a line in CASES."""
    return CASES[request.param](tmp_path_factory.mktemp(request.param))
