"""The demo's data: four small image tasks from one file in the package, cut into train, search, confirm and test.

The cut never changes: it depends on nothing but this file. Letters are cut by font family, since two weights of one
family draw nearly the same letter: the families of test, of search and confirm, and of train are three different sets.
"""

import io
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import DataError
from mergesearch.types import Split

Images: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]

DATA_FILE = Path(__file__).parent / "data" / "vision-4.npz.xz"
TASKS = ("mnist", "fashion", "digits", "letters")
SPLIT_SIZES = {
    "mnist": {Split.SEARCH: 500, Split.CONFIRM: 500, Split.TEST: 1500},
    "fashion": {Split.SEARCH: 500, Split.CONFIRM: 500, Split.TEST: 1500},
    "digits": {Split.SEARCH: 300, Split.CONFIRM: 250, Split.TEST: 400},
    "letters": {Split.SEARCH: 500, Split.CONFIRM: 500, Split.TEST: 1500},
}
# Serif, sans and monospaced designs on either side; relatives (Liberation Sans and its Narrow, say) stay together.
TEST_FAMILIES = frozenset({"EB Garamond", "Cantarell", "FreeSans", "Liberation Mono"})
SEARCH_FAMILIES = frozenset({"FreeSerif", "Garuda", "FreeMono", "Linux Biolinum O", "Linux Biolinum Keyboard O"})
CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion": (
        "T-shirt or top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    "digits": tuple("0123456789"),
    "letters": tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
}
_GREY_MAX = 31  # the file keeps 32 grey levels
_DIGITS_MAX = 16
_CUT_SEED = 4


@dataclass(frozen=True, eq=False)
class Examples:
    """`image` (n, 28, 28) uint8, 0 is background; `label` (n,) int64."""

    image: Images
    label: Labels

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: NDArray[np.int64]) -> "Examples":
        """The given rows, in the given order."""
        return Examples(self.image[rows], self.label[rows])


@dataclass(frozen=True, eq=False)
class Task:
    """One task: its class names in label order, what its expert learns from, and the three splits scored."""

    name: str
    classes: tuple[str, ...]
    train: Examples
    splits: Mapping[Split, Examples]


def load_tasks(names: tuple[str, ...] = TASKS, path: Path = DATA_FILE) -> dict[str, Task]:
    """The tasks named, from the data file.

    Raises:
        DataError: the file is missing or damaged, or a name is not one of `TASKS`.
    """
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise DataError(f"demo task {unknown[0]!r} is unknown; there are {', '.join(TASKS)}")
    try:
        plain = io.BytesIO(lzma.decompress(path.read_bytes()))
    except (OSError, lzma.LZMAError) as error:
        raise DataError(f"{path}: cannot read the demo's data ({error}); install mergesearch again") from None
    with np.load(plain, allow_pickle=False) as arrays:
        return {name: _task(name, arrays) for name in names}


def write_splits(task: Task, folder: Path) -> dict[Split, Path]:
    """Write `<folder>/<task>-<split>.npz`, arrays `image` and `label`, for each split; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for split, examples in task.splits.items():
        paths[split] = folder / f"{task.name}-{split.value}.npz"
        np.savez_compressed(paths[split], image=examples.image, label=examples.label)
    return paths


def _task(name: str, arrays: Mapping[str, NDArray[np.generic]]) -> Task:
    raw = np.asarray(arrays[f"{name}_image"], dtype=np.uint8)
    image = _enlarged(raw) if name == "digits" else np.round(raw * (255.0 / _GREY_MAX)).astype(np.uint8)
    examples = Examples(image, np.asarray(arrays[f"{name}_label"], dtype=np.int64))
    sizes = SPLIT_SIZES[name]
    # PCG64 through `integers` and `permutation` is the same on every platform.
    order = np.random.default_rng([_CUT_SEED, TASKS.index(name)]).permutation(len(examples))
    if name == "letters":
        family = np.asarray(arrays["families"])[np.asarray(arrays["letters_family"], dtype=np.int64)][order]
        in_test, in_search = np.isin(family, sorted(TEST_FAMILIES)), np.isin(family, sorted(SEARCH_FAMILIES))
        test, held, train = order[in_test], order[in_search], order[~(in_test | in_search)]
    else:
        test, rest = np.split(order, [sizes[Split.TEST]])
        held, train = np.split(rest, [sizes[Split.SEARCH] + sizes[Split.CONFIRM]])
    search, confirm = held[: sizes[Split.SEARCH]], held[sizes[Split.SEARCH] :][: sizes[Split.CONFIRM]]
    rows = {Split.SEARCH: search, Split.CONFIRM: confirm, Split.TEST: test[: sizes[Split.TEST]]}
    return Task(name, CLASSES[name], examples.take(train), {split: examples.take(r) for split, r in rows.items()})


def _enlarged(raw: Images) -> Images:
    """(n, 8, 8) values 0..16 -> (n, 28, 28) values 0..255: bilinear to 24x24, then a border of two."""
    old, new = raw.shape[1], 24
    centre = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    weight = np.maximum(0.0, 1.0 - np.abs(centre[:, None] - np.arange(old)[None, :]))  # (24, 8), rows sum to 1
    grey = np.einsum("ia,nab,jb->nij", weight, raw * (255.0 / _DIGITS_MAX), weight, optimize=True)  # (n, 24, 24)
    return np.pad(np.round(grey), ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
