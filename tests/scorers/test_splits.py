"""Promises of label maps and of the three splits."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergesearch.errors import CheckpointError, DataError, SpecError
from mergesearch.plugins import parse_options
from mergesearch.scorers.data import (
    DataOptions,
    LabelMap,
    class_numbers,
    label_map,
    permutation,
    split_paths,
    split_rows,
    split_sizes,
)
from mergesearch.types import Split

ONE, TWO = Path("one"), Path("two")
FILE = Path("data.csv")
LABELS = LabelMap(("cat", "dog", "7"), "config.json")


@given(
    sizes=st.tuples(*[st.integers(1, 30)] * 3),
    spare=st.integers(0, 10),
    seed=st.integers(0, 2**31),
    other=st.sampled_from(["none", "test", "confirm and test"]),
)
def test_splits_share_no_row(sizes: tuple[int, int, int], spare: int, seed: int, other: str) -> None:
    """Whatever the sizes, the seed and which splits share a file, no two splits share a row of a file."""
    paths = {split: TWO if split.value in other else ONE for split in Split}
    wanted = dict(zip(Split, sizes, strict=True))
    rows = {path: sum(wanted[s] for s in Split if paths[s] == path) + spare for path in set(paths.values())}
    found = split_rows(paths, rows, wanted, seed)
    taken = [(paths[split], int(row)) for split in Split for row in found[split]]
    assert len(taken) == len(set(taken)) == sum(sizes)
    assert all(0 <= row < rows[path] for path, row in taken)
    again = split_rows(paths, rows, wanted, seed)
    assert all(np.array_equal(found[split], again[split]) for split in Split)


@given(small=st.integers(1, 20), large=st.integers(20, 40), seed=st.integers(0, 1000))
def test_splits_are_nested(small: int, large: int, seed: int) -> None:
    """A larger search split begins with the smaller one and leaves confirm and test as they were."""
    paths, rows = dict.fromkeys(Split, ONE), {ONE: 60}
    few = split_rows(paths, rows, {Split.SEARCH: small, Split.CONFIRM: 8, Split.TEST: 12}, seed)
    many = split_rows(paths, rows, {Split.SEARCH: large, Split.CONFIRM: 8, Split.TEST: 12}, seed)
    assert np.array_equal(few[Split.SEARCH], many[Split.SEARCH][:small])
    assert np.array_equal(few[Split.CONFIRM], many[Split.CONFIRM])
    assert np.array_equal(few[Split.TEST], many[Split.TEST])


def test_the_order_is_the_same_on_every_machine() -> None:
    """The permutation of a seed is fixed for good: stored studies depend on it."""
    assert permutation(8, 0).tolist() == [0, 7, 3, 5, 4, 2, 6, 1]


def test_too_few_rows_name_the_file_and_the_counts() -> None:
    """The file that is too small is named, with what its own splits ask for."""
    paths = {Split.SEARCH: ONE, Split.CONFIRM: TWO, Split.TEST: TWO}
    with pytest.raises(DataError, match=r"'two' has 9 rows, its splits ask for 10 \(confirm 4 \+ test 6\)"):
        split_rows(paths, {ONE: 100, TWO: 9}, {Split.SEARCH: 50, Split.CONFIRM: 4, Split.TEST: 6}, 0)


def test_one_path_stands_for_all_splits(tmp_path: Path) -> None:
    """`path: file` and the same file for each split mean the same; `{split}` names a file for each."""
    short = parse_options("data", DataOptions, {"path": "a.npz"})
    long = parse_options("data", DataOptions, {"path": dict.fromkeys(("search", "confirm", "test"), "a.npz")})
    assert split_paths(short, tmp_path) == split_paths(long, tmp_path) == dict.fromkeys(Split, tmp_path / "a.npz")
    each = parse_options("data", DataOptions, {"path": "a-{split}.npz"})
    assert split_paths(each, tmp_path) == {split: tmp_path / f"a-{split.value}.npz" for split in Split}


def test_sizes_have_defaults() -> None:
    """All rows of a file of its own; 500, 300 and 600 of a file that all splits share."""
    left_out = split_sizes(parse_options("data", DataOptions, {"path": "a.npz"}))
    shared = split_rows(dict.fromkeys(Split, ONE), {ONE: 2000}, left_out, 0)
    assert {split: len(rows) for split, rows in shared.items()} == {
        Split.SEARCH: 500,
        Split.CONFIRM: 300,
        Split.TEST: 600,
    }
    own = {split: Path(f"{split.value}.npz") for split in Split}
    apart = split_rows(own, dict.fromkeys(own.values(), 7), left_out, 0)
    assert {len(rows) for rows in apart.values()} == {7}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"path": "a", "lable": "x"}, "unknown key 'lable'; did you mean 'label'"),
        ({"path": {"search": "a", "confirm": "a", "tset": "a"}}, "unknown key 'tset'; did you mean 'test'"),
        ({"path": {"search": "a", "confirm": "a"}}, "path: key 'test' is missing"),
        ({"path": "a", "sizes": {"search": 0}}, r"sizes.search: Input should be greater than 0"),
        ({}, "key 'path' is missing"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], sentence: str) -> None:
    """Unknown and missing keys get a sentence with the near name."""
    with pytest.raises(SpecError, match=sentence):
        parse_options("data", DataOptions, options)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["cat", "7", "dog"], [0, 2, 1]),
        (["0", "2", "1"], [0, 2, 1]),
        ([0, 2, 1.0], [0, 2, 1]),
        ([7, 7], [2, 2]),
        ([True, False], [1, 0]),
        ([], []),
    ],
)
def test_labels_are_numbers_or_names(values: list[object], classes: list[int]) -> None:
    """A column is read as names or as class numbers, one way for all of it."""
    assert class_numbers(FILE, "label", values, LABELS).tolist() == classes


@pytest.mark.parametrize(
    ("values", "row", "value"), [(["cat", "cow"], 2, "'cow'"), ([0, 3], 2, "3"), ([0.5], 1, "0.5"), ([None], 1, "None")]
)
def test_an_unseen_label_is_named(values: list[object], row: int, value: str) -> None:
    """A label that the model does not have is refused with its row and the labels that are known."""
    with pytest.raises(
        DataError, match=rf"'data.csv', row {row}: label {value} in 'label' .* 3 labels, 'cat', 'dog', '7'"
    ):
        class_numbers(FILE, "label", values, LABELS)


def test_names_and_numbers_do_not_mix() -> None:
    """A column of names with a number in it is refused: read as a class it could mean another one."""
    with pytest.raises(DataError, match=r"row 3: label '1'"):
        class_numbers(FILE, "label", ["cat", "dog", "1"], LABELS)


def test_the_label_map_comes_from_the_configuration(tmp_path: Path) -> None:
    """id2label is read in the order of its numbers; a config without one has two classes."""
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {str(i): f"n{i}" for i in range(12)}}))
    assert label_map(tmp_path).names == tuple(f"n{i}" for i in range(12))
    (tmp_path / "config.json").write_text("{}")
    assert label_map(tmp_path).names == ("LABEL_0", "LABEL_1")


def test_a_missing_configuration_is_refused(tmp_path: Path) -> None:
    """A folder without config.json, or with a broken one, gets a sentence."""
    with pytest.raises(CheckpointError, match=r"cannot read config.json: No such file"):
        label_map(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json is not JSON"):
        label_map(tmp_path)
