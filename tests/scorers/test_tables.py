"""Promises of the readers of data files."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from mergesearch.errors import DataError
from mergesearch.scorers import tables
from mergesearch.scorers.tables import folder_columns, npz_array, npz_headers, read_columns

ROWS = [("a, b", "0"), ('say "x"', "1"), ("two\nlines", "2"), ("ü", "0")]


def write_csv(path: Path, delimiter: str = ",") -> Path:
    """ROWS, quoted, with a byte order mark and an empty line at the end."""
    quoted = ['"{}"{}{}'.format(text.replace('"', '""'), delimiter, label) for text, label in ROWS]
    path.write_text("\ufeff" + "\n".join([f"text{delimiter}label", *quoted, ""]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t"), (".CSV", ",")])
def test_delimited_files_read_back(tmp_path: Path, suffix: str, delimiter: str) -> None:
    """Quotes, delimiters, line breaks and a byte order mark come out right."""
    columns = read_columns(write_csv(tmp_path / f"data{suffix}", delimiter), ["label", "text"])
    assert columns == {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}


def test_json_lines_read_back(tmp_path: Path) -> None:
    """One object a line; empty lines are skipped, numbers stay numbers."""
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "a", "label": 1}\n\n{"label": 0, "text": "ü", "more": null}\n', encoding="utf-8")
    assert read_columns(path, ["text", "label"]) == {"text": ["a", "ü"], "label": [1, 0]}


def test_parquet_is_read(tmp_path: Path) -> None:
    """The wanted columns of a parquet file; a missing one is named."""
    path = tmp_path / "data.parquet"
    table = pyarrow.table({"text": ["a", "ü"], "label": [1, 0], "other": [0.5, 0.25]})
    pyarrow.parquet.write_table(table, path)
    columns = read_columns(path, ["text", "label"])
    assert {name: list(column) for name, column in columns.items()} == {"text": ["a", "ü"], "label": [1, 0]}
    with pytest.raises(DataError, match="has no column 'lable'; did you mean 'label'"):
        read_columns(path, ["lable"])


def test_a_broken_parquet_file_is_one_sentence(tmp_path: Path) -> None:
    """An empty file is no parquet file."""
    (tmp_path / "data.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"data\.parquet"):
        read_columns(tmp_path / "data.parquet", ["text"])


def test_parquet_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow a parquet file is refused with the command that brings it."""
    (tmp_path / "data.parquet").write_bytes(b"")
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install pyarrow"):
        read_columns(tmp_path / "data.parquet", ["text"])


@pytest.mark.parametrize(
    ("name", "body", "sentence"),
    [
        ("a.csv", "text,lable\nx,1\n", "has no column 'label'; did you mean 'lable'\\? It has 'text', 'lable'"),
        ("a.csv", "x,y\n1,2\n", "has no column 'label'; known are 'x', 'y'"),
        ("a.csv", "", "has no column 'label'; known are none"),
        ("a.csv", "label,text\n1,a\n2,b,c\n", r"row 2 \(line 3\): 3 fields, the header has 2"),
        ("a.jsonl", '{"label": 1}\n{"text": 1}\n', r"has no field \(line 2\) 'label'"),
        ("a.jsonl", '{"label": 1}\nnonsense\n', "line 2: not JSON"),
        ("a.jsonl", "[1]\n", "line 1: not an object"),
        ("a.txt", "x", r"cannot read '.txt'; known are \['.csv'"),
    ],
)
def test_broken_tables_are_refused(tmp_path: Path, name: str, body: str, sentence: str) -> None:
    """Each fault of a table gets a sentence that says where it is."""
    (tmp_path / name).write_text(body)
    with pytest.raises(DataError, match=sentence):
        read_columns(tmp_path / name, ["label"])


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """A latin-1 file gets a sentence, not a traceback."""
    (tmp_path / "a.csv").write_bytes("label\nfür\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"must be UTF-8"):
        read_columns(tmp_path / "a.csv", ["label"])


def test_npz_headers_are_read_without_the_arrays(tmp_path: Path) -> None:
    """Shapes and dtypes are those of the arrays, compressed or not."""
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "a.npz", image=np.zeros((5, 4, 4), np.uint8), label=np.arange(5))
        headers = npz_headers(tmp_path / "a.npz")
        assert {k: (h.shape, str(h.dtype)) for k, h in headers.items()} == {
            "image": ((5, 4, 4), "uint8"),
            "label": ((5,), "int64"),
        }
        assert npz_array(tmp_path / "a.npz", "label").tolist() == [0, 1, 2, 3, 4]


def test_npz_faults_are_refused(tmp_path: Path) -> None:
    """A missing array, a file of another kind and pickled objects each get a sentence."""
    np.savez(tmp_path / "a.npz", images=np.zeros(2))
    with pytest.raises(DataError, match=r"has no array 'image'; did you mean 'images'"):
        npz_array(tmp_path / "a.npz", "image")
    (tmp_path / "b.npz").write_text(json.dumps({}))
    with pytest.raises(DataError, match=r"is not an npz file"):
        npz_headers(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", label=np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"holds pickled objects"):
        npz_headers(tmp_path / "c.npz")


def test_missing_files_are_refused(tmp_path: Path) -> None:
    """A near name in the folder is offered; a folder that does not exist is named."""
    write_csv(tmp_path / "train.csv")
    with pytest.raises(DataError, match=r"does not exist; did you mean 'train.csv'"):
        read_columns(tmp_path / "trian.csv", ["label"])
    with pytest.raises(DataError, match=r"the folder '.*nowhere' does not exist"):
        read_columns(tmp_path / "nowhere" / "train.csv", ["label"])


def test_a_folder_per_label_is_sorted(tmp_path: Path) -> None:
    """Files come in sorted order with the names of their folders; other files are passed over."""
    for name in ("dog/b.png", "cat/z.JPG", "cat/a.png", "cat/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    files, names = folder_columns(tmp_path)
    assert [str(f.relative_to(tmp_path)) for f in files] == ["cat/a.png", "cat/z.JPG", "dog/b.png"]
    assert names == ["cat", "cat", "dog"]
    (tmp_path / "cow").mkdir()
    with pytest.raises(DataError, match=r"cow' holds no image"):
        folder_columns(tmp_path)
