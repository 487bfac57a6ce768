"""Accuracy and cross-entropy loss of a text classifier on csv, tsv, jsonl or parquet rows of text and label.

Texts are tokenised once per split with the tokenizer of the model folder. Batches hold texts of like length, so that
little is padded; their make-up depends on the data alone, so the same model gives the same numbers. Padding is always
on the right, where neither an encoder nor a causal model sees it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt

from mergesearch.errors import CheckpointError, DataError
from mergesearch.plugins import PluginOptions
from mergesearch.scorers.base import DifferentiableLoss, Metric, ScorerContext
from mergesearch.scorers.classification import METRICS, in_order, place_of, score_logits
from mergesearch.scorers.data import (
    DataOptions,
    class_numbers,
    label_map,
    model_config,
    split_paths,
    split_rows,
    split_sizes,
)
from mergesearch.scorers.lessons import LOSSES, Answers, Lesson, learn, loss_batches
from mergesearch.scorers.tables import read_columns
from mergesearch.types import Split

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "tokenizer.model", "spiece.model")


class Options(DataOptions):
    """`path` is a table: .csv, .tsv, .jsonl or .parquet."""

    text: str = "text"  # column of texts
    text_pair: str | None = None  # column of second texts, for tasks on pairs
    max_length: PositiveInt | None = None  # tokens kept of each text; None: as many as the model can take
    batch_size: PositiveInt = 32


@dataclass(frozen=True, eq=False)
class _Table:
    """Rows of one data file and their class numbers (n,)."""

    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Tokens:
    """A tokenised split: token numbers and segment numbers of each text, how many it has (n,), the token that pads,
    and how many texts a batch has."""

    ids: Sequence[Sequence[int]]
    segments: Sequence[Sequence[int]] | None
    lengths: NDArray[np.int64]
    pad: int
    batch: int


@final
class TextClassification:
    """Scorer; see `scorers/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    METRICS: ClassVar[Mapping[str, Metric]] = METRICS
    LOSSES: ClassVar[Mapping[str, DifferentiableLoss]] = LOSSES

    def __init__(self, options: PluginOptions, context: ScorerContext) -> None:
        self._options = cast(Options, options)
        self._context = context
        self._paths = split_paths(self._options, context.root)
        self._tables: dict[Path, _Table] = {}
        self._rows: Mapping[Split, NDArray[np.int64]] = {}
        self._tokens: dict[Split, _Tokens] = {}
        self._lessons: dict[tuple[Split, str], Lesson] = {}

    def check(self) -> None:
        """Columns, labels, sizes, and that a tokenizer is there. Raises DataError or CheckpointError."""
        model = self._context.model
        if not any((model / name).is_file() for name in TOKENIZER_FILES):
            raise CheckpointError(
                f"model folder {str(model)!r} has no tokenizer ({', '.join(TOKENIZER_FILES)}); "
                "copy the one the model was trained with"
            )
        self._find()

    def count(self, split: Split) -> int:
        """Texts of a split."""
        self._find()
        return len(self._rows[split])

    def score(
        self, model: torch.nn.Module, split: Split, rows: NDArray[np.int64] | None = None
    ) -> Mapping[str, NDArray[np.float32]]:
        """Per-example accuracy and loss; see the protocol."""
        wanted = np.arange(self.count(split), dtype=np.int64) if rows is None else rows
        answer, batches = partial(self._answer, model, split), self._by_length(model, split, wanted)
        return score_logits(lambda places: answer(wanted[places], False).logits, self._labels(split)[wanted], batches)

    def teach(self, model: torch.nn.Module, split: Split, loss: str) -> None:
        """See `DifferentiableScorer.teach`."""
        count = self.count(split)
        batches = self._by_length(model, split, np.arange(count, dtype=np.int64))
        self._lessons[split, loss] = learn(partial(self._answer, model, split), count, batches, loss)

    def losses(
        self, model: torch.nn.Module, split: Split, rows: NDArray[np.int64], loss: str
    ) -> Iterator[tuple[torch.Tensor, Mapping[str, NDArray[np.float32]]]]:
        """See `DifferentiableScorer.losses`. Texts in the order of `rows`, so with more padding than `score` has."""
        batches = [rows[places] for places in in_order(len(rows), self._tokenised(model, split).batch)]
        lesson = self._lessons.get((split, loss))
        return loss_batches(partial(self._answer, model, split), self._labels(split), batches, loss, lesson)

    def _labels(self, split: Split) -> NDArray[np.int64]:
        self._find()
        return self._tables[self._paths[split]].labels[self._rows[split]]

    def _answer(self, model: torch.nn.Module, split: Split, rows: NDArray[np.int64], hidden: bool) -> Answers:
        tokens, (device, _) = self._tokenised(model, split), place_of(model)
        inputs = {name: values.to(device) for name, values in _padded(tokens, rows).items()}
        said = model(**inputs, **({"output_hidden_states": True} if hidden else {}))
        return Answers(said.logits, (said.hidden_states or ()) if hidden else (), inputs["attention_mask"])

    def _by_length(self, model: torch.nn.Module, split: Split, rows: NDArray[np.int64]) -> Sequence[NDArray[np.int64]]:
        """Batches of places in `rows`, of texts of like length."""
        tokens = self._tokenised(model, split)
        order = np.argsort(tokens.lengths[rows], kind="stable")
        return [order[places] for places in in_order(len(order), tokens.batch)]

    def _find(self) -> None:
        if not self._rows:
            self._tables = {path: self._table(path) for path in self._paths.values()}
            counts = {path: len(table.labels) for path, table in self._tables.items()}
            self._rows = split_rows(self._paths, counts, split_sizes(self._options), self._context.seed)

    def _table(self, path: Path) -> _Table:
        o = self._options
        columns = read_columns(path, [o.text, o.label, *([o.text_pair] if o.text_pair else [])])
        for name in (o.text, o.text_pair):
            for row, value in enumerate(columns[name] if name else (), start=1):
                if not isinstance(value, str):
                    raise DataError(f"data file {str(path)!r}, row {row}: {name!r} must be text, it is {value!r}")
        labels = class_numbers(path, o.label, columns[o.label], label_map(self._context.model))
        return _Table(columns[o.text], columns[o.text_pair] if o.text_pair else None, labels)

    def _tokenised(self, model: torch.nn.Module, split: Split) -> _Tokens:
        self._find()
        if split not in self._tokens:
            self._tokens[split] = self._tokenise(split, cast(Any, model).config.pad_token_id)
        return self._tokens[split]

    def _tokenise(self, split: Split, pad: int | None) -> _Tokens:
        """A split to be padded on the right with the model's own token `pad`; without one, a text at a time."""
        # Late: only a worker needs it, and it takes seconds to import.
        from transformers import AutoTokenizer

        model, table, rows = self._context.model, self._tables[self._paths[split]], self._rows[split]
        tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True)  # nosec B615  # a folder
        config = model_config(model)
        longest = min(
            tokenizer.model_max_length, int(config.get("max_position_embeddings", tokenizer.model_max_length))
        )
        texts = [table.texts[i] for i in rows]
        pairs = [table.pairs[i] for i in rows] if table.pairs is not None else None
        # Segment numbers matter to pairs alone, and only to models that have embeddings for them.
        segments = pairs is not None and int(config.get("type_vocab_size") or 0) > 1
        encoded = tokenizer(
            texts,
            pairs,
            truncation=True,
            max_length=min(self._options.max_length or longest, longest),
            return_attention_mask=False,
            return_token_type_ids=segments,
        )
        ids, size = encoded["input_ids"], self._options.batch_size if pad is not None else 1
        return _Tokens(ids, encoded["token_type_ids"] if segments else None, np.array([*map(len, ids)]), pad or 0, size)


def _padded(tokens: _Tokens, rows: NDArray[np.int64]) -> Mapping[str, torch.Tensor]:
    """int64 (b, longest): 'input_ids', 'attention_mask', and 'token_type_ids' where there are segments."""
    width = int(tokens.lengths[rows].max())
    filled = {"input_ids": np.full((len(rows), width), tokens.pad), "attention_mask": np.zeros((len(rows), width), int)}
    if tokens.segments is not None:
        filled["token_type_ids"] = np.zeros((len(rows), width), dtype=int)
    for place, i in enumerate(rows):
        length = tokens.lengths[i]
        filled["input_ids"][place, :length] = tokens.ids[i]
        filled["attention_mask"][place, :length] = 1
        if tokens.segments is not None:
            filled["token_type_ids"][place, :length] = tokens.segments[i]
    return {name: torch.from_numpy(values.astype(np.int64)) for name, values in filled.items()}
