"""Accuracy and cross-entropy loss of a text classifier on csv, tsv, jsonl or parquet rows of text and label.

Texts are tokenised once per split with the tokenizer of the model folder. Batches hold texts of like length, so that
little is padded; their make-up depends on the data alone, so the same model gives the same numbers. Padding is always
on the right, where neither an encoder nor a causal model sees it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt

from mergesearch.errors import CheckpointError, DataError
from mergesearch.plugins import PluginOptions
from mergesearch.scorers.base import Metric, ScorerContext
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
    """A tokenised split: batches of positions, and for each the model's integer inputs (b, longest)."""

    batches: tuple[NDArray[np.int64], ...]
    inputs: tuple[Mapping[str, torch.Tensor], ...]


@final
class TextClassification:
    """Scorer; see `scorers/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    METRICS: ClassVar[Mapping[str, Metric]] = METRICS

    def __init__(self, options: PluginOptions, context: ScorerContext) -> None:
        self._options = cast(Options, options)
        self._context = context
        self._paths = split_paths(self._options, context.root)
        self._tables: dict[Path, _Table] = {}
        self._rows: Mapping[Split, NDArray[np.int64]] = {}
        self._tokens: dict[Split, _Tokens] = {}

    def check(self) -> None:
        """Columns, labels, sizes, and that a tokenizer is there. Raises DataError or CheckpointError."""
        model = self._context.model
        if not any((model / name).is_file() for name in TOKENIZER_FILES):
            raise CheckpointError(
                f"model folder {str(model)!r} has no tokenizer ({', '.join(TOKENIZER_FILES)}); "
                "copy the one the model was trained with"
            )
        self._find()

    def score(self, model: torch.nn.Module, split: Split) -> Mapping[str, NDArray[np.float32]]:
        """Per-example accuracy and loss; see the protocol."""
        self._find()
        labels = self._tables[self._paths[split]].labels[self._rows[split]]
        if split not in self._tokens:
            self._tokens[split] = self._tokenise(split, cast(Any, model).config.pad_token_id)
        tokens = self._tokens[split]
        device, _ = place_of(model)
        inputs_of = {int(rows[0]): inputs for rows, inputs in zip(tokens.batches, tokens.inputs, strict=True)}

        def logits_of(rows: NDArray[np.int64]) -> torch.Tensor:
            inputs = {name: values.to(device) for name, values in inputs_of[int(rows[0])].items()}
            logits: torch.Tensor = model(**inputs).logits
            return logits

        return score_logits(logits_of, labels, tokens.batches)

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

    def _tokenise(self, split: Split, pad: int | None) -> _Tokens:
        """Batches of a split, padded on the right with the model's own token `pad`; without one, a text at a time."""
        # Late: only a worker needs it, and it takes seconds to import.
        from transformers import AutoTokenizer

        model, table, rows = self._context.model, self._tables[self._paths[split]], self._rows[split]
        tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True)
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
        size = self._options.batch_size if pad is not None else 1
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        order = np.argsort(lengths, kind="stable")
        batches = tuple(order[places] for places in in_order(len(order), size))
        return _Tokens(batches, tuple(_padded(encoded, batch, pad or 0, segments) for batch in batches))


def _padded(encoded: Any, rows: NDArray[np.int64], pad: int, segments: bool) -> Mapping[str, torch.Tensor]:
    """int64 (b, longest): 'input_ids', 'attention_mask', and 'token_type_ids' where `segments`."""
    width = max(len(encoded["input_ids"][i]) for i in rows)
    filled = {"input_ids": np.full((len(rows), width), pad), "attention_mask": np.zeros((len(rows), width), dtype=int)}
    if segments:
        filled["token_type_ids"] = np.zeros((len(rows), width), dtype=int)
    for place, i in enumerate(rows):
        length = len(encoded["input_ids"][i])
        filled["input_ids"][place, :length] = encoded["input_ids"][i]
        filled["attention_mask"][place, :length] = 1
        if segments:
            filled["token_type_ids"][place, :length] = encoded["token_type_ids"][i]
    return {name: torch.from_numpy(values.astype(np.int64)) for name, values in filled.items()}
