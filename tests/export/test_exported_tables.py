"""Tables of evaluations: every format comes back as it was written."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
import pytest
from export.stored_study import AXES, BASE, EXAMPLES, OBJECTIVES, SPACE, fill

from mergesearch.errors import DataError, SpecError
from mergesearch.export.tables import META, Format, study_table, write_tables
from mergesearch.store.memory import MemoryStore
from mergesearch.stored import StoredStudy, read_stored
from mergesearch.types import Split


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    """Two studies."""
    made = MemoryStore()
    fill(made)
    fill(made, "other", 3)
    return made


@pytest.fixture(scope="module")
def study(store: MemoryStore) -> StoredStudy:
    """The first of them."""
    return read_stored(store, "made")


TIMES = {(1, Split.SEARCH): (1_700_000_000.25, 1_700_000_003.5), (6, Split.SEARCH): (1_700_000_009.0, None)}


def test_a_row_holds_all_that_is_known_of_an_evaluation(study: StoredStudy) -> None:
    """Natural values under the axes' names, scores with errors and counts, metrics, seconds, worker, moments."""
    rows = study_table(study, TIMES).to_pylist()
    assert [(r["number"], r["split"]) for r in rows] == [
        *((n, "search") for n in range(6)), (1, "confirm"), (1, "test"), (6, "search"),
    ]  # fmt: skip
    first = rows[1]
    point = study.results.candidates[1].point
    assert point is not None
    names = ["coefficient.a.L0", "density", "keep", "rank", "axis.cost"]
    assert [first[name] for name in names] == SPACE.values(point).tolist()
    assert (first["cost"], first["share"], first["status"], first["worker"]) == (1.0, 1.0, "scored", "w1")
    assert (first["score.acc"], first["stderr.loss"], first["n.acc"]) == (0.1, 0.125, EXAMPLES)
    assert first["metric.acc.entropy"] == 0.2
    assert (first["queue_seconds"], first["gpu_seconds"]) == (0.5, 4.5)
    assert first["told"].timestamp() - first["asked"].timestamp() == 3.25


def test_failed_open_and_baseline_rows_have_nulls_where_nothing_is_known(study: StoredStudy) -> None:
    """A failure has its kind and message, an open evaluation no outcome, a baseline no coefficients."""
    rows = study_table(study, TIMES).to_pylist()
    assert (rows[0]["origin"], rows[0]["density"], rows[0]["score.acc"]) == (BASE, None, 0.0)
    failed = rows[3]
    assert (failed["status"], failed["failure"], failed["message"]) == ("failed", "timeout", "took longer than 3 s")
    assert (failed["score.acc"], failed["n.acc"], failed["build_seconds"]) == (None, None, 3.0)
    assert rows[4]["share"] == 0.25
    assert (rows[8]["status"], rows[8]["worker"], rows[8]["told"]) == ("open", None, None)


@pytest.mark.parametrize("form", list(Format))
def test_each_format_comes_back(study: StoredStudy, store: MemoryStore, tmp_path: Path, form: Format) -> None:
    """pyarrow reads the same numbers from CSV, JSON lines and Parquet; two studies of a store fit one table."""
    tables = [study_table(study, TIMES), study_table(read_stored(store, "other"), {})]
    path = tmp_path / "deep" / f"table.{form.value}"
    assert write_tables(tables, form, path) == 9 + 6
    read = {
        Format.CSV: pyarrow.csv.read_csv,
        Format.JSON: pyarrow.json.read_json,
        Format.PARQUET: pyarrow.parquet.read_table,
    }
    back = read[form](path)
    assert back.column_names == tables[0].column_names
    for name in ("number", "split", "density", "rank", "score.loss", "queue_seconds"):
        wanted = [value for table in tables for value in table[name].to_pylist()]
        assert back[name].to_pylist() == wanted, name
    assert list(path.parent.iterdir()) == [path]
    if form is Format.PARQUET:
        meta = json.loads(back.schema.metadata[META])
        assert [axis[0] for axis in meta["made"]["axes"]] == [axis.name for axis in AXES]
        assert [o["name"] for o in meta["other"]["objectives"]] == [o.name for o in OBJECTIVES]


@pytest.mark.parametrize("form", [Format.JSON, Format.PARQUET])
def test_per_example_values_go_along_on_request(
    study: StoredStudy, store: MemoryStore, tmp_path: Path, form: Format
) -> None:
    """A list for each objective, float32; CSV refuses them in one sentence."""
    table = study_table(study, TIMES, lambda number, split: store.examples("made", number, split))
    write_tables([table], form, tmp_path / "x")
    back = (pyarrow.json.read_json if form is Format.JSON else pyarrow.parquet.read_table)(tmp_path / "x")
    kept = store.examples("made", 2, Split.SEARCH)["acc"]
    np.testing.assert_allclose(back["examples.acc"][2].as_py(), kept, rtol=1e-7)
    assert back["examples.acc"][3].as_py() is None
    with pytest.raises(SpecError, match="CSV has no place"):
        write_tables([table], Format.CSV, tmp_path / "y")


def test_a_file_that_cannot_be_written_leaves_nothing_behind(study: StoredStudy, tmp_path: Path) -> None:
    """One sentence, and no half file."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        write_tables([study_table(study, {})], Format.CSV, tmp_path / "file" / "t.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_numbers_that_json_lacks_are_null(tmp_path: Path) -> None:
    """Infinity and NaN do not make a file that JSON readers refuse."""
    table = pa.table({"a": [1.0, float("inf")], "b": [[1.0, float("nan")], None]})
    write_tables([table.replace_schema_metadata({META: "{}"})], Format.JSON, tmp_path / "t.json")
    lines = [json.loads(line) for line in (tmp_path / "t.json").read_text().splitlines()]
    assert lines == [{"a": 1.0, "b": [1.0, None]}, {"a": None, "b": None}]
