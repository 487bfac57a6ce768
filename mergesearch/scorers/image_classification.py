"""Accuracy and cross-entropy loss of an image classifier on npz arrays, a folder per label, or a table of paths.

Images are prepared once per split, as the model's preprocessor_config.json says, and kept in memory as float32.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast, final

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.errors import DataError
from mergesearch.plugins import PluginOptions
from mergesearch.scorers.base import DifferentiableLoss, Metric, ScorerContext
from mergesearch.scorers.classification import METRICS, in_order, place_of, score_logits
from mergesearch.scorers.data import DataOptions, class_numbers, label_map, split_paths, split_rows, split_sizes
from mergesearch.scorers.images import array_images, file_images, preprocess, read_preprocessing
from mergesearch.scorers.lessons import LOSSES, Answers, Lesson, learn, loss_batches
from mergesearch.scorers.tables import folder_columns, must_have, npz_array, npz_headers, read_columns
from mergesearch.types import Split


class Options(DataOptions):
    """`path` is an .npz file, a folder with one subfolder of images per label, or a table (.csv, .tsv, .jsonl,
    .parquet) whose image paths are relative to the table."""

    image: str = "image"  # array of uint8 images (n, h, w) or (n, h, w, 3), or column of paths


@dataclass(frozen=True, eq=False)
class _Source:
    """One data file: where its images are, and their class numbers (n,)."""

    path: Path
    files: tuple[Path, ...] | None  # None: an npz file
    labels: NDArray[np.int64]


@final
class ImageClassification:
    """Scorer; see `scorers/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    METRICS: ClassVar[Mapping[str, Metric]] = METRICS
    LOSSES: ClassVar[Mapping[str, DifferentiableLoss]] = LOSSES

    def __init__(self, options: PluginOptions, context: ScorerContext) -> None:
        self._options = cast(Options, options)
        self._context = context
        self._paths = split_paths(self._options, context.root)
        self._sources: dict[Path, _Source] = {}
        self._rows: Mapping[Split, NDArray[np.int64]] = {}
        self._pixels: dict[Split, torch.Tensor] = {}
        self._lessons: dict[tuple[Split, str], Lesson] = {}

    def check(self) -> None:
        """Columns, labels, sizes and the image processor; no image is opened. Raises DataError or CheckpointError."""
        read_preprocessing(self._context.model)
        self._find()

    def count(self, split: Split) -> int:
        """Images of a split."""
        self._find()
        return len(self._rows[split])

    def score(
        self, model: torch.nn.Module, split: Split, rows: NDArray[np.int64] | None = None
    ) -> Mapping[str, NDArray[np.float32]]:
        """Per-example accuracy and loss; see the protocol."""
        wanted = np.arange(self.count(split), dtype=np.int64) if rows is None else rows
        answer = partial(self._answer, model, split)
        batches = list(in_order(len(wanted), self._options.batch_size))
        return score_logits(lambda places: answer(wanted[places], False).logits, self._labels(split)[wanted], batches)

    def teach(self, model: torch.nn.Module, split: Split, loss: str) -> None:
        """See `DifferentiableScorer.teach`."""
        count = self.count(split)
        batches = list(in_order(count, self._options.batch_size))
        self._lessons[split, loss] = learn(partial(self._answer, model, split), count, batches, loss)

    def losses(
        self, model: torch.nn.Module, split: Split, rows: NDArray[np.int64], loss: str
    ) -> Iterator[tuple[torch.Tensor, Mapping[str, NDArray[np.float32]]]]:
        """See `DifferentiableScorer.losses`."""
        batches = [rows[places] for places in in_order(len(rows), self._options.batch_size)]
        lesson = self._lessons.get((split, loss))
        return loss_batches(partial(self._answer, model, split), self._labels(split), batches, loss, lesson)

    def _labels(self, split: Split) -> NDArray[np.int64]:
        self._find()
        return self._sources[self._paths[split]].labels[self._rows[split]]

    def _answer(self, model: torch.nn.Module, split: Split, rows: NDArray[np.int64], hidden: bool) -> Answers:
        self._find()
        if split not in self._pixels:
            self._pixels[split] = self._load(split)
        pixels, (device, dtype) = self._pixels[split], place_of(model)
        first = int(rows[0])
        neighbours = np.array_equal(rows, np.arange(first, first + len(rows)))  # then nothing need be copied
        batch = pixels[first : first + len(rows)] if neighbours else pixels[torch.from_numpy(rows)]
        said = model(
            pixel_values=batch.to(device=device, dtype=dtype), **({"output_hidden_states": True} if hidden else {})
        )
        return Answers(said.logits, (said.hidden_states or ()) if hidden else ())

    def _find(self) -> None:
        if not self._rows:
            self._sources = {path: self._source(path) for path in self._paths.values()}
            counts = {path: len(source.labels) for path, source in self._sources.items()}
            self._rows = split_rows(self._paths, counts, split_sizes(self._options), self._context.seed)

    def _source(self, path: Path) -> _Source:
        labels = label_map(self._context.model)
        image, label = self._options.image, self._options.label
        if path.is_dir():
            files, names = folder_columns(path)
            return _Source(path, tuple(files), class_numbers(path, "folder names", names, labels))
        if path.suffix.lower() != ".npz":
            columns = read_columns(path, [image, label])
            places = tuple(path.parent / str(place) for place in columns[image])
            return _Source(path, places, class_numbers(path, label, columns[label], labels))
        headers = npz_headers(path)
        must_have(path, [image, label], list(headers), "array")
        pixels, marks = headers[image], headers[label]
        if pixels.dtype != np.uint8 or len(pixels.shape) not in (3, 4) or pixels.shape[3:] not in ((), (1,), (3,)):
            raise DataError(
                f"data file {str(path)!r}: array {image!r} must be uint8 (n, h, w) or (n, h, w, 1 or 3), "
                f"it is {pixels.dtype} {pixels.shape}"
            )
        if marks.shape != pixels.shape[:1]:
            raise DataError(
                f"data file {str(path)!r}: {image!r} has {pixels.shape[0]} rows, {label!r} is {marks.shape}"
            )
        return _Source(path, None, class_numbers(path, label, npz_array(path, label), labels))

    def _load(self, split: Split) -> torch.Tensor:
        """Input of a split, float32 (n, c, h, w)."""
        source, rows = self._sources[self._paths[split]], self._rows[split]
        images: Any
        if source.files is None:
            images = array_images(npz_array(source.path, self._options.image), rows)
        else:
            images = file_images(source.files, rows)
        return torch.from_numpy(preprocess(images, len(rows), read_preprocessing(self._context.model)))
