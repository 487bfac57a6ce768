"""A study's evaluations as a table, one row each, for notebooks and spreadsheets: CSV, JSON lines or Parquet."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from mergesearch.errors import DataError, SpecError
from mergesearch.space import SearchSpace
from mergesearch.stats import Examples
from mergesearch.stored import StoredStudy
from mergesearch.types import Candidate, Failed, Outcome, Scored, Split

Key: TypeAlias = tuple[int, Split]
Times: TypeAlias = Mapping[Key, tuple[float, float | None]]
"""(candidate, split) -> when it was asked and told, seconds since the epoch."""

META: Final = b"mergesearch"
MOMENT: Final = pa.timestamp("us", tz="UTC")


class Format(StrEnum):
    """What a table is written as: JSON is one object a line."""

    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def study_table(study: StoredStudy, times: Times, examples: Examples | None = None) -> pa.Table:
    """One row per evaluation: those that ended in the order they did, then those that are open.

    Columns: study, number, split, origin; `status` is scored, failed or open; a failure's kind and message; share,
    offset, gradient and cost of what was asked for; a column per axis with its natural value (null for a baseline);
    `score.<objective>`, `stderr.<objective>`, `n.<objective>`; `metric.<objective>.<metric>` for every other metric;
    seconds of the evaluation, worker, asked and told. With `examples`, the reader of per-example values, also
    `examples.<objective>`, a list each. NaN is null. The schema's metadata describe axes and objectives.
    """
    results = study.results
    keys = [*results.outcomes, *((candidate.number, split) for candidate, split in results.pending)]
    candidates = [results.candidates[number] for number, _ in keys]
    outcomes = [results.outcomes.get(key) for key in keys]
    columns: dict[str, Any] = {
        "study": pa.array([study.record.name] * len(keys), pa.string()),
        "number": pa.array([number for number, _ in keys], pa.int64()),
        "split": pa.array([split.value for _, split in keys], pa.string()),
        **_asked(candidates),
        **_ended(outcomes),
    }
    axes = axis_columns(study.space, columns)
    values = axis_values(study.space, candidates)
    columns |= {name: _numbers(values[:, i]) for i, name in enumerate(axes)}
    columns |= _scores(study, outcomes)
    columns |= _spent(outcomes)
    asked_told = [times.get(key, (None, None)) for key in keys]
    columns["asked"] = pa.array([_moment(asked) for asked, _ in asked_told], MOMENT)
    columns["told"] = pa.array([_moment(told) for _, told in asked_told], MOMENT)
    if examples is not None:
        columns |= _examples(study, keys, outcomes, examples)
    meta = {study.record.name: {"axes": study.space.to_dict()["axes"], "objectives": study.facts["objectives"]}}
    return pa.table(columns).replace_schema_metadata({META: json.dumps(meta)})


def write_tables(tables: Sequence[pa.Table], form: Format, path: Path) -> int:
    """Write the tables as one, whole or not at all; a column that a study lacks is null there. Returns the rows.

    Raises:
        SpecError: CSV cannot hold per-example values.
        DataError: the file cannot be written.
    """
    table = pa.concat_tables(tables, promote_options="default")
    lists = [field.name for field in table.schema if pa.types.is_list(field.type)]
    if form is Format.CSV and lists:
        raise SpecError("CSV has no place for per-example values; write --format parquet or json")
    meta: dict[str, Any] = {}
    for one in tables:
        meta |= json.loads((one.schema.metadata or {})[META])
    table = table.replace_schema_metadata({META: json.dumps(meta)})
    half = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if form is Format.PARQUET:
            pyarrow.parquet.write_table(table, half, compression="zstd")
        elif form is Format.CSV:
            pyarrow.csv.write_csv(table, half)
        else:
            _write_lines(table, half)
        half.replace(path)
    except OSError as error:
        with suppress(OSError):
            half.unlink()
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None
    return int(table.num_rows)


def axis_columns(space: SearchSpace, taken: Mapping[str, object]) -> list[str]:
    """The names of the axes; one that is also another column's has 'axis.' before it."""
    return [f"axis.{axis.name}" if axis.name in taken else axis.name for axis in space.axes]


def axis_values(space: SearchSpace, candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """Natural values (n, D) of candidates; a row of NaN for a baseline."""
    table = np.full((len(candidates), space.dim), np.nan)
    for row, candidate in zip(table, candidates, strict=True):
        if candidate.point is not None:
            row[:] = space.values(candidate.point)
    return table


def status_of(outcome: Outcome | None) -> str:
    """'scored', 'failed' or 'open'."""
    if outcome is None:
        return "open"
    return "scored" if isinstance(outcome, Scored) else "failed"


def _asked(candidates: Sequence[Candidate]) -> dict[str, Any]:
    requests = [candidate.request for candidate in candidates]
    return {
        "origin": pa.array([candidate.origin for candidate in candidates], pa.string()),
        "share": _numbers([request.share for request in requests]),
        "offset": _numbers([request.offset for request in requests]),
        "gradient": pa.array([request.gradient for request in requests], pa.string()),
        "cost": _numbers([candidate.cost for candidate in candidates]),
    }


def _ended(outcomes: Sequence[Outcome | None]) -> dict[str, Any]:
    failures = [outcome if isinstance(outcome, Failed) else None for outcome in outcomes]
    return {
        "status": pa.array([status_of(outcome) for outcome in outcomes], pa.string()),
        "failure": pa.array([failed.kind if failed else None for failed in failures], pa.string()),
        "message": pa.array([failed.message if failed else None for failed in failures], pa.string()),
    }


def _spent(outcomes: Sequence[Outcome | None]) -> dict[str, Any]:
    parts = ("queue", "build", "score", "record", "gpu")
    taken = {
        f"{part}_seconds": _numbers([np.nan if o is None else getattr(o.timing, part) for o in outcomes])
        for part in parts
    }
    return {**taken, "worker": pa.array([None if o is None else o.worker for o in outcomes], pa.string())}


def _scores(study: StoredStudy, outcomes: Sequence[Outcome | None]) -> dict[str, Any]:
    scored = [outcome if isinstance(outcome, Scored) else None for outcome in outcomes]
    columns: dict[str, Any] = {}
    for objective in study.results.objectives:
        found = [None if outcome is None else outcome.scores.get(objective.name) for outcome in scored]
        columns[f"score.{objective.name}"] = _numbers([np.nan if s is None else s.value for s in found])
        columns[f"stderr.{objective.name}"] = _numbers([np.nan if s is None else s.stderr for s in found])
        columns[f"n.{objective.name}"] = pa.array([None if s is None else s.n for s in found], pa.int64())
    named = {(o, m): None for outcome in scored if outcome for o, metrics in outcome.metrics.items() for m in metrics}
    for objective_name, metric in named:
        found = [None if o is None else o.metrics.get(objective_name, {}).get(metric) for o in scored]
        column = f"metric.{objective_name}.{metric}"
        columns[column] = _numbers([np.nan if s is None else s.value for s in found])
        columns[f"{column}.stderr"] = _numbers([np.nan if s is None else s.stderr for s in found])
    return columns


def _examples(
    study: StoredStudy, keys: Sequence[Key], outcomes: Sequence[Outcome | None], examples: Examples
) -> dict[str, Any]:
    found = [
        dict(examples(*key)) if isinstance(outcome, Scored) else {} for key, outcome in zip(keys, outcomes, strict=True)
    ]
    return {
        f"examples.{o.name}": pa.array([values.get(o.name) for values in found], pa.list_(pa.float32()))
        for o in study.results.objectives
    }


def _numbers(values: Any) -> pa.Array:
    """Doubles; NaN becomes null, which every reader understands."""
    return pa.array(np.asarray(values, dtype=np.float64), pa.float64(), from_pandas=True)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _write_lines(table: pa.Table, path: Path) -> None:
    """One JSON object a line: what programs read without holding the whole."""
    with path.open("w", encoding="utf-8") as file:
        for batch in table.to_batches(max_chunksize=256):
            for row in batch.to_pylist():
                file.write(json.dumps({name: _plain(value) for name, value in row.items()}) + "\n")


def _plain(value: Any) -> Any:
    """What JSON knows: no infinity, moments as ISO texts."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, datetime) else value
