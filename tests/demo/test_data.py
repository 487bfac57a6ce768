"""The demo's data file and how it is cut."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mergesearch.demo.data import DATA_FILE, SPLIT_SIZES, TASKS, Examples, Task, load_tasks, write_splits
from mergesearch.errors import DataError
from mergesearch.types import Split

FIRST_LABELS = {
    "mnist": [4, 9, 8, 2, 4, 6, 3, 3],
    "fashion": [3, 8, 8, 5, 5, 2, 4, 9],
    "digits": [7, 2, 7, 4, 8, 6, 5, 8],
    "letters": [24, 12, 8, 3, 5, 25, 11, 6],
}


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    return load_tasks()


def pictures(examples: Examples) -> set[bytes]:
    return {row.tobytes() for row in examples.image}


def test_the_file_is_small_enough_for_a_repository() -> None:
    """The data ride in the repository in at most 6 MB."""
    assert DATA_FILE.stat().st_size <= 6_000_000


def test_the_notice_names_the_file_as_it_is() -> None:
    """NOTICE.md gives the digest of the very file that lies beside it."""
    digest = hashlib.sha256(DATA_FILE.read_bytes()).hexdigest()
    assert digest in (DATA_FILE.parent / "NOTICE.md").read_text()


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_the_sizes_types_and_range_promised(tasks: dict[str, Task], name: str) -> None:
    """Every part is (n, 28, 28) uint8 from black to white with labels of known classes, in the stated sizes."""
    task = tasks[name]
    assert {split: len(examples) for split, examples in task.splits.items()} == SPLIT_SIZES[name]
    assert len(task.train) >= 800
    for part in (task.train, *task.splits.values()):
        assert part.image.shape == (len(part), 28, 28)
        assert part.image.dtype == np.uint8
        assert part.label.dtype == np.int64
        assert part.image.min() == 0
        assert part.image.max() == 255
        assert set(np.unique(part.label)) == set(range(len(task.classes)))


@pytest.mark.parametrize("name", ["mnist", "fashion", "digits"])
def test_no_picture_is_in_two_parts(tasks: dict[str, Task], name: str) -> None:
    """Train, search, confirm and test share no picture."""
    parts = [tasks[name].train, *tasks[name].splits.values()]
    everything = [picture for part in parts for picture in pictures(part)]
    assert len(everything) == len(set(everything))


def test_letters_are_cut_by_font_family(tasks: dict[str, Task]) -> None:
    """What the experts learn letters from, the search split and the test split come from different designs."""
    letters = tasks["letters"]
    train, search, test = (
        pictures(p) for p in (letters.train, letters.splits[Split.SEARCH], letters.splits[Split.TEST])
    )
    assert not train & search
    assert not train & test
    assert not search & test


def test_the_cut_never_changes(tasks: dict[str, Task]) -> None:
    """The first labels of each search split are what they were when scores were recorded."""
    first = {name: tasks[name].splits[Split.SEARCH].label[:8].tolist() for name in TASKS}
    assert first == FIRST_LABELS


def test_written_splits_are_read_back_as_they_were(tasks: dict[str, Task], tmp_path: Path) -> None:
    """Each split is one npz file with arrays `image` and `label`."""
    paths = write_splits(tasks["digits"], tmp_path / "data")
    assert paths[Split.TEST] == tmp_path / "data" / "digits-test.npz"
    for split, path in paths.items():
        with np.load(path) as arrays:
            assert np.array_equal(arrays["image"], tasks["digits"].splits[split].image)
            assert np.array_equal(arrays["label"], tasks["digits"].splits[split].label)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """A file that cannot be unpacked is a DataError with its path and what to do."""
    broken = tmp_path / "broken.xz"
    broken.write_bytes(b"not xz")
    with pytest.raises(DataError, match=r"broken\.xz.*install mergesearch again"):
        load_tasks(path=broken)


def test_an_unknown_task_is_refused() -> None:
    """A task that the file does not hold is a DataError that lists those there are."""
    with pytest.raises(DataError, match="'cats' is unknown; there are mnist"):
        load_tasks(("cats",))
