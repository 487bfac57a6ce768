"""Opens data files: columns of csv, tsv, jsonl and parquet, arrays of npz, and folders with one subfolder per label.

Rows are counted from 1 in messages; the header line of a csv file is not a row.
"""

import csv
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mergesearch.errors import DataError
from mergesearch.plugins import did_you_mean

Column: TypeAlias = Sequence[Any]

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class ArrayHeader:
    """Shape and dtype of an array in an npz file, read without its values."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_columns(path: Path, wanted: Sequence[str]) -> Mapping[str, Column]:
    """The `wanted` columns of a table file, all of one length.

    Raises:
        DataError: the file is missing, of a kind that is not known, broken, or lacks a column.
    """
    must_exist(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _read_csv(path, wanted, "\t" if suffix == ".tsv" else ",")
    if suffix in (".jsonl", ".ndjson"):
        return _read_jsonl(path, wanted)
    if suffix == ".parquet":
        return _read_parquet(path, wanted)
    raise DataError(f"data file {str(path)!r}: cannot read {suffix or 'no suffix'!r}; known are {list(TABLE_SUFFIXES)}")


def must_exist(path: Path) -> None:
    """Raises DataError if nothing stands at `path`."""
    if not path.exists():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
        why = near or f"; the folder {str(path.parent)!r} does not exist"
        raise DataError(f"data file {str(path)!r} does not exist{why}")


def must_have(path: Path, wanted: Sequence[str], present: Sequence[str], what: str = "column") -> None:
    """Raises DataError that names the first of `wanted` that is not `present`, and lists what is."""
    for name in wanted:
        if name not in present:
            near = did_you_mean(name, present)
            listed = "" if near.startswith("; known") else f" It has {', '.join(map(repr, present))}."
            raise DataError(f"data file {str(path)!r} has no {what} {name!r}{near}{listed}")


def _read_csv(path: Path, wanted: Sequence[str], delimiter: str) -> Mapping[str, Column]:
    columns: dict[str, list[str]] = {name: [] for name in wanted}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            must_have(path, wanted, header)
            places = {name: header.index(name) for name in wanted}
            rows = (row for row in reader if row)
            for number, row in enumerate(rows, start=1):
                if len(row) != len(header):
                    raise DataError(
                        f"data file {str(path)!r}, row {number} (line {reader.line_num}): {len(row)} fields, "
                        f"the header has {len(header)}; quote fields that hold a delimiter"
                    )
                for name, place in places.items():
                    columns[name].append(row[place])
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"data file {str(path)!r}, near line {reader.line_num}: {error}; it must be UTF-8"
            ) from None
    return columns


def _read_jsonl(path: Path, wanted: Sequence[str]) -> Mapping[str, Column]:
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    with path.open(encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(f"data file {str(path)!r}, line {number}: not an object with named fields")
                must_have(path, wanted, list(row), f"field (line {number})")
                for name in wanted:
                    columns[name].append(row[name])
        except json.JSONDecodeError as error:
            raise DataError(f"data file {str(path)!r}, line {number}: not JSON: {error.msg}") from None
        except UnicodeDecodeError as error:
            raise DataError(f"data file {str(path)!r}: {error}; it must be UTF-8") from None
    return columns


def _read_parquet(path: Path, wanted: Sequence[str]) -> Mapping[str, Column]:
    if find_spec("pyarrow") is None:
        raise DataError(f"data file {str(path)!r}: parquet needs pyarrow; `pip install pyarrow`, or save it as jsonl")
    parquet = import_module("pyarrow.parquet")
    try:
        must_have(path, wanted, list(parquet.read_schema(path).names))
        table = parquet.read_table(path, columns=list(wanted))
    except (ValueError, OSError) as error:  # what pyarrow's own errors are
        raise DataError(f"data file {str(path)!r}: not a parquet file that can be read: {error}") from None
    return {name: table.column(name).to_pylist() for name in wanted}


def npz_headers(path: Path) -> Mapping[str, ArrayHeader]:
    """Shape and dtype of every array in an npz file, from the first bytes of each.

    Raises:
        DataError: the file is missing, no npz, or holds pickled objects.
    """
    must_exist(path)
    headers = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    version = npy.read_magic(file)
                    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                    shape, _, dtype = read(file)
                if dtype.hasobject:
                    raise DataError(
                        f"data file {str(path)!r}: array {member!r} holds pickled objects; save plain arrays"
                    )
                headers[member.removesuffix(".npy")] = ArrayHeader(shape, dtype)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise DataError(f"data file {str(path)!r} is not an npz file: {error}; write it with numpy.savez") from None
    return headers


def npz_array(path: Path, name: str) -> NDArray[Any]:
    """One array of an npz file; pickles are never loaded. Raises DataError if it is missing or broken."""
    must_have(path, [name], list(npz_headers(path)), "array")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive[name])
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"data file {str(path)!r}, array {name!r}: {error}") from None


def folder_columns(path: Path) -> tuple[list[Path], list[str]]:
    """Image files and the names of the subfolders they stand in, in sorted order.

    Raises:
        DataError: no subfolder, or one without an image.
    """
    must_exist(path)
    files: list[Path] = []
    names: list[str] = []
    for label in sorted(p for p in path.iterdir() if p.is_dir()):
        found = sorted(p for p in label.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise DataError(f"data folder {str(label)!r} holds no image ({', '.join(IMAGE_SUFFIXES)})")
        files.extend(found)
        names.extend([label.name] * len(found))
    if not files:
        raise DataError(f"data folder {str(path)!r} must hold one subfolder of images per label; it has none")
    return files, names
