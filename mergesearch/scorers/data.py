"""What scorers share about data: the options of a data section, label names, and three splits without common rows.

Splits that name the same file take their rows from one seeded permutation of it: search from its front, test from its
end, confirm before test. So a larger search split leaves the other two as they were, and the first n rows of a split
are a nested subset.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, PositiveInt

from mergesearch.errors import CheckpointError, DataError
from mergesearch.plugins import PluginOptions
from mergesearch.types import Split

Rows: TypeAlias = NDArray[np.int64]


SHARED_SIZES = {Split.SEARCH: 500, Split.CONFIRM: 300, Split.TEST: 600}


class Sizes(PluginOptions):
    """Rows of each split. Left out: all rows of a file of its own; 500, 300 and 600 of a file that splits share."""

    search: PositiveInt | None = None
    confirm: PositiveInt | None = None
    test: PositiveInt | None = None


class Paths(PluginOptions):
    """The file of each split; the same file may stand in several, its rows are then divided."""

    search: str
    confirm: str
    test: str


def _one_path_for_all(value: Any) -> Any:
    """A path for all splits; '{split}' in it stands for the split's name."""
    if not isinstance(value, str | Path):
        return value
    return {split.value: str(value).replace("{split}", split.value) for split in Split}


class DataOptions(PluginOptions):
    """Keys that every data section has; relative paths are relative to the folder the study names as its root."""

    path: Annotated[Paths, BeforeValidator(_one_path_for_all)]  # one file, "x-{split}.npz", or {search, confirm, test}
    sizes: Sizes = Sizes()
    label: str = "label"  # column or array of labels: class numbers, or names of the model's label map
    batch_size: PositiveInt = 128


@dataclass(frozen=True)
class LabelMap:
    """The classes of a model's head: `names[i]` is class i. `source` is the file that says so."""

    names: tuple[str, ...]
    source: str


def label_map(model: Path) -> LabelMap:
    """The label map in a model folder's config.json (two classes if it names none, as transformers has it).

    Raises:
        CheckpointError: there is no config.json or it is not JSON.
    """
    config = model_config(model)
    given = config.get("id2label") or {str(i): f"LABEL_{i}" for i in range(int(config.get("num_labels", 2)))}
    names = tuple(str(given[key]) for key in sorted(given, key=int))
    return LabelMap(names, str(model / "config.json"))


def model_config(model: Path) -> Mapping[str, Any]:
    """config.json of a model folder. Raises CheckpointError if it is missing or not JSON."""
    try:
        body = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"model folder {str(model)!r}: cannot read config.json: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(f"model folder {str(model)!r}: config.json is not JSON: {error}") from None
    return body if isinstance(body, dict) else {}


def class_numbers(path: Path, column: str, values: Sequence[Any] | NDArray[Any], labels: LabelMap) -> Rows:
    """Class numbers (n,) of a label column.

    The column is read one way as a whole: numbers as class numbers if all are in range, else all values as names;
    text as names if all are names, else as class numbers.

    Raises:
        DataError: a value that is neither, with its row and the labels that are known.
    """
    plain = values.tolist() if isinstance(values, np.ndarray) else list(values)
    number_of = {name: i for i, name in enumerate(labels.names)}
    by_name = [number_of.get(str(value), -1) for value in plain]
    by_number = [_class_number(value, len(labels.names)) for value in plain]
    text = any(isinstance(value, str) for value in plain)
    for reading in (by_name, by_number) if text else (by_number, by_name):
        if min(reading, default=0) >= 0:
            return np.array(reading, dtype=np.int64)
    nearest = max((by_name, by_number), key=lambda reading: sum(value >= 0 for value in reading))
    row = next(i for i, value in enumerate(nearest) if value < 0)
    known = ", ".join(map(repr, labels.names[:12])) + (", ..." if len(labels.names) > 12 else "")
    raise DataError(
        f"data file {str(path)!r}, row {row + 1}: label {plain[row]!r} in {column!r} is not known; "
        f"{labels.source} has {len(labels.names)} labels, {known} (or 0 to {len(labels.names) - 1} as numbers)"
    )


def _class_number(value: Any, count: int) -> int:
    """-1 where the value is no whole number in [0, count)."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return -1
    return int(number) if number.is_integer() and 0 <= number < count else -1


def split_rows(
    paths: Mapping[Split, Path], rows: Mapping[Path, int], given: Mapping[Split, int | None], seed: int
) -> Mapping[Split, Rows]:
    """Row numbers of each split, in the study's fixed order. Splits of one file share no row.

    Args:
        paths: the file of each split, resolved. `rows`: how many rows each file has. `given`: see `Sizes`.

    Raises:
        DataError: a file has fewer rows than its splits ask for; the message has the counts.
    """
    shared = {path for path in rows if sum(paths[split] == path for split in Split) > 1}
    sizes = {
        split: given[split] or (SHARED_SIZES[split] if paths[split] in shared else rows[paths[split]])
        for split in Split
    }
    for path, count in rows.items():
        asked = {split: sizes[split] for split in Split if paths[split] == path}
        if sum(asked.values()) > count:
            wants = " + ".join(f"{split.value} {size}" for split, size in asked.items())
            raise DataError(
                f"data file {str(path)!r} has {count} rows, its splits ask for {sum(asked.values())} ({wants}); "
                "lower 'sizes' or give more data"
            )
    found = {}
    for split in Split:
        same = [s for s in (Split.TEST, Split.CONFIRM) if paths[s] == paths[split]]
        order = permutation(rows[paths[split]], seed)
        if split in same:
            skip = sum(sizes[s] for s in same[: same.index(split)])
            order = order[::-1][skip:]
        found[split] = order[: sizes[split]]
    return found


def permutation(count: int, seed: int) -> Rows:
    """The seeded order of `count` rows, the same on every machine."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 0x5EED])))
    return generator.permutation(count).astype(np.int64)


def split_paths(options: DataOptions, root: Path) -> Mapping[Split, Path]:
    """The resolved file of each split."""
    return {split: (root / getattr(options.path, split.value)).resolve() for split in Split}


def split_sizes(options: DataOptions) -> Mapping[Split, int | None]:
    """Rows asked for each split, None where the study leaves it open."""
    return {split: getattr(options.sizes, split.value) for split in Split}
